"""The device's first blocks: the classifier's own, or a generic MobileNetV2 that feeds its tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.feature_onnx import prefix_onnx
from export.network import WHOLE, Prefix
from export.onnx_graph import places
from model_store.errors import UsageError
from training.codec.classifier import Cut
from training.learn.features import load_prefix

__all__ = ["OWN", "Front", "parse_prefix", "prefix_of"]

#: The classifier's own first blocks.
OWN = "own"

_GENERIC = "mobilenetv2"


@dataclass(frozen=True)
class Front:
    """The device's prefix.

    Attributes:
        name: "own", or "mobilenetv2:N".
        module: uint8 views (N, S, S, 3) to maps (N, D, h, w); frozen.
        model: the same as ``onnx.ModelProto``.
        shape: (D, h, w).
        macs: multiplications for one picture.
    """

    name: str
    module: nn.Module
    model: Any
    shape: tuple[int, int, int]
    macs: int


class _Maps(nn.Module):
    def __init__(self, prefix: Prefix) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, view: Tensor) -> Tensor:
        return self.prefix.feature_map(view)


def parse_prefix(text: str) -> tuple[str, int | None]:
    """Read "own", "mobilenetv2" or "mobilenetv2:N".

    Raises:
        UsageError: it is something else.
    """
    kind, _, blocks = text.partition(":")
    if kind == OWN and not blocks:
        return kind, None
    if kind == _GENERIC and (not blocks or blocks.isdecimal()):
        number = int(blocks) if blocks else None
        if number is None or 2 <= number < WHOLE:
            return kind, number
    raise UsageError(
        f"The prefix is {text!r}; allowed are 'own', 'mobilenetv2' and 'mobilenetv2:N' with N "
        f"blocks, 2 to {WHOLE - 1}."
    )


def prefix_of(text: str, cut: Cut) -> Front:
    """Return the prefix that a command names.

    Raises:
        UsageError: none of MobileNetV2's maps is as large as the cut's.
        EnvironmentMissing: its weights are not there.
    """
    kind, blocks = parse_prefix(text)
    if kind == OWN:
        return Front(OWN, cut.prefix(), cut.front, cut.place.shape, cut.place.macs)
    side = cut.whole.view.side
    wanted = cut.place.shape[1:]
    fitting = _fitting(side, wanted)
    if blocks is None:
        # Early maps of one size tell another network's better than late ones, and cost less.
        blocks = fitting[:2][-1] if fitting else 0
    if blocks not in fitting:
        raise UsageError(
            f"MobileNetV2's maps after {blocks} blocks are not {wanted[0]} x {wanted[1]} as the "
            f"cut's {cut.place.name!r}; those after {fitting or 'no number of'} blocks are."
        )
    module = _Maps(load_prefix(cut=blocks, side=side)).eval()
    model = prefix_onnx(module, side)
    with torch.inference_mode():
        made = module(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    depth, height, width = made.shape[1:]
    macs = places(model, torch.zeros(1, side, side, 3, dtype=torch.uint8))[1]
    return Front(f"{_GENERIC}:{blocks}", module, model, (depth, height, width), macs)


def _fitting(side: int, wanted: tuple[int, int]) -> list[int]:
    """Return after how many blocks MobileNetV2's maps have a size; every halving rounds up."""
    strides = {1: 2, 3: 2, 5: 2, 8: 2, 15: 2}
    size, found = side, []
    for blocks in range(1, WHOLE):
        size = -(-size // strides.get(blocks, 1))
        if (size, size) == wanted:
            found.append(blocks)
    return found
