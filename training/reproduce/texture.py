"""How smooth a picture is, in numbers, and whether that goes with the quality chosen for it.

The paper says that pictures with large smooth areas are more sensitive to compression, and tells it
from a few pictures. Here it is a rank correlation over all of them, with an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.measure.intervals import Interval, resample

__all__ = ["SMOOTH", "Texture", "rank_correlation", "texture_of"]

Floats = NDArray[np.float64]

#: A block whose luma varies by less than this, in units of 255, is smooth.
SMOOTH = 4.0

_SIDE = 256
_BLOCK = 8


@dataclass(frozen=True)
class Texture:
    """Of one picture.

    Attributes:
        smooth: share of its blocks that are smooth.
        energy: mean over its blocks of luma's standard deviation.
        map: that deviation, block by block.
    """

    smooth: float
    energy: float
    map: Floats


def texture_of(image: Image.Image) -> Texture:
    """Measure blocks of 8 x 8 of the picture, scaled to 256 x 256 so that pictures compare."""
    luma = np.asarray(
        image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0),
        dtype=np.float64,
    )
    count = _SIDE // _BLOCK
    deviation = luma.reshape(count, _BLOCK, count, _BLOCK).std(axis=(1, 3))
    return Texture(float((deviation < SMOOTH).mean()), float(deviation.mean()), deviation)


def rank_correlation(
    values: Floats,
    others: Floats,
    groups: Sequence[str] | NDArray[np.generic],
    rng: np.random.Generator,
) -> Interval | None:
    """Return Spearman's correlation with its interval over photos; None where one is constant."""
    if np.ptp(values) == 0 or np.ptp(others) == 0:
        return None
    draws = resample(groups, rng, 1000)
    found = []
    for counts in draws.counts:
        rows = np.repeat(np.arange(len(values)), counts[draws.member].astype(int))
        found.append(_spearman(values[rows], others[rows]))
    drawn = np.array(found)
    lo, hi = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return Interval(_spearman(values, others), float(lo), float(hi))


def _spearman(values: Floats, others: Floats) -> float:
    if np.ptp(values) == 0 or np.ptp(others) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(values), _ranks(others))[0, 1])


def _ranks(values: Floats) -> Floats:
    """Return ranks, equal values sharing their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2.0)[place], dtype=np.float64)
