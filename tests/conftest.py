"""What all tests share: a clean environment, a photo from a formula, engines without torch."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence

import hypothesis
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edge_sdk.engine import SCHEMA
from edge_sdk.featurecodec.artefact import SCHEMA as CODEC
from edge_sdk.featurecodec.artefact import codec_id, encoder_metadata
from edge_sdk.ladder import PAPER, Ladder
from edge_sdk.preprocess import spec_sha256
from edge_sdk.view import View

# The tensors here are small: threads of torch's would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure of the code under test.
hypothesis.settings.register_profile("adacompress", deadline=None)
hypothesis.settings.load_profile("adacompress")

MakeEngine = Callable[..., bytes]
MakeCodec = Callable[..., dict[str, bytes]]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ADACOMPRESS_") and name != "ADACOMPRESS_ASSETS":
            monkeypatch.delenv(name)


@pytest.fixture
def photo() -> Image.Image:
    """An RGB picture of 160x120 pixels with soft areas, edges and some grain, as photos have."""
    y, x = np.mgrid[0:120, 0:160].astype(np.float64)
    sky = 200.0 - 0.8 * y
    hill = 60.0 + 40.0 * np.sin(x / 9.0) * np.cos(y / 7.0)
    land = np.where(y > 70 + 12 * np.sin(x / 25.0), hill, sky)
    disc = np.where((x - 110) ** 2 + (y - 35) ** 2 < 400, 40.0, 0.0)
    grain = 6.0 * np.sin(12.9898 * x + 78.233 * y)
    channels = [land + disc + grain, 0.8 * land + 0.3 * disc + grain, 230.0 - land + grain]
    return Image.fromarray(np.clip(np.stack(channels, axis=2), 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def make_engine() -> MakeEngine:
    """Make the ONNX file of an engine: colour means, then linear heads with random weights."""
    return _engine


def _engine(
    ladder: Ladder = PAPER,
    *,
    side: int = 8,
    seed: int = 0,
    factored: bool = True,
    image: Sequence[int | str] | None = None,
    dtype: int = TensorProto.UINT8,
    metadata: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> bytes:
    """Make an engine.

    Args:
        ladder: the rungs in the metadata; the heads have as many columns.
        side: S.
        seed: of the weights.
        factored: with agreement and size heads, else Q-values alone.
        image: the input's shape, if it is to differ from (1, S, S, 3).
        dtype: the input's ONNX type.
        metadata: entries that replace the right ones; an empty value removes its entry.
        drop: outputs to leave out.
        extra: outputs to add.
    """
    heads = ("agreement", "size_ratio") if factored else ("q_values",)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "white"], ["features"]),
        *(helper.make_node("Gemm", ["features", f"w_{n}", f"b_{n}"], [f"raw_{n}"]) for n in heads),
        *(helper.make_node("Identity", ["features"], [name]) for name in extra),
    ]
    ends = {"agreement": "Sigmoid", "size_ratio": "Exp", "q_values": "Identity"}
    nodes += [helper.make_node(ends[name], [f"raw_{name}"], [name]) for name in heads]
    if factored:
        nodes.append(helper.make_node("Sub", ["agreement", "size_ratio"], ["q_values"]))
    rng = np.random.default_rng(seed)
    weights = {"axes": np.array([1, 2]), "white": np.array([255.0], dtype=np.float32)}
    for name in heads:
        weights[f"w_{name}"] = rng.normal(0, 3, (3, len(ladder))).astype(np.float32)
        weights[f"b_{name}"] = rng.normal(0, 1, len(ladder)).astype(np.float32)
    widths = {"features": 3, "q_values": len(ladder), **dict.fromkeys(heads, len(ladder))}
    widths = {n: w for n, w in widths.items() if n not in drop} | dict.fromkeys(extra, 3)
    shape = image or (1, side, side, 3)
    graph = helper.make_graph(
        nodes,
        "engine",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (shape[0], width))
            for name, width in widths.items()
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    facts = {
        "schema": SCHEMA,
        "ladder": json.dumps([rung.as_dict() for rung in ladder]),
        "preprocess_sha256": spec_sha256(),
        **(metadata or {}),
    }
    helper.set_model_props(model, {name: value for name, value in facts.items() if value})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


#: Classes of the tiny classifier, in the order of its scores.
COLOURS = ("red", "green", "blue", "cyan", "magenta", "yellow")
_CODED, _POOL, _SIDE, _RATES, _LIMIT, _HIDDEN, _SCALES = 3, 8, 32, 3, 15, 4, 6


@pytest.fixture(scope="session")
def make_codec() -> MakeCodec:
    """Make the files of a feature codec by their names in its folder, see :func:`_codec`."""
    return _codec


def _codec(
    *,
    kind: str = "factorised",
    seed: int = 0,
    document: Mapping[str, object] | None = None,
    metadata: Mapping[str, str] | None = None,
    gain: float = 4.0,
) -> dict[str, bytes]:
    """Make a codec whose classifier names a picture's mean colour.

    Args:
        kind: of the entropy model, which is random.
        seed: of it.
        document: entries that replace those of ``codec.json``; None removes one.
        metadata: entries that replace those of the encoder.
        gain: steps of the coarsest rate between black and white, half of them on either side.
    """
    side = _SIDE // _POOL
    shape, view = (_CODED, side, side), View(side=_SIDE, resized=_SIDE + 4)
    gains = np.float32(gain) * 2.0 ** np.arange(_RATES).reshape(-1, 1, 1, 1)
    mixed = np.concatenate([np.eye(3), 1.0 - np.eye(3)], axis=1) * 20.0
    weights = {
        "white": np.float32(255.0),
        "half": np.float32(0.5),
        "gains": np.broadcast_to(gains, (_RATES, _CODED, 1, 1)).astype(np.float32),
        "low": np.float32(-_LIMIT),
        "high": np.float32(_LIMIT),
        "mixed": (mixed - mixed.mean(0)).astype(np.float32),
        "places": np.array([2, 3]),
        "same": np.eye(_CODED, dtype=np.float32)[:, :, None, None],
    }
    names = {"adacompress.names": json.dumps(COLOURS)}
    look = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pool"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Div", ["pool", "white"], ["share"]),
        helper.make_node("Sub", ["share", "half"], ["centred"]),
        helper.make_node("Conv", ["centred", "same"], ["features"]),
    ]
    answer = [
        helper.make_node("ReduceMean", ["features", "places"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "mixed"], ["scores"]),
    ]
    read = [
        helper.make_node("Cast", ["integers"], ["steps"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["gains", "rate"], ["gain"]),
        helper.make_node("Div", ["steps", "gain"], ["features"]),
    ]
    quantise = [
        helper.make_node("Mul", ["features", "gains"], ["exact"]),
        helper.make_node("Round", ["exact"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["integers"], to=TensorProto.INT8),
    ]
    show = [
        helper.make_node("Add", ["features", "half"], ["share"]),
        helper.make_node("Mul", ["share", "white"], ["planes"]),
        helper.make_node("Transpose", ["planes"], ["float"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["float"], ["image"], to=TensorProto.UINT8),
    ]
    sent = {"integers": (TensorProto.INT8, ["N", *shape]), "rate": (TensorProto.INT64, ["N"])}
    scores = {"scores": (TensorProto.FLOAT, ["N", len(COLOURS)])}
    described = {**encoder_metadata(view, shape), **(metadata or {})}
    files = {
        "encoder.onnx": _graph(
            [*_reading(look, "view"), *quantise],
            {"view": (TensorProto.UINT8, [1, _SIDE, _SIDE, 3])},
            {"integers": (TensorProto.INT8, [_RATES, *shape])},
            weights,
            described,
        ),
        "classifier.onnx": _graph(
            [*_reading(look, "image"), *answer],
            {"image": (TensorProto.UINT8, ["N", _SIDE, _SIDE, 3])},
            scores,
            weights,
            names,
        ),
        "tail.onnx": _graph([*read, *answer], sent, scores, weights, names),
        "viewer.onnx": _graph(
            [*read, *show],
            sent,
            {"image": (TensorProto.UINT8, ["N", side, side, 3])},
            weights,
            {},
        ),
        "entropy.npz": _entropy(kind, np.random.default_rng(seed)),
    }
    facts = {
        "schema": CODEC,
        "id": codec_id(files["encoder.onnx"], files["entropy.npz"]),
        "classifier": {"name": "colours", "version": "colours@1"},
        "cut": "features",
        "prefix": "own",
        "view": view.as_dict(),
        "shape": [*shape],
        "limit": _LIMIT,
        "rates": _RATES,
        "entropy": kind,
        **(document or {}),
    }
    kept = {name: value for name, value in facts.items() if value is not None}
    return {**files, "codec.json": json.dumps(kept).encode()}


def _reading(nodes: Sequence[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    first = onnx.NodeProto.FromString(nodes[0].SerializeToString())
    first.input[0] = name
    return [first, *nodes[1:]]


def _graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[int | str]]],
    outputs: Mapping[str, tuple[int, list[int | str]]],
    weights: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> bytes:
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "codec",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(weights[name], name) for name in weights if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _entropy(kind: str, rng: np.random.Generator) -> bytes:
    symbols = 2 * _LIMIT + 1

    def tables(*shape: int) -> np.ndarray:
        shares = rng.dirichlet(np.full(symbols, 0.5), size=shape).reshape(-1, symbols)
        counts = np.maximum(1, np.floor(shares * (65536 - symbols))).astype(np.int64)
        counts[np.arange(len(counts)), counts.argmax(1)] += 65536 - counts.sum(1)
        return counts.reshape(*shape, symbols).astype(np.uint32)

    arrays = {"counts": tables(_RATES, _CODED)}
    if kind == "context":
        arrays |= {
            "w1": rng.integers(-9000, 9000, (_RATES, _HIDDEN, _CODED, 12)).astype(np.int32),
            "b1": rng.integers(-9000, 9000, (_RATES, _HIDDEN)),
            "w2": rng.integers(-4000, 4000, (_RATES, 2 * _CODED, _HIDDEN)).astype(np.int32),
            "b2": rng.integers(-3_000_000, 3_000_000, (_RATES, 2 * _CODED)),
            "tables": tables(_SCALES, 8 * _LIMIT + 1),
        }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
