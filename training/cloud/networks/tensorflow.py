"""MobileNetV2 as TensorFlow computes it: its padding, its weight layout, its batch norm.

torchvision's network has the same layers but pads a stride-2 convolution by one pixel on every
side; TensorFlow's "SAME" puts the odd pixel right and below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2, mobilenet_v2

__all__ = ["EPSILON", "SamePad", "fill_convolution", "fill_norm", "load_mobilenet", "mobilenet"]

#: Of batch norm, in Keras's and in the detection library's MobileNetV2.
EPSILON = 1e-3

Array = npt.NDArray[np.float32]

#: Unit name such as ``expanded_conv_3/expand`` -> its kernel, gamma, beta, mean and variance.
Weights = Callable[[str], Sequence[Array]]


class SamePad(nn.Module):
    """TensorFlow's "SAME" padding of a square picture for a convolution of 3 with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, S, S) with one more row and column, or two where S is odd."""
        odd = int(x.shape[-1]) % 2
        return nn.functional.pad(x, (odd, 1, odd, 1))


def mobilenet() -> MobileNetV2:
    """Return torchvision's MobileNetV2 without weights, padding as TensorFlow does."""
    network = mobilenet_v2(weights=None)
    for module in list(network.modules()):
        halves = isinstance(module, nn.Sequential) and getattr(module[0], "stride", 1) == (2, 2)
        if halves:
            module[0].padding = (0, 0)
            module[0] = nn.Sequential(SamePad(), module[0])
        if isinstance(module, nn.BatchNorm2d):
            module.eps = EPSILON
    return network


def load_mobilenet(network: MobileNetV2, weights: Weights) -> None:
    """Fill the convolutions and batch norms of a ``mobilenet()``, not its classifier."""
    for name, convolution, norm in _units(network):
        kernel, *rest = weights(name)
        last = convolution[-1] if isinstance(convolution, nn.Sequential) else convolution
        fill_convolution(last, kernel)
        fill_norm(norm, *rest)


def fill_convolution(convolution: nn.Conv2d, kernel: Array, bias: Array | None = None) -> None:
    """Copy a TensorFlow kernel: (H, W, in, out), or (H, W, in, 1) of a depthwise convolution."""
    axes = (3, 2, 0, 1) if convolution.groups == 1 else (2, 3, 0, 1)
    _copy(convolution.weight, kernel.transpose(axes))
    if bias is not None:
        _copy(convolution.bias, bias)


def fill_norm(
    norm: nn.BatchNorm2d, gamma: Array, beta: Array, mean: Array, variance: Array
) -> None:
    """Copy the four vectors of a batch norm."""
    _copy(norm.weight, gamma)
    _copy(norm.bias, beta)
    _copy(norm.running_mean, mean)
    _copy(norm.running_var, variance)


def _copy(target: Tensor, source: Array) -> None:
    if tuple(target.shape) != source.shape:  # copy_ would broadcast
        raise ValueError(f"weights of shape {source.shape} where {tuple(target.shape)} is due")
    with torch.no_grad():
        target.copy_(torch.from_numpy(np.array(source)))


def _units(network: MobileNetV2) -> Iterator[tuple[str, Any, nn.BatchNorm2d]]:
    """Yield each convolution with its batch norm, by the names of the original definition."""
    first, *blocks, last = network.features
    yield "Conv", first[0], first[1]
    for index, block in enumerate(blocks):
        name = f"expanded_conv_{index}" if index else "expanded_conv"
        *units, project, norm = block.conv
        for part, unit in zip(("expand", "depthwise")[-len(units) :], units, strict=True):
            yield f"{name}/{part}", unit[0], unit[1]
        yield f"{name}/project", project, norm
    yield "Conv_1", last[0], last[1]
