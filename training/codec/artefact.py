"""Writes a learnt codec as the folder that devices and services open: ``adacompress.codec/1``."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edge_sdk.classes import NAMES_KEY
from edge_sdk.featurecodec.artefact import (
    DOCUMENT,
    ENCODER,
    ENTROPY,
    FILES,
    INT8,
    SCHEMA,
    codec_id,
)
from edge_sdk.featurecodec.tail import CLASSIFIER, TAIL, VIEWER
from model_store.files import write_atomic, write_json
from training.cloud.zoo import MODELS
from training.codec.classifier import Classifier

__all__ = ["SEGMENTS", "Files", "amend", "names_of", "write"]

#: The segmentation head, which few codecs have.
SEGMENTS = "segments.onnx"


@dataclass(frozen=True, kw_only=True)
class Files:
    """A codec's files, before they are written.

    Attributes:
        encoder: ``encoder.onnx``, as is ``tail`` ``tail.onnx``.
        tail: integers and rates to scores.
        viewer: ``viewer.onnx``, or None.
        entropy: arrays of ``entropy.npz``.
        kind: "context" or "factorised".
        shape: (C, H, W) of the integers.
        limit: L.
        rates: R.
    """

    encoder: bytes
    tail: bytes
    viewer: bytes | None
    entropy: Mapping[str, npt.NDArray[Any]]
    kind: str
    shape: tuple[int, int, int]
    limit: int
    rates: int


def names_of(whole: Classifier) -> dict[str, str]:
    """Return the metadata of every file that answers."""
    return {NAMES_KEY: json.dumps(whole.names)}


def write(files: Files, whole: Classifier, folder: Path, facts: Mapping[str, Any]) -> str:
    """Write the folder and return the codec's id.

    Args:
        files: the codec's.
        whole: the classifier that it belongs to.
        folder: made if it is not there; ``codec.json`` is written last.
        facts: what else ``codec.json`` says: cut, prefix, provenance, multiplications.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entropy = _npz(files.entropy)
    document = {
        "schema": SCHEMA,
        "id": codec_id(files.encoder, entropy),
        "classifier": {"name": whole.name, "version": whole.version},
        "view": whole.view.as_dict(),
        "shape": list(files.shape),
        "limit": files.limit,
        "rates": files.rates,
        "entropy": files.kind,
        **facts,
    }
    for stale in (DOCUMENT, INT8):  # of another codec in this folder
        (folder / FILES[stale]).unlink(missing_ok=True)
    for stale in (VIEWER, CLASSIFIER, SEGMENTS):
        (folder / stale).unlink(missing_ok=True)
    write_atomic(folder / FILES[ENCODER], files.encoder)
    write_atomic(folder / FILES[ENTROPY], entropy)
    write_atomic(folder / TAIL, files.tail)
    if files.viewer is not None:
        write_atomic(folder / VIEWER, files.viewer)
    if whole.name not in MODELS:
        write_atomic(folder / CLASSIFIER, _classifier(whole.model, names_of(whole)))
    write_json(folder / FILES[DOCUMENT], document)
    return str(document["id"])


def amend(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add facts to ``codec.json`` that only measuring the finished files can tell."""
    path = folder / FILES[DOCUMENT]
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **facts})


def _npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def _classifier(model: Any, names: Mapping[str, str]) -> bytes:
    """Return the whole classifier under the names that serve it: ``image`` and ``scores``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {one.name for one in copy.graph.initializer}
    (picture,) = (one.name for one in copy.graph.input if one.name not in stored)
    renamed = {picture: "image", copy.graph.output[0].name: "scores"}
    for node in copy.graph.node:
        for side in (node.input, node.output):
            for place, name in enumerate(side):
                side[place] = renamed.get(name, name)
    for value in (*copy.graph.input, *copy.graph.output):
        value.name = renamed.get(value.name, value.name)
    onnx.helper.set_model_props(copy, dict(names))
    return bytes(copy.SerializeToString())
