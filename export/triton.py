"""A Triton model repository of an agent's ONNX graphs.

    DIR/NAME/config.pbtxt
    DIR/NAME/1/model.onnx          the fp32 engine: uint8 pictures in, features and scores out
    DIR/NAME-probe/…               the graph of the second look, if the agent has one

Layout and fields: https://docs.nvidia.com/deeplearning/triton-inference-server/ ("model
repository", "model configuration"). Triton runs the graphs; resizing, choosing a rung and encoding
stay with ``edge_sdk``, which can take the scores from anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from model_store import StoredAgent
from model_store.files import write_atomic

__all__ = ["config", "write_repository"]

_TYPES = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT64: "TYPE_INT64",
}


def write_repository(stored: StoredAgent, folder: Path, name: str) -> list[Path]:
    """Write the repository and return its files.

    Raises:
        CorruptAgent: a file of the agent is not what its manifest says.
        OSError: the folder cannot be written.
    """
    written = []
    for role, model_name in (("engine", name), ("probe", f"{name}-probe")):
        if not stored.manifest.entries(role):
            continue
        model = stored.file(role)
        files = {
            folder / model_name / "1" / "model.onnx": model,
            folder / model_name / "config.pbtxt": config(model, model_name).encode(),
        }
        for path, content in files.items():
            write_atomic(path, content)
        written += [*files]
    return written


def config(model: bytes, name: str) -> str:
    """Return ``config.pbtxt`` of an ONNX file with static shapes."""
    graph = onnx.load_model_from_string(model).graph
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        "max_batch_size: 0  # the shapes below are the whole shapes",
        _tensors("input", graph.input),
        _tensors("output", graph.output),
        "instance_group [ { kind: KIND_AUTO } ]",
        'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }',
    ]
    return "\n".join(lines) + "\n"


def _tensors(field: str, values: Any) -> str:
    return f"{field} [\n" + ",\n".join(_tensor(value) for value in values) + "\n]"


def _tensor(value: Any) -> str:
    kind = value.type.tensor_type
    dims = ", ".join(str(dim.dim_value) for dim in kind.shape.dim)
    return f'  {{ name: "{value.name}" data_type: {_TYPES[kind.elem_type]} dims: [ {dims} ] }}'
