"""What an agent is compared with: fixed rungs, their mixtures, chance, and the per-image oracle.

A policy's choices are an int64 array, one rung index per picture of an answer table. Not here:
intervals and verdicts (see ``evaluate``).

    rung = best_fixed(calibration, target=0.95)        # chosen on pictures it is not measured on
    choices = fixed(test, rung)
    size_at_agreement(fixed_points(test), 0.95)        # bytes of the best mixture of fixed rungs
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = [
    "Certificate",
    "best_fixed",
    "chosen",
    "fixed",
    "fixed_points",
    "gap_closed",
    "lower_hull",
    "oracle",
    "oracle_size",
    "random_rungs",
    "size_at_agreement",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Says whether agreement (n,) of photos (n,) is certified to meet the target.
Certificate = Callable[[Floats, NDArray[np.generic]], bool]

METRIC = "any_hit"


def fixed(table: AnswerTable, rung: int) -> Ints:
    """Choose the same rung for every picture."""
    return np.full(len(table.keys), rung, dtype=np.int64)


def best_fixed(
    table: AnswerTable,
    target: float,
    *,
    metric: str = METRIC,
    certificate: Certificate | None = None,
) -> int:
    """Return the cheapest rung whose mean agreement on ``table`` meets ``target``.

    Args:
        table: pictures to choose on; never those that the choice is measured on.
        target: agreement wanted, in [0, 1].
        metric: which agreement.
        certificate: asked in addition, so that the opponent works under the agent's own rule.

    Returns:
        An index into the ladder; the safest rung if none meets the target.
    """
    agreement = table.agreement[metric]
    for rung in _cheapest_first(table):
        values = agreement[:, rung]
        if values.mean() < target:
            continue
        if certificate is None or certificate(values, table.groups):
            return rung
    return _safest(table, metric)


def random_rungs(table: AnswerTable, rng: np.random.Generator) -> Ints:
    """Choose each picture's rung by chance, all equally likely."""
    return rng.integers(len(table.ladder), size=len(table.keys), dtype=np.int64)


def oracle(table: AnswerTable, *, metric: str = METRIC) -> Ints:
    """Choose each picture's cheapest agreeing rung, or the safest rung where none agrees.

    Agreement is only nearly monotone along the ladder, so every rung is looked at.
    """
    agrees = table.agreement[metric] >= 1.0
    cost = np.where(agrees, table.size_ratio, np.inf)
    choices = np.argmin(cost, axis=1).astype(np.int64)
    choices[~agrees.any(axis=1)] = _safest(table, metric)
    return choices


def chosen(values: NDArray[np.generic], choices: Ints) -> Floats:
    """Return each picture's value at its rung: (n, K) and (n,) to (n,) float64."""
    return np.take_along_axis(values, choices[:, None], axis=1)[:, 0].astype(np.float64)


def fixed_points(
    table: AnswerTable, *, metric: str = METRIC, weights: Floats | None = None
) -> Floats:
    """Return (size ratio, agreement) of each fixed rung and, last, of the reference: (K + 1, 2)."""
    size = np.average(table.size_ratio, axis=0, weights=weights)
    agreement = np.average(table.agreement[metric], axis=0, weights=weights)
    return np.vstack([np.column_stack([size, agreement]), [1.0, 1.0]])


def lower_hull(points: Floats) -> Floats:
    """Return the points that no mixture of others beats, by rising size and agreement.

    Sending a share of the pictures at one rung and the rest at another reaches every point between
    the two, so the lower convex hull is what fixed rungs can do at best.
    """
    hull: list[tuple[float, float]] = []
    for size, agreement in sorted(map(tuple, points.tolist()), key=lambda p: (p[1], -p[0])):
        # Least agreement first: what costs as much or more and agrees less is beaten outright.
        while hull and hull[-1][0] >= size:
            hull.pop()
        while len(hull) > 1 and _above(hull[-1], hull[-2], (size, agreement)):
            hull.pop()
        hull.append((size, agreement))
    return np.array(hull)


def size_at_agreement(points: Floats, agreement: float) -> float:
    """Return the size ratio at which the best mixture of ``points`` reaches ``agreement``.

    Agreement below the cheapest point's costs what that point costs; agreement above the best
    point's is not to be had, and costs what the best point costs.
    """
    hull = lower_hull(points)
    return float(np.interp(agreement, hull[:, 1], hull[:, 0]))


def oracle_size(
    table: AnswerTable, agreement: float, *, metric: str = METRIC, weights: Floats | None = None
) -> float:
    """Return the least mean size ratio at which a share ``agreement`` of the pictures agrees.

    This oracle may give up pictures: those that cost most to agree are sent at their cheapest.
    """
    weights = np.ones(len(table.keys)) if weights is None else weights
    cheapest = table.size_ratio.min(axis=1)
    cost = np.where(table.agreement[metric] >= 1.0, table.size_ratio, np.inf).min(axis=1)
    order = np.argsort(cost - cheapest, kind="stable")
    order = order[np.isfinite(cost[order])]
    share, extra = weights[order], (cost - cheapest)[order]
    total = weights.sum()
    taken = np.clip(agreement * total - (np.cumsum(share) - share), 0.0, share)
    return float((weights @ cheapest + taken @ extra) / total)


def gap_closed(
    table: AnswerTable, choices: Ints, *, metric: str = METRIC, weights: Floats | None = None
) -> float:
    """Return (best fixed - policy) / (best fixed - oracle), all at the policy's agreement.

    1 is as good as the oracle, 0 as the best mixture of fixed rungs, below 0 is worse than that;
    NaN where the oracle itself does not beat the fixed rungs.
    """
    size = float(np.average(chosen(table.size_ratio, choices), weights=weights))
    agreement = float(np.average(chosen(table.agreement[metric], choices), weights=weights))
    best = size_at_agreement(fixed_points(table, metric=metric, weights=weights), agreement)
    gap = best - oracle_size(table, agreement, metric=metric, weights=weights)
    return (best - size) / gap if gap > 1e-9 else float("nan")


def _cheapest_first(table: AnswerTable) -> list[int]:
    return [int(rung) for rung in np.argsort(table.size_ratio.mean(axis=0), kind="stable")]


def _safest(table: AnswerTable, metric: str) -> int:
    """Return the rung that agrees most, the cheapest of them."""
    means = table.agreement[metric].mean(axis=0)
    return max(_cheapest_first(table), key=lambda rung: means[rung])


def _above(
    middle: tuple[float, float], left: tuple[float, float], right: tuple[float, float]
) -> bool:
    """Say whether ``middle`` is no cheaper than the mixture of its neighbours."""
    rise = (right[1] - left[1]) * (middle[0] - left[0])
    return rise >= (middle[1] - left[1]) * (right[0] - left[0])
