"""Drafts and stores for the tests of the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store import Draft, Store

MakeModel = Callable[..., bytes]


def _model(word: str = "", **changes: Any) -> bytes:
    """Make an ONNX file of the draft's signature; ``word`` is in it and tells it from others."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 224, 224, 3])
    q_values = helper.make_tensor_value_info("q_values", TensorProto.FLOAT, [1, 2])
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "weight"], ["q_values"]),
    ]
    weight = numpy_helper.from_array(np.zeros((3, 2), np.float32), "weight")
    parts: dict[str, Any] = {"nodes": nodes, "inputs": [image], "outputs": [q_values]}
    parts |= {"initializer": [weight], "opset": 17, "domains": ()} | changes
    opset, domains = parts.pop("opset"), parts.pop("domains")
    graph = helper.make_graph(name="engine", doc_string=word, **parts)
    opsets = [helper.make_opsetid(*one) for one in (("", opset), *domains)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=word)
    return bytes(made.SerializeToString())


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Make a valid engine, with changes by part."""
    return _model


def _draft(**changes: Any) -> Draft:
    fields: dict[str, Any] = {
        "algorithm": "bandit",
        "ladder": ({"quality": 5}, {"quality": 75}),
        "signature": {
            "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 224, 224, 3]}],
            "outputs": [{"name": "q_values", "dtype": "float32", "shape": [1, 2]}],
        },
        "preprocessing": {"spec": {"resize": "bilinear"}, "sha256": "a" * 64},
        "reward": {"alpha": 1.0, "beta": 0.0},
        "operating_points": ({"trade_off": 2.0, "target": 0.95},),
        "backend": {"name": "local:lite0", "model_version": "1", "min_score": 0.2},
        "training": {
            "fingerprint": "f" * 8,
            "photos": 3,
            "images": 12,
            "labels_bought": 40,
            "seed": 7,
        },
        "probe": {"rungs": [0, 1], "q_values": [[0.5, 0.1], [0.2, 0.4]]},
    }
    return Draft(**(fields | changes))


@pytest.fixture(scope="session")
def make_draft() -> Callable[..., Draft]:
    """Make a valid draft, with changes by field name."""
    return _draft


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Make an empty store whose clock ticks a second at every look."""
    times = iter(range(2_000_000_000, 2_000_001_000))
    return Store(tmp_path / "store", clock=lambda: next(times))


@pytest.fixture
def publish(store: Store) -> Callable[..., str]:
    """Publish an agent that a word tells from others, and return its id."""

    def publish(word: str, *aliases: str, **changes: Any) -> str:
        draft = _draft(versions={"word": word}, **changes)
        files = {
            "engine.onnx": ("engine", _model(word)),
            "extra/card.md": ("card", b"the same in all"),
        }
        return store.publish(draft, files, aliases=aliases).id

    return publish
