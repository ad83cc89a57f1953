"""The ranges of a feature codec's device side, and its blocks: each convolution is one."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.calibrate import measured_ranges, with_ranges
from export.pixels import fold_pixels
from export.quantize import Calibration
from export.tidy import fold_division
from model_store.errors import UsageError

__all__ = ["calibrate_encoder"]


def calibrate_encoder(encoder: bytes, pictures: NDArray[np.uint8]) -> Calibration:
    """Find the ranges of a feature codec's device side, whatever network its prefix comes from.

    A block is a convolution with what follows it.

    Args:
        encoder: ``encoder.onnx`` of ``adacompress.codec/1``, fp32.
        pictures: uint8 (N, S, S, 3), views of real photos.

    Raises:
        UsageError: there are no pictures, or no convolution.
    """
    model, zero_point = fold_division(onnx.load_model_from_string(encoder)), None
    with contextlib.suppress(UsageError):  # other networks begin otherwise
        model, zero_point = fold_pixels(model)
    return with_ranges(model, measured_ranges(model, pictures, "view"), zero_point, _convolutions)


def _convolutions(model: Any) -> dict[str, tuple[str, ...]]:
    """Return each convolution with the nodes up to the next one; what rounds is left alone."""
    blocks: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type == "Round":
            break
        if node.op_type == "Conv":
            blocks[node.name] = []
        if blocks:
            [*blocks.values()][-1].append(node.name)
    if not blocks:
        raise UsageError("The codec's encoder has no convolution that could be quantised.")
    return {name: tuple(nodes) for name, nodes in blocks.items()}
