"""Scenery signatures: what the pictures that an agent was trained on look like to the features.

A signature is the mean and spread of the training features, and how far a window of training
pictures strays from that mean by chance. It ranks cached agents without a single label; whether an
agent is any good is for labels to say. It is no drift alarm.

    signature = Signature.from_features(features, rng)
    rank({"day-0123456789ab": signature}, recent_features)[0].within
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from model_store.errors import UsageError

__all__ = ["SLACK", "WINDOW", "Match", "Signature", "rank"]

#: Pictures of a window. The mean of fewer strays too far by chance to tell sceneries apart.
WINDOW = 20

#: How far beyond its radius a scenery is still tried. Trying a wrong agent costs a few labels,
#: passing over the right one costs a whole retraining.
SLACK = 1.5

#: The radius is this percentile of the distances of random training windows.
_PERCENTILE = 99.0
_RANDOM_WINDOWS = 500

#: Spreads below this share of the average spread are raised to it: a feature that never moved in
#: training would otherwise outvote all others when it first moves.
_STD_FLOOR = 0.05
_TINY = 1e-6
_DIGITS = 5


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Signature:
    """Mean, spread and radius of one scenery's features.

    Attributes:
        mean: float64 (D,).
        std: float64 (D,), floored, > 0.
        radius: 99th percentile of the distances of random windows of the training features.
        window: pictures in such a window.
        n: training pictures behind it.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    radius: float
    window: int
    n: int

    def __post_init__(self) -> None:
        usable = (
            self.mean.ndim == 1
            and self.mean.size > 0
            and self.mean.shape == self.std.shape
            and bool(np.isfinite(self.mean).all() and np.isfinite(self.std).all())
            and bool((self.std > 0).all())
            and 0 <= self.radius < np.inf
            and min(self.window, self.n) >= 1
        )
        if not usable:
            raise UsageError(
                f"A scenery signature has mean {self.mean.shape}, std {self.std.shape}, radius "
                f"{self.radius}, window {self.window} and n {self.n}; allowed are equally long, "
                "finite vectors, std > 0, radius >= 0, window and n of 1 or more."
            )

    @classmethod
    def from_features(
        cls, features: NDArray[Any], rng: np.random.Generator, window: int = WINDOW
    ) -> Self:
        """Describe a scenery by the features of its pictures.

        Args:
            features: (N, D), N >= 2.
            rng: draws the windows behind the radius.
            window: pictures in a window; half of all if they are fewer than two windows.

        Raises:
            UsageError: fewer than two pictures, or a feature is not finite.
        """
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
            raise UsageError(
                f"A scenery signature needs finite features (N, D) of at least 2 pictures, not "
                f"{features.shape}."
            )
        spread = features.std(axis=0)
        floor = max(_STD_FLOOR * float(spread.mean()), _TINY)
        signature = cls(
            mean=features.mean(axis=0),
            std=np.maximum(spread, floor),
            radius=0.0,
            window=window,
            n=len(features),
        )
        # Each window is measured from the mean of the other pictures, as a new one would be.
        window = min(window, len(features) // 2)
        strayed = []
        for _ in range(_RANDOM_WINDOWS):
            order = rng.permutation(len(features))
            others = replace(signature, mean=features[order[window:]].mean(axis=0))
            strayed.append(others.distance(features[order[:window]]))
        return replace(signature, radius=float(np.percentile(strayed, _PERCENTILE)), window=window)

    def distance(self, features: NDArray[Any]) -> float:
        """Return the diagonal Mahalanobis distance of a window's mean, features (N, D).

        It is the root mean square over D, so that it does not grow with the number of features.
        """
        strayed = (np.asarray(features, dtype=np.float64).mean(axis=0) - self.mean) / self.std
        return float(np.sqrt(np.mean(np.square(strayed))))

    def near(self, features: NDArray[Any], slack: float = SLACK) -> bool:
        """Tell whether a window of pictures (N, D) belongs to this scenery.

        It does if its distance is at most the radius times ``slack``. The radius was measured
        between windows and the other pictures; both means stray by chance, as the root of one over
        their number, and here there are other numbers of pictures.
        """
        if features.shape[1] != self.mean.size:
            return False
        measured = 1.0 / self.window + 1.0 / max(1, self.n - self.window)
        by_chance = ((1.0 / len(features) + 1.0 / self.n) / measured) ** 0.5
        return bool(self.distance(features) <= self.radius * by_chance * slack)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, rounded to five significant digits."""
        return {
            "mean": [_rounded(value) for value in self.mean],
            "std": [_rounded(value) for value in self.std],
            "radius": _rounded(self.radius),
            "window": self.window,
            "n": self.n,
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote; unknown keys are ignored.

        Raises:
            UsageError: a key is missing or a value is not of its form.
        """
        try:
            return cls(
                mean=np.asarray(document["mean"], dtype=np.float64),
                std=np.asarray(document["std"], dtype=np.float64),
                radius=float(document["radius"]),
                window=int(document["window"]),
                n=int(document["n"]),
            )
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"A scenery signature cannot be read ({type(error).__name__}: {error}); it has "
                "mean, std, radius, window and n."
            ) from error


class Match(NamedTuple):
    """How well one cached agent's scenery fits: its id, the distance, and whether it is near."""

    id: str
    distance: float
    within: bool


def rank(
    signatures: Mapping[str, Signature], features: NDArray[Any], slack: float = SLACK
) -> list[Match]:
    """Rank sceneries by their distance to recent pictures, nearest first.

    Signatures of another feature width belong to another prefix and are left out.

    Args:
        signatures: agent id -> its scenery.
        features: (N, D) of the recent pictures.
        slack: see :meth:`Signature.near`.
    """
    matches = [
        Match(name, signature.distance(features), signature.near(features, slack))
        for name, signature in signatures.items()
        if signature.mean.size == features.shape[1]
    ]
    return sorted(matches, key=lambda match: (match.distance, match.id))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
