"""A Triton model repository of an agent's ONNX graphs.

    DIR/NAME/config.pbtxt
    DIR/NAME/1/model.onnx          the fp32 engine: uint8 pictures in, features and scores out
    DIR/NAME-probe/…               the graph of the second look, if the agent has one

Layout and fields: https://docs.nvidia.com/deeplearning/triton-inference-server/ ("model
repository", "model configuration"). Triton runs the graphs; resizing, choosing a rung and encoding
stay with ``edge_sdk``, which can take the scores from anywhere. Of a feature codec the repository
holds the tail, the viewer and the whole classifier; whoever stands before Triton decodes the stream
(``edge_sdk.featurecodec.Wire``) and gives the integers and their rate to NAME-tail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from edge_sdk.featurecodec.tail import CLASSIFIER, TAIL, VIEWER
from export.codec_archive import CodecFiles
from model_store import StoredAgent
from model_store.files import write_atomic

__all__ = ["config", "write_codec", "write_repository"]

_TYPES = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.INT8: "TYPE_INT8",
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
        written += _write(stored.file(role), folder, model_name)
    return written


def write_codec(codec: CodecFiles, folder: Path) -> list[Path]:
    """Write the repository of a codec's server side and return its files.

    Raises:
        OSError: the folder cannot be written.
    """
    written = []
    for name, suffix in ((TAIL, "-tail"), (VIEWER, "-viewer"), (CLASSIFIER, "")):
        if name in codec.files:
            written += _write(codec.files[name], folder, codec.name + suffix)
    return written


def _write(model: bytes, folder: Path, name: str) -> list[Path]:
    files = {
        folder / name / "1" / "model.onnx": model,
        folder / name / "config.pbtxt": config(model, name).encode(),
    }
    for path, content in files.items():
        write_atomic(path, content)
    return [*files]


def config(model: bytes, name: str) -> str:
    """Return ``config.pbtxt`` of an ONNX file; a dimension that is open is -1."""
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
    sizes = (dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    dims = ", ".join(map(str, sizes))
    return f'  {{ name: "{value.name}" data_type: {_TYPES[kind.elem_type]} dims: [ {dims} ] }}'
