"""Mean and spread of vectors, and how far the mean of a window of them strays by chance.

That is a two-sample test. The squared distance of a window's mean from the training mean, in
spreads, is about ``scale · (1/window + 1/training) · χ²_f / f`` at home, with ``scale`` and ``f``
measured on random windows of the training vectors; Wilson and Hilferty's cube root makes a standard
normal score of it. What a scenery is, and what is strange to it, ``edge_sdk.scenery`` says.

    spread = Spread.of(vectors, groups, rng)
    spread.score(spread.standardised(window), count=len(window), training=len(vectors))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model_store.errors import UsageError

__all__ = ["WINDOW", "Array", "Spread", "independent", "rounded", "variety", "window_of"]

Array = NDArray[np.float64]

#: Pictures of the windows that a signature is calibrated on.
WINDOW = 16

_RANDOM_WINDOWS = 300
#: Spreads below this share of the average spread are raised to it: a feature that never moved in
#: training would otherwise outvote all others when it first moves.
_STD_FLOOR = 0.05
_TINY = 1e-6
_DIGITS = 5
#: Degrees of freedom are kept within sense, whatever a tiny training set says.
_FREEDOM = (1.0, 400.0)
_Z_99 = 2.3263  # 99th percentile of the standard normal


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Spread:
    """Mean and spread of vectors, and how far windows of them stray by chance.

    Attributes:
        mean: float64 (D,).
        std: float64 (D,), floored, > 0.
        scale: mean of a random window's squared distance over what independence would give.
        freedom: degrees of freedom of that distance.
    """

    mean: Array
    std: Array
    scale: float = 1.0
    freedom: float = 1.0

    def __post_init__(self) -> None:
        usable = (
            self.mean.ndim == 1
            and self.mean.size > 0
            and self.mean.shape == self.std.shape
            and bool(np.isfinite(self.mean).all() and np.isfinite(self.std).all())
            and bool((self.std > 0).all())
            and 0 < self.scale < np.inf
            and 0 < self.freedom < np.inf
        )
        if not usable:
            raise UsageError(
                f"A scenery signature has mean {self.mean.shape}, std {self.std.shape}, scale "
                f"{self.scale} and freedom {self.freedom}; allowed are equally long, finite "
                "vectors, std > 0, and a scale and a freedom above 0."
            )

    @classmethod
    def of(cls, vectors: Array, groups: NDArray[Any], rng: np.random.Generator) -> Self:
        """Describe vectors (N, D) of pictures; those of one group are not independent."""
        std = vectors.std(axis=0)
        std = np.maximum(std, max(_STD_FLOOR * float(std.mean()), _TINY))
        strayed = _strayed(vectors / std, groups, rng)
        scale = max(float(strayed.mean()), _TINY)
        freedom = 2.0 * scale**2 / max(float(strayed.var()), _TINY)
        return cls(
            mean=vectors.mean(axis=0),
            std=std,
            scale=scale,
            freedom=float(np.clip(freedom, *_FREEDOM)),
        )

    def standardised(self, vectors: Array) -> Array:
        """Return vectors (..., D) in spreads from the mean."""
        return (vectors - self.mean) / self.std

    def score(self, moved: NDArray[Any], count: float, training: int, shared: float = 0.0) -> float:
        """Return a standardised window's normal score.

        Args:
            moved: (N, D).
            count: independent pictures that are in it.
            training: independent pictures behind this.
            shared: variance that all of its pictures have in common.
        """
        squared = float(np.mean(np.square(moved.mean(axis=0))))
        # A mixture of more extremes than training had: its mean strays farther by chance.
        by_chance = self.scale * (max(1.0, variety(moved)) / count + shared + 1.0 / training)
        ninth = 2.0 / (9.0 * self.freedom)
        return float((np.cbrt(squared / by_chance) - (1.0 - ninth)) / np.sqrt(ninth))

    def likelihood(self, vector: Array) -> float:
        """Return one vector's log density up to a constant, a mean over its D entries."""
        moved = self.standardised(vector)
        return float(np.mean(-0.5 * np.square(moved) - np.log(self.std)))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, rounded to five significant digits."""
        return {
            "mean": [rounded(value) for value in self.mean],
            "std": [rounded(value) for value in self.std],
            "scale": rounded(self.scale),
            "freedom": rounded(self.freedom),
        }

    def radius(self, training: int) -> float:
        """Return what 99 of 100 random windows of ``training`` pictures stay within, in spreads."""
        ninth = 2.0 / (9.0 * self.freedom)
        percentile_99 = float(self.scale * (1.0 - ninth + _Z_99 * np.sqrt(ninth)) ** 3)
        return float(np.sqrt(percentile_99 * _expected(training)))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return cls(
            mean=np.asarray(document["mean"], dtype=np.float64),
            std=np.asarray(document["std"], dtype=np.float64),
            scale=float(document.get("scale", 1.0)),
            freedom=float(document["freedom"] if "freedom" in document else _freedom(document)),
        )


def window_of(n: int) -> int:
    """Return how many of ``n`` pictures are in the windows that a signature is calibrated on."""
    return max(1, min(WINDOW, n // 2))


def variety(moved: NDArray[Any]) -> float:
    """Return the variance within a standardised window, 1 for pictures as in training."""
    inner = float(np.mean(np.square(moved - moved.mean(axis=0))))
    return inner * len(moved) / max(1, len(moved) - 1)


def independent(moved: NDArray[Any]) -> float:
    """Return how many independent pictures a window (N, D) is worth, by its lag-1 correlation."""
    if len(moved) < 3:
        return float(len(moved))
    inner = moved - moved.mean(axis=0)
    power = float(np.mean(np.square(inner)))
    if power <= _TINY:
        return 1.0
    # The mean was taken out of so few that independent pictures correlate by -1/N.
    lag = float(np.mean(inner[1:] * inner[:-1])) / power + 1.0 / len(moved)
    lag = min(max(lag, 0.0), 1.0)
    return max(1.0, len(moved) * (1.0 - lag) / (1.0 + lag))


def rounded(value: float) -> float:
    """Return a value as documents have it, to five significant digits."""
    return float(f"{value:.{_DIGITS}g}")


def _strayed(vectors: Array, groups: NDArray[Any], rng: np.random.Generator) -> Array:
    """Return squared distances of random windows from the other groups' mean, over chance's."""
    names, place = np.unique(groups, return_inverse=True)
    window = window_of(len(names))
    members = [np.flatnonzero(place == name) for name in range(len(names))]
    sums = np.stack([vectors[rows].sum(axis=0) for rows in members])
    sizes = np.array([len(rows) for rows in members])
    expected = _expected(len(names))
    found = np.empty(_RANDOM_WINDOWS)
    for index in range(_RANDOM_WINDOWS):
        chosen = rng.permutation(len(names))
        seen, others = chosen[:window], chosen[window:]
        picked = [members[name][rng.integers(sizes[name])] for name in seen]
        rest = sums[others].sum(axis=0) / max(1, sizes[others].sum())
        found[index] = np.mean(np.square(vectors[picked].mean(axis=0) - rest)) / expected
    return found


def _expected(n: int) -> float:
    """Return the squared distance of such a window's mean from the others', if independent."""
    return 1.0 / window_of(n) + 1.0 / max(1, n - window_of(n))


def _freedom(document: Mapping[str, Any]) -> float:
    """Return the degrees of freedom behind a radius: earlier signatures had nothing else."""
    window, n = int(document["window"]), int(document["n"])
    by_chance = 1.0 / window + 1.0 / max(1, n - window)
    above = np.cbrt(float(document["radius"]) ** 2 / by_chance) - 1.0
    root = (_Z_99 - np.sqrt(max(0.0, _Z_99**2 - 4.0 * above))) / 2.0
    return float(np.clip(2.0 / (9.0 * max(root, _TINY) ** 2), *_FREEDOM))
