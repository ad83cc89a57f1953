"""The accuracy target: λ by Learn-then-Test on held-out labels.

For a grid of trade-offs from the safest to the cheapest, test "agreement < t" with the exact
binomial tail and stop at the first that cannot be rejected (fixed-sequence testing, so no
correction is paid; https://arxiv.org/abs/2110.01052). The tail is exact for agreement of 0 or 1;
for shares of labels Bentkus's bound holds, which is e times as large. Views of one photo are not
independent: their number is divided by the design effect, estimated from the labels themselves.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint, choose
from model_store.errors import UsageError

__all__ = [
    "GRID",
    "SAFEST",
    "calibrate",
    "certified",
    "design_effect",
    "exact_tail",
    "images_needed",
]

Array = NDArray[np.float64]

#: λ at which the rung that decodes to the reference's pixels always wins.
SAFEST = 1e6

#: Trade-offs tested, from safe to cheap.
GRID = tuple(np.geomspace(300.0, 0.05, 80).tolist())

TEST = "learn-then-test, exact binomial tail, fixed sequence"


def calibrate(
    scores: Scores,
    agreement: Array,
    groups: NDArray[np.object_],
    *,
    target: float,
    delta: float = 0.05,
) -> OperatingPoint:
    """Return the cheapest trade-off whose agreement is at least ``target``, with its certificate.

    Args:
        scores: of N held-out pictures.
        agreement: (N, K), observed, in [0, 1].
        groups: (N,) photo of each picture.
        target: t; P(agreement < t) ≤ ``delta`` at the returned point if it is certified.
        delta: δ.

    Raises:
        UsageError: target or delta outside (0, 1).
    """
    _check_share("target accuracy", target)
    _check_share("delta", delta)
    effect = design_effect(agreement, groups)
    effective, allowed = len(agreement) / effect, delta / _tail_factor(agreement)
    point = OperatingPoint(
        trade_off=SAFEST,
        target=target,
        delta=delta,
        test=TEST,
        n=len(agreement),
        n_effective=round(effective, 1),
    )
    for trade_off in (SAFEST, *GRID):
        achieved = _achieved(scores, agreement, trade_off)
        if exact_tail((1.0 - achieved) * effective, effective, target) > allowed:
            break
        point = replace(
            point,
            trade_off=trade_off,
            certified=True,
            achieved=round(achieved, 6),
            note=_note(effect),
        )
    if point.certified:
        return point
    needed = math.ceil(images_needed(target, allowed) * effect)
    return replace(point, note=_why_not(point, needed, _achieved(scores, agreement, SAFEST)))


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


def _achieved(scores: Scores, agreement: Array, trade_off: float) -> float:
    chosen = choose(scores, OperatingPoint(trade_off=trade_off))
    picked = agreement[np.arange(len(agreement)), chosen]
    return float(picked.mean()) if len(picked) else 0.0


def _tail_factor(agreement: Array) -> float:
    """Return 1 if the binomial tail is exact, else Bentkus's e: shares are not binomial."""
    return 1.0 if np.isin(agreement, (0.0, 1.0)).all() else math.e


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
