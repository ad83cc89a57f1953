"""A graph's uint8 pixels as the quantised input of its first convolution.

Before a quantiser's work they are folded: mean and standard deviation go into the convolution's
weights and bias. After it they are fed: nothing is cast, subtracted or quantised at full size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from export.tidy import in_order, initializers, replace_tensor
from model_store.errors import UsageError

__all__ = ["PIXELS", "feed_pixels", "fold_pixels"]

#: The tensor that the first convolution reads once pixels are folded.
PIXELS = "prefix/pixels"


def fold_pixels(given: Any) -> tuple[Any, int]:
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
        conv.input.append(f"{PIXELS}/bias")
        graph.initializer.append(
            onnx.numpy_helper.from_array(bias.astype(np.float32), conv.input[2])
        )
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(zero_point), f"{PIXELS}/zero"))
    subtract.input[1] = f"{PIXELS}/zero"
    subtract.output[0] = conv.input[0] = PIXELS
    return in_order(model), zero_point


def feed_pixels(model: Any) -> None:
    """Give the uint8 pixels to the first convolution as they are, if it is quantised that way."""
    graph = model.graph
    quantize = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == PIXELS]
    if not quantize or initializers(model)[quantize[0].input[2]].dtype != np.uint8:
        return
    made = {output: node for node in graph.node for output in node.output}
    subtract = made[PIXELS]
    cast = made[subtract.input[0]]
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == quantize[0].output[0]:
                node.input[place] = cast.input[0]
    for node in (quantize[0], subtract, cast):
        graph.node.remove(node)


def _of_pixels(graph: Any, name: str) -> bool:
    """Tell whether a tensor is the graph's uint8 input, cast and perhaps transposed before."""
    made = {output: node for node in graph.node for output in node.output}
    cast = made.get(name)
    if cast is None or cast.op_type != "Cast":
        return False
    before = made.get(cast.input[0])
    source = before.input[0] if before and before.op_type == "Transpose" else cast.input[0]
    return source in {value.name for value in graph.input}
