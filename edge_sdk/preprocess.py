"""The one resize of the product: what the engine sees of a picture.

Training imports this very function, so there is no second implementation to drift from. Everything
after it (cast, mean, standard deviation, layout) lives inside the engine's graph. The spec below is
hashed into every engine and manifest and checked when an engine is loaded.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_store.errors import UsageError

__all__ = ["SPEC", "spec_sha256", "to_input"]

#: What :func:`to_input` does, in words that are hashed. Change it together with the code.
SPEC: dict[str, Any] = {
    "schema": "adacompress.preprocess/2",
    "resize": "pillow nearest to 2S by 2S, aspect not kept; then the mean of two by two",
    "layout": "NHWC",
    "channels": "RGB",
    "dtype": "uint8",
}


def spec_sha256() -> str:
    """Return the hex SHA-256 of ``SPEC``'s canonical JSON."""
    canonical = json.dumps(SPEC, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def to_input(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """Resize an RGB image to the engine's input.

    Args:
        image: mode RGB, any size.
        side: S, the engine's input side in pixels.

    Returns:
        uint8 array of shape (1, S, S, 3), NHWC, RGB.
    """
    if image.mode != "RGB":
        raise UsageError(
            f"The engine's input is made from RGB, not {image.mode!r}; use reading.load."
        )
    # Four samples a pixel, wherever they fall: a filter over every source pixel costs five times as
    # much on a large frame, and agents learnt no better from it.
    sampled = image.resize((2 * side, 2 * side), Image.Resampling.NEAREST)
    return np.asarray(sampled.reduce(2), dtype=np.uint8)[np.newaxis]
