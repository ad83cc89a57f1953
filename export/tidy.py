"""Graph surgery that changes no decision: fewer nodes, no twins, one picture or several.

Everything here takes and returns an ``onnx.ModelProto`` and works on a copy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from model_store.errors import UsageError

__all__ = [
    "fold_division",
    "folded",
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


def folded(model: Any) -> Any:
    """Compute once what depends on no picture, and let convolutions pad by themselves.

    Exporters leave chains of shapes, slices and fills behind, and a device refuses some of their
    operators. This is ONNX Runtime's own basic optimisation, which stays within ONNX's operators;
    the sizes of the inputs have to be fixed for it to reach everything.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        made = onnx.load(options.optimized_model_filepath)
    used = {node.domain for node in made.graph.node}
    kept = [entry for entry in made.opset_import if entry.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    return made


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
