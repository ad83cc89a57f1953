"""Scenery signatures: what the pictures that an agent was trained on look like.

A signature is the mean and the spread (a diagonal covariance) of the training pictures' features
and of their palettes. It tells sceneries apart without a single label; whether an agent is any good
is for labels to say. How strange a window of pictures is, is the average of their features' and
their palettes' scores, see ``edge_sdk.spread``.

    signature = Signature.from_features(features, rng, palettes=palettes, groups=photos)
    rank({"day-0123456789ab": signature}, recent)[0].within
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from edge_sdk.spread import Array, Spread, independent, rounded, variety, window_of
from model_store.errors import UsageError

__all__ = ["STRANGE", "Glimpse", "Match", "Signature", "rank"]

#: A window of this score or more is of another scenery. It is far beyond chance: pictures to come
#: are never quite those of the training, and passing over the right agent costs a retraining.
STRANGE = 10.0

#: Windows of less variety than this show one thing, not a scenery.
_VARIED = 0.6


class Glimpse(NamedTuple):
    """What was seen of one picture: its features (D,), and its palette or None."""

    features: NDArray[Any]
    palette: NDArray[Any] | None = None


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
        count = independent(features)
        # Shots of one thing are alike in what a scenery's pictures differ in.
        shared = max(0.0, 1.0 - variety(features) / _VARIED)
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
        document = {
            **self.features.to_dict(),
            "n": self.n,
            "window": window_of(self.n),
            "radius": rounded(self.features.radius(self.n)),
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
