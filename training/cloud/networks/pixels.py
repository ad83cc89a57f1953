"""The beginning of every served network: from pixels as decoded to what its weights expect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Pixels"]


class Pixels(nn.Module):
    """Puts a network behind ``(pixels - mean) / deviation``.

    Args:
        network: takes float32 (N, 3, S, S).
        mean: one number, or one per channel in the order that the network wants.
        deviation: likewise.
        bgr: the network wants blue first.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        deviation: Sequence[float],
        *,
        bgr: bool = False,
    ) -> None:
        super().__init__()
        self.network, self.bgr = network, bgr
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the network's outputs for pictures (N, S, S, 3) uint8, RGB."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        if self.bgr:
            pixels = pixels[:, [2, 1, 0]]
        return self.network((pixels - self.mean) / self.deviation)
