"""From measurements to a promise: which rates reach an agreement, and what they then cost.

A hundred photos tell the agreement of one rate to two points only, so rates are read together, one
curve that only rises with the bytes, and a standard error is kept to spare: without it, one split
of three chose a rate for .95 that reached .88 on other photos. Between two rates, a share of the
pictures gets the higher one.

Not here: certificates (``training.learn.operating``) and policies that look at the picture
(``training.learn``), which feature rungs get as any other rung does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.codec.measure import Measured

__all__ = ["Choice", "Reached", "bytes_at", "choose", "reach"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """Two neighbouring rates, and the share of the pictures that get the higher one."""

    low: int
    high: int
    share: float

    def columns(self, photos: int) -> npt.NDArray[np.int64]:
        """Return the rate of each of N photos; the golden ratio spreads the share evenly."""
        place = (np.arange(photos) * 0.6180339887498949) % 1.0
        return np.where(place < self.share, self.high, self.low)


@dataclass(frozen=True)
class Reached:
    """What a choice did on photos it was not made on: mean bytes, agreement and how many."""

    target: float
    choice: Choice
    size: float
    agreement: float
    photos: int


def choose(measured: Measured, target: float) -> Choice | None:
    """Return the cheapest choice that reaches a target with a standard error to spare, or None.

    Args:
        measured: rates in order of their bytes.
        target: agreement.
    """
    expected = _curve(measured)
    target += float(np.sqrt(target * (1.0 - target) / len(measured.sizes)))
    above = np.flatnonzero(expected >= target)
    if not above.size:
        return None
    high = int(above[0])
    if high == 0:
        return Choice(0, 0, 0.0)
    share = (target - expected[high - 1]) / (expected[high] - expected[high - 1])
    return Choice(high - 1, high, float(share))


def reach(measured: Measured, choice: Choice, target: float) -> Reached:
    """Return what a choice does on other photos."""
    rows = np.arange(len(measured.sizes))
    columns = choice.columns(len(rows))
    return Reached(
        target,
        choice,
        float(measured.sizes[rows, columns].mean()),
        float(measured.agreed[rows, columns].mean()),
        len(rows),
    )


def bytes_at(measured: Measured, target: float) -> float | None:
    """Return the fewest mean bytes at an agreement, mixing any two settings, in hindsight.

    It is read off the very photos it is about, for every method alike; it compares, it promises
    nothing.
    """
    sizes, agreed = measured.mean()
    best = np.inf
    for size, one in zip(sizes, agreed, strict=True):
        if one >= target:
            best = min(best, size)
            continue
        for other_size, other in zip(sizes, agreed, strict=True):
            if other > target:
                share = (target - one) / (other - one)
                best = min(best, size + share * (other_size - size))
    return float(best) if np.isfinite(best) else None


def _curve(measured: Measured) -> Floats:
    """Return the agreement of each rate, where a dearer one never has less: what differs is luck.

    Rates that are out of order share their mean (pool adjacent violators).
    """
    blocks: list[list[float]] = []
    for agreed in measured.mean()[1].tolist():
        blocks.append([agreed])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    return np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
