"""The accuracy target: λ by Learn-then-Test on held-out labels.

For trade-offs from the safest to the cheapest, test "agreement < t" with the exact
binomial tail and stop at the first that cannot be rejected (fixed-sequence testing, so no
correction is paid; https://arxiv.org/abs/2110.01052). The tail is exact for agreement of 0 or 1;
for shares of labels Bentkus's bound holds, which is e times as large. Views of one photo are not
independent: their number is divided by the design effect, estimated from the labels themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.policy import OperatingPoint
from model_store.errors import UsageError
from training.learn.policies import SAFEST, Policy

__all__ = [
    "Observe",
    "agreement_needed",
    "calibrate",
    "certified",
    "design_effect",
    "exact_tail",
    "images_needed",
]

Array = NDArray[np.float64]

#: (N,) rungs -> (N,) agreement of those.
Observe = Callable[[NDArray[np.int64]], Array]

TEST = "learn-then-test, exact binomial tail, fixed sequence"


def calibrate(
    policy: Policy,
    observe: Observe,
    groups: NDArray[np.object_],
    *,
    target: float,
    delta: float = 0.05,
    spend: float = 1.0,
    steps: Sequence[float] | None = None,
    effect: float | None = None,
    shares: bool = False,
) -> OperatingPoint:
    """Return the cheapest step of a policy whose agreement is at least ``target``, certified.

    Args:
        policy: chooses rungs for N held-out pictures.
        observe: agreement of one rung of each picture, (N,) from (N,); may buy answers.
        groups: (N,) photo of each picture.
        target: t; P(agreement < t) ≤ ``delta`` at the returned point if it is certified.
        delta: δ.
        spend: share of δ that this test may use up, where another one has the rest.
        steps: tested in this order; fixed before any answer is seen. Default all of the policy's.
        effect: see :func:`design_effect`; default is computed anew from every step's answers.
        shares: agreement is a share of labels and not 0 or 1, so the binomial tail is no bound.

    Raises:
        UsageError: target or delta outside (0, 1).
    """
    _check_share("target accuracy", target)
    _check_share("delta", delta)
    allowed, count = spend * delta / (math.e if shares else 1.0), len(groups)
    certificate = OperatingPoint(trade_off=SAFEST, target=target, delta=delta, test=TEST, n=count)
    passed: OperatingPoint | None = None
    for step in policy.steps if steps is None else steps:
        picked = observe(policy.rungs(step))
        worth = design_effect(picked[:, None], groups) if effect is None else effect
        achieved, effective = (float(picked.mean()) if count else 0.0), count / worth
        if exact_tail((1.0 - achieved) * effective, effective, target) > allowed:
            break
        passed = replace(
            certificate,
            **_rule(policy.point(step)),
            certified=True,
            achieved=round(achieved, 6),
            n_effective=round(effective, 1),
            note=_note(worth),
        )
    return passed or _uncertified(certificate, groups, allowed, worth, achieved)


def certified(
    agreement: Array, groups: NDArray[Any], *, target: float, delta: float = 0.05
) -> bool:
    """Tell whether one fixed policy's agreement, (N,), passes the test that an agent must pass."""
    effective = len(agreement) / design_effect(agreement[:, None], groups)
    return exact_tail((1.0 - agreement.mean()) * effective, effective, target) <= delta


def exact_tail(errors: float, n: float, target: float) -> float:
    """Return P(at most ``errors`` disagreements among ``n``) if the agreement were just ``target``.

    Fractions, which a design effect makes, are rounded against us: errors up, n down.
    """
    trials, allowed, risk = math.floor(n + 1e-9), math.ceil(errors - 1e-9), 1.0 - target
    if allowed >= trials:
        return 1.0
    terms = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(risk)
        + (trials - k) * math.log1p(-risk)
        for k in range(allowed + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def agreement_needed(n: float, target: float, delta: float) -> float:
    """Return the least mean agreement of ``n`` pictures that certifies ``target``; 1 if none does.

    On few pictures an agent has to do visibly better than its target to prove it.
    """
    errors = 0
    while exact_tail(errors + 1, n, target) <= delta:
        errors += 1
    return 1.0 - errors / n if n else 1.0


def images_needed(target: float, delta: float) -> int:
    """Return how many independent pictures certify ``target`` if all of them agree: t^n ≤ δ."""
    return math.ceil(math.log(delta) / math.log(target) - 1e-9)


def design_effect(agreement: Array, groups: NDArray[Any]) -> float:
    """Return how many correlated pictures are worth one independent picture, at least 1.

    1 + (m − 1)·ρ with m the mean size of a photo's group, weighted by size, and ρ the intraclass
    correlation of agreement within photos, pooled over rungs (one-way analysis of variance). Where
    no answer differs from another, nothing shows that views are independent, and photos count.
    """
    _, photo, counts = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    n, photos = len(groups), len(counts)
    if photos in (n, 1) or n < 3:
        return 1.0 if photos == n else float(n)
    means = np.zeros((photos, agreement.shape[1]))
    np.add.at(means, photo, agreement)
    means /= counts[:, None]
    between = (counts[:, None] * (means - agreement.mean(axis=0)) ** 2).sum() / (photos - 1)
    within = ((agreement - means[photo]) ** 2).sum() / (n - photos)
    typical = (n - (counts**2).sum() / n) / (photos - 1)
    spread = between + (typical - 1.0) * within
    correlation = max(0.0, (between - within) / spread) if spread > 0 else 1.0
    return float(1.0 + ((counts**2).sum() / n - 1.0) * correlation)


def _rule(point: OperatingPoint) -> dict[str, Any]:
    """Return what decides, without what is said about it."""
    return {name: getattr(point, name) for name in ("trade_off", "max_probes", "rung")}


def _uncertified(
    point: OperatingPoint,
    groups: NDArray[np.object_],
    allowed: float,
    effect: float,
    achieved: float,
) -> OperatingPoint:
    """Return the safest point with the reason and what would help."""
    assert point.target is not None
    needed = math.ceil(images_needed(point.target, allowed) * effect)
    effective = round(len(groups) / effect, 1)
    return replace(point, n_effective=effective, note=_why_not(point, needed, achieved))


def _why_not(point: OperatingPoint, needed: int, achieved: float) -> str:
    promise = f"agreement {point.target} at delta {point.delta}"
    if point.n < needed:
        reason = (
            f"{point.n} held-out pictures are too few for {promise}; at least {needed - point.n} "
            "more are needed"
        )
    else:
        reason = (
            f"even the safest rung agrees on {achieved:.1%} of {point.n} held-out pictures only, "
            f"which does not prove {promise}"
        )
    return f"Not certified: {reason}. The safest rung is used."


def _note(effect: float) -> str:
    if effect <= 1.0:
        return "Every held-out picture is of another photo."
    return (
        f"Several held-out views show one photo; {effect:.2f} of them count as one "
        "(design effect), which makes the test approximate."
    )


def _check_share(name: str, value: Hashable) -> None:
    if not (isinstance(value, int | float) and 0.0 < value < 1.0):
        raise UsageError(f"The {name} is {value}; allowed is a share above 0 and below 1.")
