"""Intervals that respect how the pictures were taken: whole photos are resampled, never views.

Views of one photo look alike, so an interval over views would promise more than it knows. All
intervals are 95 % percentile intervals of a cluster bootstrap. Not here: certificates, which are
exact tests made before anything is deployed.

    >>> import numpy as np
    >>> from training.measure.intervals import bootstrap_mean
    >>> bootstrap_mean(np.array([1.0, 1.0, 0.0, 1.0]), ["a", "a", "b", "c"],
    ...                rng=np.random.default_rng(0)).mean
    0.75
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_store.errors import UsageError

__all__ = [
    "DRAWS",
    "LEVEL",
    "Interval",
    "Resampling",
    "bootstrap",
    "bootstrap_difference",
    "bootstrap_mean",
    "resample",
    "wilson",
]

Floats = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.95
#: Standard normal quantile of LEVEL, two-sided.
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; ``exactly`` makes one that holds by definition."""

    mean: float
    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.mean, self.lo, self.hi))):
            raise UsageError(
                f"A figure is {self.mean} with the interval {self.lo} to {self.hi}; allowed are "
                "finite numbers. Look for missing values in what was measured."
            )

    @classmethod
    def exactly(cls, value: float) -> Self:
        """Return the interval of a figure that is known, not estimated."""
        return cls(value, value, value)

    def as_dict(self) -> dict[str, float]:
        """Return the JSON form ``{mean, lo, hi}``."""
        return {"mean": self.mean, "lo": self.lo, "hi": self.hi}


@dataclass(frozen=True, slots=True)
class Resampling:
    """How often each photo occurs in each draw; shared by all figures that will be compared.

    Attributes:
        counts: (draws, photos) float64, rows sum to the number of photos.
        member: (n,) int64, the photo of each view.
    """

    counts: Floats
    member: NDArray[np.int64]

    @property
    def photos(self) -> int:
        """Number of photos, the independent units."""
        return self.counts.shape[1]

    def means(self, columns: Floats) -> Floats:
        """Return the mean of each column in each draw: (n, M) to (draws, M)."""
        sums = np.zeros((self.photos, columns.shape[1]))
        np.add.at(sums, self.member, columns)
        views = np.bincount(self.member, minlength=self.photos)
        return (self.counts @ sums) / (self.counts @ views)[:, None]

    def weights(self, draw: int) -> Floats:
        """Return the weight of each view in one draw, (n,)."""
        return self.counts[draw, self.member]

    def proportions(self, columns: Floats) -> list[Interval]:
        """Return the interval of each column's mean, for values in [0, 1].

        Where all pictures agree there is nothing to resample and the bootstrap would claim
        certainty; Wilson's interval over photos takes its place.
        """
        means = columns.mean(axis=0)
        return [
            wilson(float(mean), self.photos) if mean in (0.0, 1.0) else _percentiles(mean, drawn)
            for mean, drawn in zip(means, self.means(columns).T, strict=True)
        ]

    def figures(self, columns: Floats) -> list[Interval]:
        """Return the interval of each column's mean, for values of any size."""
        drawn = self.means(columns).T
        return [_percentiles(m, d) for m, d in zip(columns.mean(axis=0), drawn, strict=True)]


def resample(
    groups: Sequence[str] | NDArray[np.generic], rng: np.random.Generator, draws: int = DRAWS
) -> Resampling:
    """Draw as many photos as there are, with replacement, ``draws`` times.

    Args:
        groups: the photo of each view, (n,).
        rng: source of the draws.
        draws: number of draws.

    Raises:
        UsageError: there are no pictures.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if not len(names):
        raise UsageError("There are no pictures to measure on; an interval needs at least one.")
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return Resampling(counts.astype(np.float64), member.astype(np.int64))


def bootstrap(
    statistic: Callable[[Floats], Sequence[float]],
    groups: Sequence[str] | NDArray[np.generic],
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> list[Interval]:
    """Return the intervals of figures that are no plain means.

    Args:
        statistic: maps the weights of the views, (n,), to figures; NaN where a draw has none.
        groups: the photo of each view, (n,).
        rng: source of the draws.
        draws: number of draws.
    """
    resampling = resample(groups, rng, draws)
    points = statistic(np.ones(len(resampling.member)))
    drawn = np.array([statistic(resampling.weights(draw)) for draw in range(draws)])
    return [_percentiles(point, drawn[:, i]) for i, point in enumerate(points)]


def bootstrap_mean(
    values: ArrayLike,
    groups: Sequence[str] | NDArray[np.generic],
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """Return the mean of ``values`` (n,) with its interval over photos."""
    columns = np.asarray(values, dtype=np.float64)[:, None]
    return resample(groups, rng, draws).figures(columns)[0]


def bootstrap_difference(
    values: ArrayLike,
    others: ArrayLike,
    groups: Sequence[str] | NDArray[np.generic],
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """Return the mean of ``values - others``, paired: both are of the same pictures."""
    difference = np.asarray(values, dtype=np.float64) - np.asarray(others, dtype=np.float64)
    return bootstrap_mean(difference, groups, rng=rng, draws=draws)


def wilson(share: float, n: float) -> Interval:
    """Return Wilson's score interval of a share of ``n`` independent trials."""
    spread = _Z**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # Rounding must not push an end past the share itself, nor out of [0, 1].
    lo, hi = max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
    return Interval(share, lo, hi)


def _percentiles(mean: float, drawn: Floats) -> Interval:
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return Interval(float(mean), float(mean), float(mean))
    tail = (1 - LEVEL) / 2
    lo, hi = np.quantile(finite, [tail, 1 - tail])
    return Interval(float(mean), float(lo), float(hi))
