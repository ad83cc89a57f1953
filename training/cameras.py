"""Synthetic sceneries: what another camera would have made of a photo.

No registry carries a thermal or night data set, so the second scenery of the demo is this
deterministic camera model. It is a stand-in, labelled synthetic wherever its figures appear; real
frames are given with ``--night DIR``.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

__all__ = ["thermal_camera"]

#: Longest picture of the modelled sensor, in pixels.
SENSOR = (640, 512)

#: Weights of darkness, saturation and warmth in the pretended heat.
_HEAT = (0.55, 0.30, 0.35)
_OPTICS_BLUR = 1.6  # pixels, standard deviation
_CONTRAST = 0.75  # share of the 8-bit range after the percentile stretch
_NOISE = (3.0, 2.0, 1.0)  # grey levels: temporal, column pattern, row pattern


def thermal_camera(picture: Image.Image, seed: int) -> Image.Image:
    """Return ``picture`` as a thermal camera might see it: grey, blurred, flat and noisy.

    Args:
        picture: mode RGB.
        seed: of the sensor noise; the same seed gives the same picture.

    Returns:
        An RGB image with equal channels, at most 640 x 512 pixels.
    """
    small = picture.copy()
    small.thumbnail(SENSOR)
    heat = _blur(_heat(np.asarray(small, dtype=np.float32) / 255.0))
    low, high = np.percentile(heat, (1.0, 99.0))
    stretched = np.clip((heat - low) / max(high - low, 1e-3), 0.0, 1.0)
    grey = 255.0 * (_CONTRAST * stretched + (1.0 - _CONTRAST) / 2.0) + _noise(heat.shape, seed)
    return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")


def _heat(rgb: np.ndarray) -> np.ndarray:  # (H, W, 3) float32 in [0, 1] -> (H, W)
    luma = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    saturation = rgb.max(axis=2) - rgb.min(axis=2)
    warmth = (rgb[..., 0] - rgb[..., 2] + 1.0) / 2.0
    dark, vivid, warm = _HEAT
    return dark * (1.0 - luma) + vivid * saturation + warm * warmth


def _blur(plane: np.ndarray) -> np.ndarray:
    # Pillow blurs 8-bit planes only; heat lies in [0, 1.2], so half a grey level is lost at most.
    image = Image.fromarray(np.clip(plane * 212.0, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(_OPTICS_BLUR)), np.float32) / 212.0


def _noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    temporal, column, row = _NOISE
    return (
        rng.normal(0.0, temporal, shape)
        + rng.normal(0.0, column, (1, shape[1]))
        + rng.normal(0.0, row, (shape[0], 1))
    )
