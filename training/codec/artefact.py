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
from torch import nn

from edge_sdk.classes import NAMES_KEY
from edge_sdk.featurecodec.artefact import FILES, SCHEMA, codec_id, encoder_metadata
from edge_sdk.featurecodec.tail import CLASSIFIER, TAIL, VIEWER
from export.feature_network import Viewer
from export.feature_onnx import encoder_onnx, tail_onnx, viewer_onnx
from model_store.files import write_atomic, write_json
from training.cloud.zoo import MODELS
from training.codec.classifier import Cut
from training.codec.learn import Learnt
from training.codec.prefix import Front

__all__ = ["Made", "amend", "write"]


@dataclass(frozen=True, kw_only=True)
class Made:
    """Everything a codec consists of.

    Attributes:
        cut: of the classifier.
        front: the device's prefix.
        learnt: bottleneck, decoder and entropy model.
        entropy: arrays of ``entropy.npz`` and their kind.
        kind: "context" or "factorised".
        size: (H, W) of the integers.
        tail: the tail's module if its weights learnt too.
        viewer: or None.
    """

    cut: Cut
    front: Front
    learnt: Learnt
    entropy: Mapping[str, npt.NDArray[Any]]
    kind: str
    size: tuple[int, int]
    tail: nn.Module | None = None
    viewer: Viewer | None = None


def write(made: Made, folder: Path, facts: Mapping[str, Any]) -> str:
    """Write the folder and return the codec's id.

    Args:
        made: what was learnt.
        folder: made if it is not there; ``codec.json`` is written last.
        facts: what else ``codec.json`` says: provenance, multiplications.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes = made.learnt.bottleneck.shape
    shape = (sizes.codes, *made.size)
    whole = made.cut.whole
    names = {NAMES_KEY: json.dumps(whole.names)}
    encoder = encoder_onnx(
        made.front.model,
        made.learnt.bottleneck,
        made.learnt.adapter,
        made.front.shape,
        encoder_metadata(whole.view, shape),
    )
    entropy = _npz(made.entropy)
    tuned = None if made.tail is None else made.tail.tuned()
    tail = tail_onnx(made.learnt.decoder, made.cut.back, shape, names, tuned)
    document = {
        "schema": SCHEMA,
        "id": codec_id(encoder, entropy),
        "classifier": {"name": whole.name, "version": whole.version},
        "cut": made.cut.place.name,
        "prefix": made.front.name,
        "view": whole.view.as_dict(),
        "shape": list(shape),
        "limit": sizes.limit,
        "rates": sizes.rates,
        "entropy": made.kind,
        **facts,
    }
    for role, data in (("codec-encoder", encoder), ("codec-entropy", entropy)):
        write_atomic(folder / FILES[role], data)
    write_atomic(folder / TAIL, tail)
    if made.viewer is not None:
        write_atomic(folder / VIEWER, viewer_onnx(made.viewer, shape, {}))
    if whole.name not in MODELS:
        write_atomic(folder / CLASSIFIER, _classifier(whole.model, names))
    write_json(folder / FILES["codec-json"], document)
    return str(document["id"])


def amend(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add facts to ``codec.json`` that only measuring the finished files can tell."""
    path = folder / FILES["codec-json"]
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
