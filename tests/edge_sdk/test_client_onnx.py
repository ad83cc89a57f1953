"""The client on real engines from a real store, with a real child process as retrainer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_sdk import EdgeClient, EdgeConfig, LoopParameters, State, probe
from edge_sdk.behind import Inline
from edge_sdk.engine import SCHEMA, OnnxEngine
from edge_sdk.ladder import PAPER
from edge_sdk.preprocess import SPEC, spec_sha256
from edge_sdk.retrain import ChildProcessRetrainer
from edge_sdk.scenery import Signature
from model_store import Draft, Store

SIDE = 8


def engine_bytes(quality: int) -> bytes:
    """Return a graph whose features are mean colours and which always wants ``quality``."""
    wanted = np.array([[rung.quality == quality for rung in PAPER]], dtype=np.float32)
    constants = {"scale": np.float32(1 / 255), "zero": np.zeros((3, 10), np.float32), "q": wanted}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled"], ["features"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["features", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "q"], ["q_values"]),
        ],
        "engine",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("q_values", TensorProto.FLOAT, [1, 10]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ladder = json.dumps([rung.as_dict() for rung in PAPER])
    metadata = {"schema": SCHEMA, "preprocess_sha256": spec_sha256(), "ladder": ladder}
    helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


def publish(store: Store, name: str, quality: int, signature: Signature | None) -> str:
    model = engine_bytes(quality)
    graph = onnx.load_model_from_string(model).graph

    def tensors(values: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "dtype": "uint8" if value.name == "image" else "float32",
                "shape": [dim.dim_value for dim in value.type.tensor_type.shape.dim],
            }
            for value in values
        ]

    draft = Draft(
        algorithm="dqn",
        ladder=[rung.as_dict() for rung in PAPER],
        signature={"inputs": tensors(graph.input), "outputs": tensors(graph.output)},
        preprocessing={"spec": SPEC, "sha256": spec_sha256()},
        reward={"alpha": 1.0, "beta": 0.0},
        operating_points=[{"trade_off": None}],
        backend={"name": "fake://", "model_version": None, "min_score": 0.0},
        training={"fingerprint": "-", "photos": 1, "images": 1, "labels_bought": 1, "seed": 0},
        probe=probe.expectation(OnnxEngine(model)),
        scenery={"name": name, "signature": signature.to_dict() if signature else None},
    )
    return store.publish(draft, {"engine.onnx": ("engine", model)}).id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "agents")


def test_the_loop_learns_the_night_from_a_child_and_returns_to_the_day(
    device: Any, store: Store
) -> None:
    device.service.readable["day"].remove(25)
    seen = np.array([np.asarray(device.picture("day")).mean(axis=(0, 1)) / 255 for _ in range(60)])
    day = publish(store, "day", 15, Signature.from_features(seen, np.random.default_rng(0)))
    night = publish(store, "night", 25, None)
    store.promote(day)
    config = EdgeConfig(
        store=store.root,
        backend=device.service,
        loop=LoopParameters(p_0=1.0, p_min=1.0),
        retrain_after=12,
        monitor="paper",
        strict=True,
    )
    answer = f"""print('{{"agent": "{night}"}}')"""
    retrainer = ChildProcessRetrainer((sys.executable, "-c", answer))
    states = set()
    with EdgeClient(config, retrainer=retrainer, behind=Inline()) as client:
        while client.stats().agent_id == day:
            result = client.process(device.picture("night"))
            states.add(result.state)
            assert result.state is State.ESTIMATION or result.labels[0].name == "cat"
            assert client.stats().images < 2000
        assert client.stats().agent_id == night
        assert store.aliases()["current"] == night
        while client.stats().agent_id == night:
            states.add(client.process(device.picture("day")).state)
        assert client.stats().agent_id == day
    assert states == {State.ESTIMATION, State.QUERYING, State.RETRAINING}
    assert [step.reason for step in store.history("current")][1:] == [
        "fits scenery 'night'",
        "fits scenery 'day'",
    ]


def test_a_restart_resumes_with_the_agent_that_was_adopted(device: Any, store: Store) -> None:
    publish(store, "day", 15, None)
    store.promote(publish(store, "night", 45, None), "current")
    config = EdgeConfig(store=store.root, backend=device.service, strict=True)
    with EdgeClient(config) as client:
        assert client.process(device.picture("night")).rung.quality == 45


def test_a_damaged_agent_is_given_up_for_the_one_before(device: Any, store: Store) -> None:
    store.promote(publish(store, "day", 15, None))
    bad = publish(store, "night", 45, None)
    store.promote(bad)
    entry = store.manifest(bad).files[0]
    blob = next(store.root.rglob(entry.sha256))
    blob.write_bytes(blob.read_bytes()[:-1])
    with EdgeClient(EdgeConfig(store=store.root, backend=device.service)) as client:
        assert client.process(device.picture()).rung.quality == 15
        assert client.stats().failures == {"store": 1}
