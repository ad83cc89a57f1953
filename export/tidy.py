"""Graph surgery that changes no decision: fewer nodes, no twins, one picture or several.

Everything here takes and returns an ``onnx.ModelProto`` and works on a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from model_store.errors import UsageError

__all__ = [
    "fold_division",
    "in_order",
    "initializers",
    "merge_twins",
    "metadata_of",
    "replace_tensor",
    "with_batch",
]


def initializers(model: Any) -> dict[str, Any]:
    """Return the constant tensors of a model by name, as numpy arrays."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def fold_division(model: Any) -> Any:
    """Put the division by the standard deviation into the first convolution's weights.

    ``Conv((x - mean) / std)`` is ``Conv'(x - mean)`` with weights divided by ``std``, at the padded
    border too, since the padding stays zero. The subtraction stays: at the border it does not fold.
    A model without that pattern comes back unchanged.
    """
    folded = _copy(model)
    constants, graph = initializers(folded), folded.graph
    division = next((node for node in graph.node if node.op_type == "Div"), None)
    if division is None or division.input[1] not in constants:
        return folded
    readers = [node for node in graph.node if division.output[0] in node.input]
    std = constants[division.input[1]]
    if [node.op_type for node in readers] != ["Conv"] or std.size not in (1, 3):
        return folded
    (conv,) = readers
    weight = constants[conv.input[1]].astype(np.float64) / std.reshape(1, -1, 1, 1)
    replace_tensor(folded, conv.input[1], weight.astype(np.float32))
    conv.input[0] = division.input[0]
    graph.node.remove(division)
    return merge_twins(folded)


def merge_twins(model: Any) -> Any:
    """Keep one of each set of equal constants and of equal computations; drop what nobody reads."""
    from onnx_ir.passes import common

    twins = (common.DeduplicateInitializersPass(), common.CommonSubexpressionEliminationPass())
    return _passed(model, *twins, common.RemoveUnusedNodesPass())


def in_order(model: Any) -> Any:
    """Put nodes after what they read, and drop what nobody reads."""
    from onnx_ir.passes import common

    return _passed(model, common.RemoveUnusedNodesPass(), common.TopologicalSortPass())


def _passed(model: Any, *passes: Any) -> Any:
    import onnx_ir  # comes with onnxscript

    done = onnx_ir.passes.PassManager(list(passes))(onnx_ir.from_proto(model))
    return onnx_ir.to_proto(done.model)


def with_batch(model: Any, count: int) -> Any:
    """Return the model for ``count`` pictures at once, still with static shapes.

    Raises:
        UsageError: the graph is made for one picture only.
    """
    batched = _copy(model)
    del batched.graph.value_info[:]
    for value in (*batched.graph.input, *batched.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = count
    try:
        onnx.checker.check_model(batched, full_check=True)
    except Exception as error:  # onnx raises several classes of its own
        raise UsageError(f"The graph cannot take {count} pictures at once: {error}.") from error
    return batched


def replace_tensor(model: Any, name: str, value: np.ndarray[Any, Any]) -> None:
    """Give a constant another value, in place; its shape may change."""
    (tensor,) = [one for one in model.graph.initializer if one.name == name]
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def metadata_of(model: Any) -> Mapping[str, str]:
    """Return a model's own metadata."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _copy(model: Any) -> Any:
    return onnx.ModelProto.FromString(model.SerializeToString())
