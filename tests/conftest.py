"""What all tests share: a clean environment, a photo from a formula, an engine without torch."""

from __future__ import annotations

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
from edge_sdk.ladder import PAPER, Ladder
from edge_sdk.preprocess import spec_sha256

# The tensors here are small: threads of torch's would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure of the code under test.
hypothesis.settings.register_profile("adacompress", deadline=None)
hypothesis.settings.load_profile("adacompress")

MakeEngine = Callable[..., bytes]


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
