"""How likely integers are: a causal context network and one without context, while they learn.

For every integer, mean and scale of a logistic density follow from the twelve positions before it
in a 5x5 window. Here everything is float and differentiable; ``tables`` turns it into the integers
that both sides of the wire compute with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_sdk.featurecodec.entropy import TAPS
from export.feature_network import Shape

__all__ = ["SCALES", "Context", "Refined", "bits", "index_of", "scale_of"]

#: Scales of the tables: how many, the smallest, and how much larger each next is.
SCALES = 40
_SMALLEST, _RATIO = 0.05, 1.15

#: Indices of scale that the network's output of one stands for; it keeps its weights small.
_SCALE_GAIN = 10.0


def scale_of(index: Tensor) -> Tensor:
    """Return the scale of a (fractional) index, in integers' steps."""
    return _SMALLEST * torch.exp(index * math.log(_RATIO))


def index_of(scale: Tensor) -> Tensor:
    """Return the (fractional) index of a scale."""
    return torch.log(scale / _SMALLEST) / math.log(_RATIO)


class Context(nn.Module):
    """Integers (N, C, H, W) and rates (N,) to mean and scale index of each, (N, C, H, W) both.

    Args:
        shape: of the codec.
        hidden: of the network; 0 for no context at all: one mean and scale per rate and channel.
    """

    def __init__(self, shape: Shape, hidden: int = 48) -> None:
        super().__init__()
        self.shape, self.hidden = shape, hidden
        rates, codes = shape.rates, shape.codes
        mask = torch.zeros(1, 1, 5, 5)
        mask[..., :2, :] = 1.0
        mask[..., 2, :2] = 1.0
        self.register_buffer("mask", mask, persistent=False)
        self.log_in = nn.Parameter(torch.zeros(rates, codes))
        self.w1 = nn.Parameter(torch.randn(max(hidden, 1), codes, 5, 5) * (12 * codes) ** -0.5)
        self.b1 = nn.Parameter(torch.zeros(rates, max(hidden, 1)))
        self.w2 = nn.Parameter(torch.randn(2 * codes, max(hidden, 1)) * 0.01)
        self.mean = nn.Parameter(torch.zeros(rates, codes))
        self.scale = nn.Parameter(torch.full((rates, codes), 20.0))
        self.log_mean_gain = nn.Parameter(torch.zeros(rates, codes))

    def forward(self, integers: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and scale indices."""
        mean, scale = self.mean[rate][:, :, None, None], self.scale[rate][:, :, None, None]
        if not self.hidden:
            return mean.expand_as(integers), scale.expand_as(integers)
        x = integers * torch.exp(self.log_in)[rate][:, :, None, None]
        inner = F.conv2d(x, self.w1 * self.mask, padding=2) + self.b1[rate][:, :, None, None]
        out = torch.einsum("oh,nhyx->noyx", self.w2, F.relu(inner))
        codes = self.shape.codes
        gain = torch.exp(self.log_mean_gain)[rate][:, :, None, None]
        return mean + gain * out[:, :codes], scale + _SCALE_GAIN * out[:, codes:]

    def folded(self) -> dict[str, Tensor]:
        """Return the weights of every rate, of integers as they are.

        ``w1`` (R, hidden, C, 12), ``b1`` (R, hidden), ``w2`` (R, 2C, hidden), ``b2`` (R, 2C).
        """
        taps = torch.stack([self.w1[..., 2 + down, 2 + across] for down, across in TAPS], dim=-1)
        gains = torch.exp(self.log_mean_gain)
        out = torch.cat((gains, torch.full_like(gains, _SCALE_GAIN)), dim=1)
        every = {
            "w1": taps[None] * torch.exp(self.log_in)[:, None, :, None],
            "b1": self.b1,
            "w2": self.w2[None] * out[:, :, None],
            "b2": torch.cat((self.mean, self.scale), dim=1),
        }
        return {name: value.detach().clone() for name, value in every.items()}


class Refined(nn.Module):
    """A context network with weights of its own for every rate, learnt on the integers as sent.

    While everything learns together, rates share a network, and noise stands for rounding; both
    cost bytes. This one starts as that one and only learns to foresee.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.codes = context.shape.codes
        for name, value in context.folded().items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, integers: Tensor, rate: int) -> tuple[Tensor, Tensor]:
        """Return means and scale indices of integers (N, C, H, W), all of one rate."""
        hidden = self.w1.shape[1]
        kernel = integers.new_zeros(hidden, self.codes, 5, 5)
        for number, (down, across) in enumerate(TAPS):
            kernel[..., 2 + down, 2 + across] = self.w1[rate, ..., number]
        inner = F.relu(F.conv2d(integers, kernel, self.b1[rate], padding=2))
        out = F.conv2d(inner, self.w2[rate, ..., None, None], self.b2[rate])
        return out[:, : self.codes], out[:, self.codes :]


def bits(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return the bits of values (whole, or with noise on them), elementwise."""
    width = scale_of(scale.clamp(0.0, SCALES - 1.0))
    # The tail that is nearer to the mean subtracts without cancellation.
    away = (values - mean).abs()
    p = torch.sigmoid((0.5 - away) / width) - torch.sigmoid((-0.5 - away) / width)
    return -torch.log2(p.clamp(min=2.0**-15))
