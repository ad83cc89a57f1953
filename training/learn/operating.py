"""Operating points: the winner of the contest, certified, and never worse than one fixed rung."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint
from training.learn.calibrate import Observe, agreement_needed, calibrate, images_needed
from training.learn.contest import Contest
from training.learn.policies import GRID, SAFEST, Fixed, Policy, Static

__all__ = ["KEPT", "Goals", "expected_point", "operating_points"]

#: Share of δ that is kept for the fixed rung, should it turn out cheaper, if there are pictures
#: enough for both.
KEPT = 0.2

#: Where answers cost, this many trade-offs are tested between the two expectations below, or up to
#: twice as many.
_THRIFTY_STEPS = 14


@dataclass(frozen=True, kw_only=True)
class Goals:
    """What the operating point has to promise.

    Attributes:
        target, delta: P(agreement < target) ≤ delta.
        shares: agreement is a share of labels, not 0 or 1.
        thrifty: answers are bought, so few steps are tested.
        effect: design effect, if it is known beforehand.
    """

    target: float
    delta: float
    shares: bool = False
    thrifty: bool = False
    effect: float | None = None


def operating_points(
    policies: Mapping[str, Policy],
    contest: Contest,
    observe: Observe,
    groups: NDArray[np.object_],
    size_ratio: NDArray[np.float64],
    goals: Goals,
) -> tuple[OperatingPoint, ...]:
    """Return the agent's point, then one without probes for devices that cannot afford them.

    Args:
        policies: by kind, for the held-out pictures.
        contest: whose winner is calibrated.
        observe: tells agreement of held-out pictures.
        groups: (N,) their photos.
        size_ratio: (N, K), of the held-out pictures.
        goals: what is promised.
    """
    static = policies["static"]
    assert isinstance(static, Static)
    winner = policies.get(contest.winner, static)
    kept = 0.0 if isinstance(winner, Fixed) else _kept(len(groups), goals)
    steps = None
    if goals.thrifty and not isinstance(winner, Fixed):
        steps = _steps(winner, len(groups), goals, kept)
    point = _certified(winner, observe, groups, goals, steps, kept)
    if kept:
        point = _guarded(point, policies, observe, groups, size_ratio, goals)
    if point.max_probes:
        return point, expected_point(static.scores, goals.target)
    return (point,)


def expected_point(predicted: Scores, target: float) -> OperatingPoint:
    """Return the cheapest trade-off at which the head expects ``target`` of its own choices."""
    best, static = SAFEST, Static(predicted)
    for trade_off in GRID:
        if static.foreseen(trade_off).mean() < target:
            break
        best = trade_off
    return OperatingPoint(
        trade_off=best,
        target=target,
        n=len(predicted.features),
        test="expected by the model",
        note="Not certified: the trade-off is the cheapest at which the head itself expects the "
        "target.",
    )


def _certified(
    policy: Policy,
    observe: Observe,
    groups: NDArray[np.object_],
    goals: Goals,
    steps: tuple[float, ...] | None,
    kept: float,
) -> OperatingPoint:
    return calibrate(
        policy,
        observe,
        groups,
        target=goals.target,
        delta=goals.delta,
        spend=1.0 - kept,
        steps=steps,
        effect=goals.effect,
        shares=goals.shares,
    )


def _guarded(
    point: OperatingPoint,
    policies: Mapping[str, Policy],
    observe: Observe,
    groups: NDArray[np.object_],
    size_ratio: NDArray[np.float64],
    goals: Goals,
) -> OperatingPoint:
    """Return ``point``, or a certified fixed rung that is cheaper on the held-out pictures."""
    rows = np.arange(len(groups))
    kind = "probing" if point.max_probes else "static"
    size = float(size_ratio[rows, policies[kind].rungs(point.trade_off or SAFEST)].mean())
    fixed = policies["fixed"]
    assert isinstance(fixed, Fixed)
    means = size_ratio.mean(axis=0)
    order = tuple(rung for rung in fixed.order if means[rung] < size)
    if not order:
        return point
    found = calibrate(
        replace(fixed, order=order),
        observe,
        groups,
        target=goals.target,
        delta=goals.delta,
        spend=KEPT,
        effect=goals.effect,
        shares=goals.shares,
    )
    if not found.certified:
        return point
    said = "No look at the picture beat one fixed rung, so that rung is always sent."
    return replace(found, note=f"{said} {found.note}")


def _kept(count: int, goals: Goals) -> float:
    """Return the share of δ that is worth keeping: none where it could certify nothing."""
    return KEPT if images_needed(goals.target, KEPT * goals.delta) <= count else 0.0


def _steps(policy: Policy, count: int, goals: Goals, kept: float) -> tuple[float, ...]:
    """Return few trade-offs, from clearly safe to clearly too cheap by what the heads expect.

    Who picks what looks best is disappointed a little, so the first is far on the safe side.
    """
    needed = agreement_needed(count, goals.target, goals.delta * (1.0 - kept))
    expected = {step: float(policy.foreseen(step).mean()) for step in GRID}
    safe = [step for step in GRID if expected[step] >= 1.0 - (1.0 - needed) / 4.0]
    start = min(safe, default=GRID[0])
    floor = min((step for step in GRID if expected[step] >= goals.target), default=start)
    between = [step for step in GRID if floor <= step <= start]
    thinned = between[:: max(1, len(between) // _THRIFTY_STEPS)]
    return (SAFEST, 16.0 * start, 4.0 * start, *thinned)
