"""The accuracy target: λ by Learn-then-Test on held-out labels.

For a grid of trade-offs from the safest to the cheapest, test "agreement < t" with the exact
binomial tail and stop at the first that cannot be rejected (fixed-sequence testing, so no
correction is paid; https://arxiv.org/abs/2110.01052). Views of one photo are not independent: their
number is divided by the design effect, estimated from the labels themselves.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint, choose
from model_store.errors import UsageError

__all__ = ["SAFEST", "calibrate", "design_effect", "exact_tail", "images_needed"]

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
    certified: OperatingPoint | None = None
    for trade_off in (SAFEST, *GRID):
        point = OperatingPoint(trade_off=trade_off)
        achieved = float(agreement[np.arange(len(agreement)), choose(scores, point)].mean())
        effective = len(agreement) / effect
        if exact_tail((1.0 - achieved) * effective, effective, target) > delta:
            break
        certified = OperatingPoint(
            trade_off=trade_off,
            target=target,
            delta=delta,
            certified=True,
            test=TEST,
            n=len(agreement),
            n_effective=round(effective, 1),
            achieved=round(achieved, 6),
            note=_note(effect),
        )
    return certified or _too_few(agreement, effect, target, delta)


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


def images_needed(target: float, delta: float, risk: float = 0.0) -> int:
    """Return how many independent pictures certify ``target`` when ``risk`` of them disagree."""
    n = 1
    while exact_tail(risk * n, n, target) > delta:
        n += 1
        if n > 1_000_000:
            raise UsageError(f"A risk of {risk} can never certify an agreement of {target}.")
    return n


def design_effect(agreement: Array, groups: NDArray[np.object_]) -> float:
    """Return how many correlated pictures are worth one independent picture, at least 1.

    1 + (m − 1)·ρ with m the mean size of a photo's group, weighted by size, and ρ the intraclass
    correlation of agreement within photos, pooled over rungs (one-way analysis of variance).
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
    correlation = max(0.0, (between - within) / spread) if spread > 0 else 0.0
    return float(1.0 + ((counts**2).sum() / n - 1.0) * correlation)


def _too_few(agreement: Array, effect: float, target: float, delta: float) -> OperatingPoint:
    needed = math.ceil(images_needed(target, delta) * effect)
    have = len(agreement)
    return OperatingPoint(
        trade_off=SAFEST,
        target=target,
        delta=delta,
        certified=False,
        test=TEST,
        n=have,
        n_effective=round(have / effect, 1),
        achieved=None,
        note=(
            f"Not certified: {have} held-out pictures are too few for agreement {target} at "
            f"delta {delta}; at least {max(needed - have, 1)} more are needed. The safest rung is "
            "used."
        ),
    )


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
