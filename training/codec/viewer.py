"""Learns to make what was sent visible: integers to a small picture, by its error alone.

Nothing depends on it but people who want to see what leaves the device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from export.feature_network import Bottleneck, Viewer

__all__ = ["learn_viewer"]

#: Sides of the picture, about.
_SIDE = 112

_BATCH, _RATE = 14, 4e-3


def learn_viewer(
    bottleneck: Bottleneck,
    codes: Tensor,
    pixels: npt.NDArray[Any],
    *,
    seed: int,
    steps: int,
) -> Viewer:
    """Return a viewer.

    Args:
        bottleneck: learnt.
        codes: (N, C, H, W), of views.
        pixels: (N, h, w, 3) uint8, the views, larger than the viewer's pictures or smaller.
        seed: of everything random.
        steps: of learning.
    """
    torch.manual_seed(seed)
    shape, side = bottleneck.shape, codes.shape[2]
    viewer = Viewer(shape, doublings=max(1, round(math.log2(_SIDE / side))))
    with torch.no_grad():
        viewer.log_step.copy_(-bottleneck.log_gain)
    optimiser = torch.optim.Adam(viewer.parameters(), lr=_RATE)
    generator = torch.Generator().manual_seed(seed)
    rate = torch.arange(_BATCH) % shape.rates
    for done in range(steps):
        rows = torch.randint(len(codes), (_BATCH,), generator=generator)
        with torch.no_grad():
            integers = torch.round(bottleneck.gained(codes[rows], rate))
            integers = integers.clamp(-shape.limit, shape.limit)
        made = viewer.light(integers, rate)
        wanted = torch.from_numpy(pixels[rows.numpy()]).permute(0, 3, 1, 2).float() / 255.0
        wanted = F.interpolate(wanted, made.shape[2:], mode="area")
        loss = F.mse_loss(made, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = _RATE * 0.5 * (1.0 + math.cos(math.pi * done / steps))
        optimiser.step()
    return viewer.eval()
