"""What colours a picture has: a small histogram that the features, trained to see things, miss.

palette_of(image).shape  # (24,)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["BINS", "palette_of"]

_LUMA, _SATURATION = 16, 8

#: Length of a palette: shares of pixels by luma, then by saturation.
BINS = _LUMA + _SATURATION

#: Pixels are picked from a grid of this many rows and columns: a sample is enough for shares.
_GRID = 32


def palette_of(image: Image.Image) -> NDArray[np.float32]:
    """Return the shares of an RGB picture's pixels by luma and by saturation, float32 (24,)."""
    grid = image.resize((_GRID, _GRID), Image.Resampling.NEAREST)
    saturation = grid.convert("HSV").histogram()[256:512]
    shares = (_shares(grid.convert("L").histogram(), _LUMA), _shares(saturation, _SATURATION))
    return np.concatenate(shares)


def _shares(histogram: list[int], bins: int) -> NDArray[np.float32]:
    counts = np.array(histogram, dtype=np.float32).reshape(bins, -1).sum(axis=1)
    return np.asarray(counts / _GRID**2, dtype=np.float32)
