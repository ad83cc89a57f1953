"""Grad-CAM of a Q-head: which parts of a picture speak for a compression level.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017: the maps of the last convolution, weighted by how much the score rises
with each, only what speaks for the score. The difference between two levels is explained likewise;
in it what all levels share, such as the value of the future, cancels out.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from edge_sdk.preprocess import to_input
from export.network import DQNHead, Prefix

__all__ = ["attention", "overlay"]

Floats = NDArray[np.float64]


def attention(
    prefix: Prefix, head: DQNHead, image: Image.Image, rung: int, against: int | None = None
) -> Floats:
    """Return how much each part of a picture speaks for a rung.

    Args:
        prefix: the frozen network.
        head: that its pooled activations go to.
        image: RGB.
        rung: whose Q-value is explained.
        against: another rung, to explain the difference of the two.

    Returns:
        (h, w) in [0, 1], 1 where it speaks most; all 0 where nothing speaks for the rung.
    """
    with torch.no_grad():
        maps = prefix.feature_map(torch.from_numpy(to_input(image, prefix.side).copy()))
    maps = maps.detach().requires_grad_()
    values = head(maps.mean(dim=(2, 3)))[0][0]
    score = values[rung] - (0.0 if against is None else values[against])
    (slope,) = torch.autograd.grad(score, maps)
    return _normalised(_weighed(maps.detach(), slope))


def overlay(image: Image.Image, heat: Floats, side: int = 360) -> NDArray[np.uint8]:
    """Return the picture, grey, with the heat in orange over it; bright is much, grey is nothing.

    Args:
        image: RGB.
        heat: (h, w) in [0, 1].
        side: pixels of the longer side.
    """
    small = image.convert("L")
    small.thumbnail((side, side))
    grey = np.asarray(small, dtype=np.float64)[..., None] * 0.55
    map_ = Image.fromarray((255 * heat).astype(np.uint8)).resize(
        small.size, Image.Resampling.BICUBIC
    )
    strength = np.asarray(map_, dtype=np.float64)[..., None] / 255.0
    # Strength is brightness too, so that the drawing can be read when printed grey.
    orange = np.array([255.0, 200.0, 60.0])
    return np.asarray(grey + 0.8 * strength * (orange - grey), dtype=np.uint8)


def _weighed(maps: Tensor, slope: Tensor) -> Tensor:
    """Sum the maps, each by the mean slope of the score in it, and drop what speaks against."""
    weights = slope.mean(dim=(2, 3), keepdim=True)
    return nn.functional.relu((weights * maps).sum(dim=1))[0]


def _normalised(heat: Tensor) -> Floats:
    highest = float(heat.max())
    if not highest > 0.0:  # nothing speaks for it; dividing would make noise of nothing
        return np.zeros(tuple(heat.shape))
    return np.asarray((heat / highest).numpy(), dtype=np.float64)
