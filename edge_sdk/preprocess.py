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
    "schema": "adacompress.preprocess/1",
    "resize": "pillow bilinear, antialiased, reducing_gap 2, both sides to S, aspect not kept",
    "layout": "NHWC",
    "channels": "RGB",
    "dtype": "uint8",
}

#: Pillow first shrinks by whole boxes while the result stays this much larger than the target:
#: several times faster on large frames, and indistinguishable from the plain filter above 3.0.
_REDUCING_GAP = 2.0


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
            f"The engine's input is made from RGB, not {image.mode!r}; use codec.load."
        )
    resized = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
    return np.asarray(resized, dtype=np.uint8)[np.newaxis]
