"""INT8 by static QDQ: pixels as the quantised input, one scale a channel, blocks one can leave out.

ONNX Runtime's quantiser inserts the Q/DQ pairs; what is special here:

* the uint8 pixels *are* the first convolution's quantised input. Mean and standard deviation go
  into its weights and bias, so nothing is cast, subtracted or quantised at full resolution; with
  that in the graph, INT8 is slower than fp32 on small inputs;
* the pool and the heads stay fp32: they cost nothing and bear no rounding. The classifier behind
  the pool is a block like the others: its weights are a third of the file;
* any block of the network can be kept in fp32, see ``export.int8``.

``symmetric`` makes the form that TensorRT takes: int8 with zero point 0, fp32 bias, float pixels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from export.fuse import finished
from export.pixels import PIXELS, feed_pixels
from export.tidy import in_order, initializers, metadata_of

__all__ = ["OPERATORS", "Calibration", "lasting_names"]

#: Operators that run on whole numbers; all else is so short that converting costs more.
OPERATORS = ["Conv", "Add", "Clip", "Relu", "Gemm"]


@dataclass(frozen=True)
class Calibration:
    """An engine and the ranges of its activations: what every quantised form of it is made from.

    Attributes:
        model: ``onnx.ModelProto``, its input folded (see ``fold_pixels``).
        ranges: of every activation, from ONNX Runtime's calibrator.
        blocks: block name to its nodes' names, from the input to the pool.
        zero_point: the pixel that stands for zero; None where pixels are quantised like all else.
    """

    model: Any
    ranges: Any
    blocks: dict[str, tuple[str, ...]]
    zero_point: int | None

    @property
    def named_ranges(self) -> dict[str, tuple[float, float]]:
        """Ranges of the blocks' tensors under names that another export of the network shares."""
        names = lasting_names(self.model)
        inside = {name for nodes in self.blocks.values() for name in nodes}
        tensors = {
            tensor
            for node in self.model.graph.node
            if node.name in inside
            for tensor in (node.input[0], *node.output)
        }
        ends = {tensor: self.ranges[tensor].range_value for tensor in sorted(tensors)}
        return {names[tensor]: (low.item(), high.item()) for tensor, (low, high) in ends.items()}

    def quantized(
        self, blocks: Collection[str], *, symmetric: bool = False, seven_bits: bool = False
    ) -> bytes:
        """Return the graph with these blocks in INT8, the others in fp32.

        Args:
            blocks: names, keys of ``self.blocks``.
            symmetric: the form that TensorRT takes.
            seven_bits: of the weights only; then sums of two products fit in 16 bits, and
                processors without instructions for 8-bit dot products get the same results.
        """
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        inside = {name for block in blocks for name in self.blocks[block]}
        options: dict[str, Any] = {
            "ActivationSymmetric": symmetric,
            "QuantizeBias": not symmetric,
            "AddQDQPairToWeight": symmetric,
        }
        if not symmetric and self.zero_point is not None:
            options["TensorQuantOverrides"] = {PIXELS: [self._pixels(QuantType.QUInt8)]}
        quantizer = QDQQuantizer(
            onnx.ModelProto.FromString(self.model.SerializeToString()),
            True,  # per channel
            seven_bits,
            QuantType.QInt8,
            QuantType.QInt8 if symmetric else QuantType.QUInt8,
            self.ranges,
            [],
            [node.name for node in self.model.graph.node if node.name not in inside],
            OPERATORS,
            options,
        )
        quantizer.quantize_model()
        model = quantizer.model.model
        feed_pixels(model)
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


def lasting_names(model: Any) -> dict[str, str]:
    """Return names of tensors that do not hang on how an exporter numbers them.

    What a layer with weights makes is called like the weights, what others make like their last
    input and themselves.
    """
    constants, names = initializers(model), {PIXELS: "pixels"}
    for node in model.graph.node:
        weights = [name for name in node.input if name in constants and name.endswith(".weight")]
        above = [names[name] for name in node.input if name in names]
        for output in node.output:
            if weights:
                names.setdefault(output, weights[0].removeprefix("prefix/").removesuffix(".weight"))
            else:
                names.setdefault(output, f"{above[-1] if above else ''}/{node.op_type}")
    return names
