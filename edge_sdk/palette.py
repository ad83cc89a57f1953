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
_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def palette_of(image: Image.Image) -> NDArray[np.float32]:
    """Return the shares of an RGB picture's pixels by luma and by saturation, float32 (24,)."""
    grid = image.resize((_GRID, _GRID), Image.Resampling.NEAREST)
    pixels = np.asarray(grid, dtype=np.float32).reshape(-1, 3)
    brightest = pixels.max(axis=1)
    saturation = (brightest - pixels.min(axis=1)) / np.maximum(brightest, 1.0)
    shares = (
        _shares((pixels @ _WEIGHTS) / 256.0, _LUMA),
        _shares(saturation * (1.0 - 1e-6), _SATURATION),
    )
    return np.concatenate(shares)


def _shares(values: NDArray[np.float32], bins: int) -> NDArray[np.float32]:
    places = np.minimum((values * bins).astype(np.int64), bins - 1)
    return np.asarray(np.bincount(places, minlength=bins) / len(values), dtype=np.float32)
