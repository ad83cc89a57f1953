"""The ranges of an engine's activations, measured on pictures or known already, and its blocks."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.fuse import parse
from export.pixels import fold_pixels
from export.quantize import OPERATORS, Calibration, lasting_names
from export.tidy import fold_division, metadata_of
from model_store.errors import UsageError

__all__ = ["calibrate", "calibrated", "measured_ranges", "with_ranges"]

_BLOCK = re.compile(r"\bblocks\.(\d+)\.")
_CLASSIFIER = re.compile(r"\bclassifier\.")


def calibrate(engine: bytes, pictures: NDArray[np.uint8]) -> Calibration:
    """Find the ranges of an engine's activations.

    Args:
        engine: fp32, from ``export.fuse``.
        pictures: uint8 (N, S, S, 3), real ones, of what the device will see.

    Raises:
        UsageError: there are no pictures, or the engine is not of a form that can be quantised.
    """
    model, zero_point = fold_pixels(fold_division(parse(engine)))
    return with_ranges(model, measured_ranges(model, pictures, "image"), zero_point, _blocks)


def calibrated(engine: bytes, ranges: Mapping[str, Sequence[float]]) -> Calibration:
    """Return a calibration with ranges that are known already.

    Args:
        engine: fp32, from ``export.fuse``.
        ranges: least and greatest value by name, from ``Calibration.named_ranges``.

    Raises:
        UsageError: a tensor has no range, or the engine is not of a form that can be quantised.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    model, zero_point = fold_pixels(fold_division(parse(engine)))
    known = {
        tensor: (np.float32(ranges[name][0]), np.float32(ranges[name][1]))
        for tensor, name in lasting_names(model).items()
        if name in ranges
    }
    calibration = with_ranges(
        model, TensorsData(CalibrationMethod.MinMax, known), zero_point, _blocks
    )
    inside = {name for nodes in calibration.blocks.values() for name in nodes}
    for node in model.graph.node:
        if node.name in inside and not {node.input[0], *node.output} <= known.keys():
            raise UsageError(
                f"The ranges of {node.name} ({node.output[0]}) are not among the {len(ranges)} "
                "known ones; calibrate with pictures."
            )
    return calibration


def measured_ranges(model: Any, pictures: NDArray[np.uint8], name: str) -> Any:
    """Return the range of every activation, as ONNX Runtime's calibrator has them.

    Args:
        model: ``onnx.ModelProto``.
        pictures: uint8 (N, S, S, 3).
        name: of the model's input.

    Raises:
        UsageError: there are no pictures.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    if len(pictures) == 0:
        raise UsageError("There are no pictures to calibrate with; name some: --calibration DIR.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.onnx"
        path.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            path,
            OPERATORS,
            augmented_model_path=str(path.with_name("augmented.onnx")),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Pictures(name, pictures))
        ranges = calibrator.compute_data()
        del calibrator  # its session holds the file open
    return ranges


def with_ranges(
    model: Any,
    ranges: Any,
    zero_point: int | None,
    blocks: Callable[[Any], dict[str, tuple[str, ...]]],
) -> Calibration:
    """Return the calibration of a model whose ranges were found.

    Args:
        model: ``onnx.ModelProto``.
        ranges: of every activation.
        zero_point: the pixel that stands for zero, or None.
        blocks: finds the blocks' nodes.
    """
    # The quantiser asks for shapes, and for a sign that somebody inferred them.
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.helper.set_model_props(model, {**metadata_of(model), "onnx.infer": "adacompress"})
    return Calibration(model, ranges, blocks(model), zero_point)


class _Pictures:
    """What ONNX Runtime calls a calibration data reader."""

    def __init__(self, name: str, pictures: NDArray[np.uint8]) -> None:
        self._name, self._left = name, iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        picture = next(self._left, None)
        return None if picture is None else {self._name: picture[None]}


def _blocks(model: Any) -> dict[str, tuple[str, ...]]:
    """Return the nodes of each block; a node without weights belongs to the block before it."""
    blocks: dict[str, list[str]] = {}
    current = None
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            break
        for name in node.input:
            if match := _BLOCK.search(name):
                current = f"blocks.{match[1]}"
        if current is not None:
            blocks.setdefault(current, []).append(node.name)
    if not blocks:
        raise UsageError("The engine has no blocks that could be quantised.")
    for node in model.graph.node:
        if node.op_type == "Gemm" and any(map(_CLASSIFIER.search, node.input)):
            blocks["classifier"] = [node.name]
    return {name: tuple(nodes) for name, nodes in blocks.items()}
