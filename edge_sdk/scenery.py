"""Scenery signatures: what the pictures that an agent was trained on look like.

A signature is the mean and the spread (a diagonal covariance) of the training pictures' features
and of their palettes. It tells sceneries apart without a single label; whether an agent is any good
is for labels to say.

How strange a window of pictures is, is a two-sample test. The squared distance of its mean from the
training mean, in spreads, is about ``scale · (1/window + 1/training) · χ²_f / f`` at home, with
``scale`` and ``f`` measured on random windows of the training pictures; Wilson and Hilferty's cube
root makes a standard normal score of it, and the scores of features and palettes are averaged.

    signature = Signature.from_features(features, rng, palettes=palettes, groups=photos)
    rank({"day-0123456789ab": signature}, recent)[0].within
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from model_store.errors import UsageError

__all__ = ["STRANGE", "WINDOW", "Glimpse", "Match", "Signature", "Spread", "rank"]

Array = NDArray[np.float64]

#: Pictures of the windows that a signature is calibrated on.
WINDOW = 16

#: A window of this score or more is of another scenery. It is far beyond chance: pictures to come
#: are never quite those of the training, and passing over the right agent costs a retraining.
STRANGE = 10.0

_RANDOM_WINDOWS = 300
#: Spreads below this share of the average spread are raised to it: a feature that never moved in
#: training would otherwise outvote all others when it first moves.
_STD_FLOOR = 0.05
#: Windows of less variety than this show one thing, not a scenery.
_VARIED = 0.6
_TINY = 1e-6
_DIGITS = 5
#: Degrees of freedom are kept within sense, whatever a tiny training set says.
_FREEDOM = (1.0, 400.0)
_Z_99 = 2.3263  # 99th percentile of the standard normal


class Glimpse(NamedTuple):
    """What was seen of one picture: its features (D,), and its palette or None."""

    features: NDArray[Any]
    palette: NDArray[Any] | None = None


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
        by_chance = self.scale * (max(1.0, _variety(moved)) / count + shared + 1.0 / training)
        ninth = 2.0 / (9.0 * self.freedom)
        return float((np.cbrt(squared / by_chance) - (1.0 - ninth)) / np.sqrt(ninth))

    def likelihood(self, vector: Array) -> float:
        """Return one vector's log density up to a constant, a mean over its D entries."""
        moved = self.standardised(vector)
        return float(np.mean(-0.5 * np.square(moved) - np.log(self.std)))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, rounded to five significant digits."""
        return {
            "mean": [_rounded(value) for value in self.mean],
            "std": [_rounded(value) for value in self.std],
            "scale": _rounded(self.scale),
            "freedom": _rounded(self.freedom),
        }

    @property
    def percentile_99(self) -> float:
        """What 99 of 100 random windows' squared distances stay below, over chance's."""
        ninth = 2.0 / (9.0 * self.freedom)
        return float(self.scale * (1.0 - ninth + _Z_99 * np.sqrt(ninth)) ** 3)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote."""
        return cls(
            mean=np.asarray(document["mean"], dtype=np.float64),
            std=np.asarray(document["std"], dtype=np.float64),
            scale=float(document.get("scale", 1.0)),
            freedom=float(document["freedom"] if "freedom" in document else _freedom(document)),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Signature:
    """One scenery's features and palettes.

    Attributes:
        features: their mean and spread.
        palette: likewise, or None if nobody looked at colours.
        n: independent training pictures behind it: photos, not views of them.
    """

    features: Spread
    palette: Spread | None = None
    n: int = 1

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"A scenery signature has n {self.n}; allowed is 1 or more.")

    @classmethod
    def from_features(
        cls,
        features: NDArray[Any],
        rng: np.random.Generator,
        *,
        palettes: NDArray[Any] | None = None,
        groups: Sequence[Any] | None = None,
    ) -> Self:
        """Describe a scenery by its pictures.

        Args:
            features: (N, D), N >= 2.
            rng: draws the windows behind scale and freedom.
            palettes: (N, B) of the same pictures, or None.
            groups: of each picture, the photo that it is a view of; default every one its own.

        Raises:
            UsageError: fewer than two pictures, or a value is not finite.
        """
        vectors = _checked(features)
        named = np.arange(len(vectors)) if groups is None else _numbered(groups, len(vectors))
        colours = None if palettes is None else _checked(palettes)
        if colours is not None and len(colours) != len(vectors):
            raise UsageError(
                f"A scenery signature got {len(vectors)} pictures' features and "
                f"{len(colours)} palettes; give one of each per picture."
            )
        return cls(
            features=Spread.of(vectors, named, rng),
            palette=None if colours is None else Spread.of(colours, named, rng),
            n=len(np.unique(named)),
        )

    def knows(self, glimpse: Glimpse) -> bool:
        """Tell whether a picture's features are comparable; another prefix's are not."""
        return bool(glimpse.features.shape == self.features.mean.shape)

    def moved(self, glimpse: Glimpse) -> Glimpse:
        """Return a picture in spreads from the mean, float32."""
        features = self.features.standardised(np.asarray(glimpse.features, dtype=np.float64))
        colours = None
        if self.palette is not None and glimpse.palette is not None:
            colours = self.palette.standardised(glimpse.palette).astype(np.float32)
        return Glimpse(features.astype(np.float32), colours)

    def strangeness(self, window: Sequence[Glimpse]) -> float:
        """Return the score of a window of pictures; at home it is about standard normal."""
        return self.score([self.moved(one) for one in window])

    def score(self, window: Sequence[Glimpse]) -> float:
        """Return the score of pictures that :meth:`moved` returned.

        Frames of a video resemble each other: the window counts for as many pictures as its
        features' correlation from one to the next leaves it, and if they vary much less than a
        scenery's pictures do, for hardly more than one.
        """
        features = np.stack([one.features for one in window])
        count = _independent(features)
        # Shots of one thing are alike in what a scenery's pictures differ in.
        shared = max(0.0, 1.0 - _variety(features) / _VARIED)
        scores = [self.features.score(features, count, self.n, shared)]
        colours = [one.palette for one in window if one.palette is not None]
        if self.palette is not None and len(colours) == len(window):
            scores.append(self.palette.score(np.stack(colours), count, self.n, shared))
        # Of independent scores this would be standard normal again.
        return float(sum(scores) / np.sqrt(len(scores)))

    def likelihood(self, glimpse: Glimpse) -> float:
        """Return how well one picture fits, comparable between signatures of one prefix."""
        found = self.features.likelihood(np.asarray(glimpse.features, dtype=np.float64))
        if self.palette is None or glimpse.palette is None:
            return found
        return found + self.palette.likelihood(np.asarray(glimpse.palette, dtype=np.float64))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; ``radius`` is the 99th percentile of ``window`` pictures."""
        radius = np.sqrt(self.features.percentile_99 * _expected(self.n))
        document = {
            **self.features.to_dict(),
            "n": self.n,
            "window": _window(self.n),
            "radius": _rounded(radius),
        }
        return document if self.palette is None else document | {"palette": self.palette.to_dict()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote; unknown keys are ignored.

        Raises:
            UsageError: a key is missing or a value is not of its form.
        """
        try:
            palette = document.get("palette")
            return cls(
                features=Spread.from_dict(document),
                palette=Spread.from_dict(palette) if palette else None,
                n=int(document["n"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"A scenery signature cannot be read ({type(error).__name__}: {error}); it has "
                "mean, std, scale, freedom and n, and perhaps a palette."
            ) from error


class Match(NamedTuple):
    """How well one cached agent's scenery fits: its id, the score, and whether it is known."""

    id: str
    strangeness: float
    within: bool


def rank(signatures: Mapping[str, Signature], window: Sequence[Glimpse]) -> list[Match]:
    """Rank sceneries by how strange recent pictures are to them, the most familiar first.

    Signatures of another feature width belong to another prefix and are left out.

    Args:
        signatures: agent id -> its scenery.
        window: the recent pictures, one at least.
    """
    scores = {
        name: signature.strangeness(window)
        for name, signature in signatures.items()
        if signature.knows(window[-1])
    }
    matches = [Match(name, score, score < STRANGE) for name, score in scores.items()]
    return sorted(matches, key=lambda match: (match.strangeness, match.id))


def _strayed(vectors: Array, groups: NDArray[Any], rng: np.random.Generator) -> Array:
    """Return squared distances of random windows from the other groups' mean, over chance's."""
    names, place = np.unique(groups, return_inverse=True)
    window = _window(len(names))
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


def _independent(moved: NDArray[Any]) -> float:
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


def _window(n: int) -> int:
    """Return how many of ``n`` pictures are in the windows that a signature is calibrated on."""
    return max(1, min(WINDOW, n // 2))


def _expected(n: int) -> float:
    """Return the squared distance of such a window's mean from the others', if independent."""
    return 1.0 / _window(n) + 1.0 / max(1, n - _window(n))


def _freedom(document: Mapping[str, Any]) -> float:
    """Return the degrees of freedom behind a radius: earlier signatures had nothing else."""
    window, n = int(document["window"]), int(document["n"])
    by_chance = 1.0 / window + 1.0 / max(1, n - window)
    above = np.cbrt(float(document["radius"]) ** 2 / by_chance) - 1.0
    root = (_Z_99 - np.sqrt(max(0.0, _Z_99**2 - 4.0 * above))) / 2.0
    return float(np.clip(2.0 / (9.0 * max(root, _TINY) ** 2), *_FREEDOM))


def _variety(moved: NDArray[Any]) -> float:
    """Return the variance within a standardised window, 1 for pictures as in training."""
    inner = float(np.mean(np.square(moved - moved.mean(axis=0))))
    return inner * len(moved) / max(1, len(moved) - 1)


def _checked(vectors: NDArray[Any]) -> Array:
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) < 2 or not np.isfinite(vectors).all():
        raise UsageError(
            f"A scenery signature needs finite features (N, D) of at least 2 pictures, not "
            f"{vectors.shape}."
        )
    return vectors


def _numbered(groups: Sequence[Any], count: int) -> NDArray[Any]:
    if len(groups) != count:
        raise UsageError(
            f"A scenery signature got {count} pictures and {len(groups)} groups; give one each."
        )
    return np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
