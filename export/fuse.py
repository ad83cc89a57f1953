"""Fuse prefix and head into one ONNX engine of ``adacompress.engine/1``.

The prefix is exported once per weights, cut and side, and kept; a new head is exported alone and
joined to it. That is also how a re-trained head gets its engine without pictures or weights: the
prefix is taken out of the parent's engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import compose
from torch import nn

from edge_sdk.engine import SCHEMA
from edge_sdk.ladder import Ladder
from edge_sdk.preprocess import spec_sha256
from edge_sdk.second_look import SCHEMA as PROBE
from export.network import DQNHead, FactoredHead, Prefix
from export.probe_head import ProbeHead
from export.tidy import fold_division, merge_twins, metadata_of
from model_store.errors import UsageError
from model_store.files import write_atomic

__all__ = ["OPSET", "export_prefix", "export_probe", "finished", "fuse", "parse", "prefix_of"]

#: ONNX operator set of every artefact; what ONNX Runtime 1.20 and TensorRT 10.13 both read.
OPSET = 18

_FEATURES = "features"

#: What is done to a prefix after its export; another number is another file in the cache.
_FORM = 2


def export_prefix(prefix: Prefix, cache: Path | None = None) -> bytes:
    """Return the prefix as ONNX: ``image`` uint8 (1, S, S, 3) to ``features`` (1, D).

    Args:
        prefix: the torch module.
        cache: a folder where the file is kept under a key of everything that decides it.
    """
    path = cache / f"prefix-{_fingerprint(prefix)}.onnx" if cache else None
    if path and path.is_file():
        return path.read_bytes()
    image = torch.zeros(1, prefix.side, prefix.side, 3, dtype=torch.uint8)
    model = _export(prefix, "prefix", (image,), ("image",), (_FEATURES,))
    data = fold_division(model).SerializeToString()
    if path:
        write_atomic(path, data)
    return data


def prefix_of(engine: bytes) -> bytes:
    """Return the prefix inside an engine, as :func:`export_prefix` made it.

    Raises:
        UsageError: it is no engine of ours.
    """
    extracted = onnx.utils.Extractor(parse(engine)).extract_model(["image"], [_FEATURES])
    return bytes(extracted.SerializeToString())


def fuse(prefix: bytes, head: DQNHead | FactoredHead, ladder: Ladder) -> bytes:
    """Join a prefix and a head into one checked engine with its metadata.

    Args:
        prefix: ONNX from :func:`export_prefix` or :func:`prefix_of`.
        head: the trained torch head; its inputs are the prefix's features.
        ladder: the rungs that the head's outputs stand for.

    Raises:
        UsageError: the prefix is no ONNX of ours.
    """
    front = parse(prefix)
    dimension = front.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    features = (torch.zeros(1, dimension),)
    back = _export(head.eval(), "head", features, (_FEATURES,), head.outputs)
    back.ir_version = front.ir_version
    joined = compose.merge_models(
        front,
        back,
        io_map=[(_FEATURES, _FEATURES)],
        outputs=[_FEATURES, *head.outputs],
    )
    del joined.opset_import[len(front.opset_import) :]  # joining lists the head's once more
    return _finished(joined, SCHEMA, ladder, metadata_of(front).get("precision", "fp32"))


def export_probe(head: ProbeHead, dimension: int, ladder: Ladder) -> bytes:
    """Return a probe head as checked ONNX of ``adacompress.probe/1``.

    Inputs ``original`` and ``candidate`` float32 (1, D), ``rung`` int64 (1,), ``size_ratio``
    float32 (1,); output ``agreement`` float32 (1, K).

    Args:
        head: trained.
        dimension: D, features of the engine that it belongs to.
        ladder: the rungs that its output stands for.
    """
    # Two tensors: the exporter takes one that is given twice for one input.
    original, candidate = torch.zeros(1, dimension), torch.ones(1, dimension)
    example = (original, candidate, torch.zeros(1, dtype=torch.long), torch.ones(1))
    names = ("original", "candidate", "rung", "size_ratio")
    return _finished(_export(head.eval(), "probe", example, names, ("agreement",)), PROBE, ladder)


def _finished(model: Any, schema: str, ladder: Ladder, precision: str = "fp32") -> bytes:
    properties = {
        "schema": schema,
        "ladder": json.dumps([rung.as_dict() for rung in ladder], sort_keys=True),
        "preprocess_sha256": spec_sha256(),
    }
    return finished(merge_twins(model), {**properties, "precision": precision})


def finished(model: Any, properties: Mapping[str, str]) -> bytes:
    """Return a model's bytes, with its metadata, after ONNX's checker and shape inference."""
    (opset,) = [entry.version for entry in model.opset_import if entry.domain == ""]
    onnx.helper.set_model_props(model, {**properties, "opset": str(opset)})
    model.producer_name, model.producer_version = "adacompress", ""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def parse(data: bytes) -> Any:
    """Return a prefix or an engine as an ``onnx.ModelProto``.

    Raises:
        UsageError: it is no engine of ours.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own class
        raise UsageError(f"{len(data)} bytes are no ONNX model ({error}).") from error
    tensors = {value.name for value in (*model.graph.input, *model.graph.output)}
    if not {"image", _FEATURES} <= tensors:
        raise UsageError(
            f"The ONNX model has {sorted(tensors)}; a prefix or an engine has 'image' and "
            f"{_FEATURES!r}."
        )
    return model


def _export(
    module: nn.Module,
    part: str,
    example: tuple[torch.Tensor, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
) -> Any:
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            example,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = program.model_proto
    del model.metadata_props[:]
    for node in model.graph.node:  # the exporter writes stack traces of this machine into nodes
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    # One name space a part, so that joining them cannot make two tensors of one name.
    return compose.add_prefix(model, f"{part}/", rename_inputs=False, rename_outputs=False)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's own deprecation and optimiser chatter, nothing else."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _fingerprint(prefix: Prefix) -> str:
    digest = hashlib.sha256(
        f"{_FORM}/{prefix.cut}/{prefix.side}/{prefix.confidence}/{OPSET}/{torch.__version__}".encode()
    )
    for name, value in prefix.state_dict().items():
        digest.update(name.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]
