"""INT8 by static QDQ: pixels as the quantised input, one scale a channel, blocks one can leave out.

ONNX Runtime's quantiser inserts the Q/DQ pairs; what is special here:

* the uint8 pixels *are* the first convolution's quantised input. Mean and standard deviation go
  into its weights and bias, so nothing is cast, subtracted or quantised at full resolution; with
  that in the graph, INT8 is slower than fp32 on small inputs;
* the pool and everything behind it stay fp32: it costs nothing, and the classifier's confidence
  and the heads bear no rounding;
* any block of the network can be kept in fp32, see ``export.int8``.

``symmetric`` makes the form that TensorRT takes: int8 with zero point 0, fp32 bias, float pixels.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.fuse import finished, parse
from export.tidy import fold_division, in_order, initializers, metadata_of, replace_tensor
from model_store.errors import UsageError

__all__ = ["Calibration", "calibrate", "calibrate_encoder"]

#: Operators that run on whole numbers; all else is so short that converting costs more.
_OPERATORS = ["Conv", "Add", "Clip", "Relu"]

_BLOCK = re.compile(r"\bblocks\.(\d+)\.")
_PIXELS = "prefix/pixels"


@dataclass(frozen=True)
class Calibration:
    """An engine and the ranges of its activations: what every quantised form of it is made from.

    Attributes:
        model: ``onnx.ModelProto``, its input folded (see ``_fold_pixels``).
        ranges: of every activation, from ONNX Runtime's calibrator.
        blocks: block name to its nodes' names, from the input to the pool.
        zero_point: the pixel that stands for zero; None where pixels are quantised like all else.
    """

    model: Any
    ranges: Any
    blocks: dict[str, tuple[str, ...]]
    zero_point: int | None

    def quantized(self, blocks: Collection[str], *, symmetric: bool = False) -> bytes:
        """Return the graph with these blocks in INT8, the others in fp32."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        inside = {name for block in blocks for name in self.blocks[block]}
        options: dict[str, Any] = {
            "ActivationSymmetric": symmetric,
            "QuantizeBias": not symmetric,
            "AddQDQPairToWeight": symmetric,
        }
        if not symmetric and self.zero_point is not None:
            options["TensorQuantOverrides"] = {_PIXELS: [self._pixels(QuantType.QUInt8)]}
        quantizer = QDQQuantizer(
            onnx.ModelProto.FromString(self.model.SerializeToString()),
            True,  # per channel
            False,  # all eight bits
            QuantType.QInt8,
            QuantType.QInt8 if symmetric else QuantType.QUInt8,
            self.ranges,
            [],
            [node.name for node in self.model.graph.node if node.name not in inside],
            _OPERATORS,
            options,
        )
        quantizer.quantize_model()
        model = quantizer.model.model
        _feed_pixels(model)
        del model.graph.value_info[:]
        kept = "int8" if len(inside) == sum(map(len, self.blocks.values())) else "int8+fp32"
        properties = {
            name: text for name, text in metadata_of(model).items() if name != "onnx.infer"
        }
        return finished(in_order(model), {**properties, "precision": kept})

    def _pixels(self, kind: Any) -> dict[str, Any]:
        return {
            "quant_type": kind,
            "scale": np.array(1.0, np.float32),
            "zero_point": np.array(self.zero_point, np.uint8),
        }


def calibrate(engine: bytes, pictures: NDArray[np.uint8]) -> Calibration:
    """Find the ranges of an engine's activations.

    Args:
        engine: fp32, from ``export.fuse``.
        pictures: uint8 (N, S, S, 3), real ones, of what the device will see.

    Raises:
        UsageError: there are no pictures, or the engine is not of a form that can be quantised.
    """
    model, zero_point = _fold_pixels(fold_division(parse(engine)))
    return _calibrated(model, pictures, "image", zero_point, _blocks)


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
        model, zero_point = _fold_pixels(model)
    return _calibrated(model, pictures, "view", zero_point, _convolutions)


def _calibrated(
    model: Any,
    pictures: NDArray[np.uint8],
    name: str,
    zero_point: int | None,
    blocks: Callable[[Any], dict[str, tuple[str, ...]]],
) -> Calibration:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    if len(pictures) == 0:
        raise UsageError("There are no pictures to calibrate with; name some: --calibration DIR.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.onnx"
        path.write_bytes(model.SerializeToString())
        calibrator = create_calibrator(
            path,
            _OPERATORS,
            augmented_model_path=str(path.with_name("augmented.onnx")),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Pictures(name, pictures))
        ranges = calibrator.compute_data()
        del calibrator  # its session holds the file open
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


def _fold_pixels(given: Any) -> tuple[Any, int]:
    """Return the engine with ``Conv(pixels - z)`` at its start, z one whole number, and z.

    ``Conv(x - mean)`` with a mean per channel becomes that by a bias; only the padded border, where
    z stands for each channel's mean, differs by the few grey levels between them.
    """
    model = given
    constants, graph = initializers(model), model.graph
    del graph.value_info[:]
    for number, node in enumerate(graph.node):
        node.name = f"{number}-{node.op_type}"
    subtract = next((node for node in graph.node if node.op_type == "Sub"), None)
    readers = [node for node in graph.node if subtract and subtract.output[0] in node.input]
    if (
        subtract is None
        or [node.op_type for node in readers] != ["Conv"]
        or not _of_pixels(graph, subtract.input[0])
    ):
        raise UsageError(
            "The engine does not begin with pixels, a subtraction and a convolution; train it "
            "again with this version."
        )
    (conv,) = readers
    mean = np.broadcast_to(constants[subtract.input[1]].reshape(-1), 3).astype(np.float64)
    zero_point = round(float(mean.mean()))
    weight = constants[conv.input[1]].astype(np.float64)
    bias = np.einsum("ockl,c->o", weight, zero_point - mean)
    if len(conv.input) > 2:
        replace_tensor(model, conv.input[2], (constants[conv.input[2]] + bias).astype(np.float32))
    else:
        conv.input.append(f"{_PIXELS}/bias")
        graph.initializer.append(
            onnx.numpy_helper.from_array(bias.astype(np.float32), conv.input[2])
        )
    graph.initializer.append(
        onnx.numpy_helper.from_array(np.float32(zero_point), f"{_PIXELS}/zero")
    )
    subtract.input[1] = f"{_PIXELS}/zero"
    subtract.output[0] = conv.input[0] = _PIXELS
    return in_order(model), zero_point


def _of_pixels(graph: Any, name: str) -> bool:
    """Tell whether a tensor is the graph's uint8 input, cast and perhaps transposed before."""
    made = {output: node for node in graph.node for output in node.output}
    cast = made.get(name)
    if cast is None or cast.op_type != "Cast":
        return False
    before = made.get(cast.input[0])
    source = before.input[0] if before and before.op_type == "Transpose" else cast.input[0]
    return source in {value.name for value in graph.input}


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
    return {name: tuple(nodes) for name, nodes in blocks.items()}


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


def _feed_pixels(model: Any) -> None:
    """Give the uint8 pixels to the first convolution as they are, if it is quantised that way."""
    graph = model.graph
    quantize = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == _PIXELS]
    if not quantize or initializers(model)[quantize[0].input[2]].dtype != np.uint8:
        return
    made = {output: node for node in graph.node for output in node.output}
    subtract = made[_PIXELS]
    cast = made[subtract.input[0]]
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == quantize[0].output[0]:
                node.input[place] = cast.input[0]
    for node in (quantize[0], subtract, cast):
        graph.node.remove(node)
