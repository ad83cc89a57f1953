"""From the store to a decision: a whole agent works, anything less is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from edge_sdk.assembly import load_agent
from edge_sdk.engine import PROVIDERS, OnnxEngine
from edge_sdk.errors import EngineError, ProviderMissing
from edge_sdk.ladder import FULL, PAPER
from edge_sdk.policy import OperatingPoint
from edge_sdk.preprocess import SPEC, spec_sha256, to_input
from edge_sdk.probe import expectation
from edge_sdk.scenery import Signature
from model_store import CorruptAgent, Draft, Store, StoredAgent, UnsafeModel

Publish = Callable[..., StoredAgent]


@pytest.fixture
def publish(tmp_path: Path, make_engine: Callable[..., bytes]) -> Publish:
    """Publish an engine and return it as the store hands it out; changes by manifest field."""
    store = Store(tmp_path / "store", clock=lambda: 2e9)

    def publish(engine: bytes = make_engine(PAPER), **changes: Any) -> StoredAgent:
        fields: dict[str, Any] = {
            "algorithm": "bandit",
            "ladder": [rung.as_dict() for rung in PAPER],
            "signature": {
                "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 3]}],
                "outputs": [{"name": "q_values", "dtype": "float32", "shape": [1, 10]}],
            },
            "preprocessing": {"spec": SPEC, "sha256": spec_sha256()},
            "reward": {"alpha": 1.0, "beta": 0.0},
            "operating_points": [{"trade_off": 2.0}, {"trade_off": 9.0}],
            "backend": {"name": "fake://", "model_version": None, "min_score": 0.0},
            "training": {
                "fingerprint": "f" * 8,
                "photos": 1,
                "images": 1,
                "labels_bought": 1,
                "seed": 0,
            },
            "probe": changes.get("probe") or expectation(OnnxEngine(engine)),
        }
        manifest = store.publish(Draft(**fields | changes), {"engine.onnx": ("engine", engine)})
        return store.load(manifest.id)

    return publish


def test_an_agent_decides_by_its_first_operating_point(
    publish: Publish, photo: Image.Image
) -> None:
    stored = publish()
    agent = load_agent(stored)
    decision = agent.decide(photo)
    scores = agent.engine.run(to_input(photo, 8))
    assert scores.agreement is not None
    assert scores.size_ratio is not None
    assert decision.rung == int(np.argmax(2.0 * scores.agreement - scores.size_ratio))
    assert (agent.id, agent.ladder, agent.operating_point.trade_off) == (stored.id, PAPER, 2.0)
    assert agent.rung(decision.rung) == PAPER[decision.rung]
    np.testing.assert_array_equal(decision.features, scores.features[0])
    assert decision.features.shape == (3,)


def test_a_dqn_agent_decides_by_its_q_values(
    publish: Publish, photo: Image.Image, make_engine: Callable[..., bytes]
) -> None:
    points = [OperatingPoint(trade_off=None).as_dict()]
    engine = make_engine(factored=False)
    agent = load_agent(publish(engine, algorithm="dqn", operating_points=points))
    decision = agent.decide(photo)
    assert decision.rung == int(decision.scores.q_values.argmax())


def test_an_agent_without_a_scenery_has_none(publish: Publish) -> None:
    agent = load_agent(publish())
    assert (agent.scenery, agent.signature) == ("", None)


def test_the_scenery_comes_along(publish: Publish) -> None:
    features = np.random.default_rng(0).normal(size=(40, 3))
    signature = Signature.from_features(features, np.random.default_rng(0))
    agent = load_agent(publish(scenery={"name": "night", "signature": signature.to_dict()}))
    assert agent.scenery == "night"
    assert agent.signature is not None
    np.testing.assert_allclose(agent.signature.features.mean, signature.features.mean, atol=1e-4)
    named = load_agent(publish(scenery={"name": "day", "signature": None}))
    assert (named.scenery, named.signature) == ("day", None)


def test_an_engine_with_another_ladder_than_its_manifest_is_refused(
    publish: Publish, make_engine: Callable[..., bytes]
) -> None:
    signature = {
        "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 3]}],
        "outputs": [{"name": "q_values", "dtype": "float32", "shape": [1, len(FULL)]}],
    }
    with pytest.raises(EngineError, match="another ladder than its manifest"):
        load_agent(publish(make_engine(FULL), signature=signature))


def test_an_engine_that_fails_its_probe_is_refused(
    publish: Publish, make_engine: Callable[..., bytes]
) -> None:
    expected = expectation(OnnxEngine(make_engine(seed=1)))
    with pytest.raises(EngineError, match="decides otherwise here"):
        load_agent(publish(make_engine(seed=0), probe=expected))


def test_a_file_that_changed_on_disk_is_refused(publish: Publish) -> None:
    stored = publish()
    entry = stored.manifest.files[0]
    path = stored.blobs.path(entry.sha256)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptAgent):
        load_agent(stored)


def test_what_is_no_engine_is_refused(publish: Publish) -> None:
    probe: dict[str, Any] = {"rungs": [], "q_values": []}
    with pytest.raises(UnsafeModel, match="The model"):
        publish(b"not an engine", probe=probe)


@pytest.mark.skipif(
    PROVIDERS["cuda"] in onnxruntime.get_available_providers(), reason="this build has CUDA"
)
def test_the_provider_is_passed_on(publish: Publish) -> None:
    assert load_agent(publish(), provider="cuda").engine.provider == "CPUExecutionProvider"
    with pytest.raises(ProviderMissing):
        load_agent(publish(), provider="cuda", strict=True)


def test_agents_do_not_change(publish: Publish) -> None:
    agent = load_agent(publish())
    with pytest.raises(FrozenInstanceError):
        agent.scenery = "noon"  # type: ignore[misc]
