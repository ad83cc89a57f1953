"""Fuse, prove, publish: a device can load what comes out, and a failed gate leaves nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image

from edge_sdk.assembly import load_agent
from edge_sdk.backends.base import Capabilities
from edge_sdk.errors import EngineError
from edge_sdk.ladder import FULL, PAPER
from edge_sdk.parcel import Packer
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.preprocess import SPEC, spec_sha256
from edge_sdk.reading import Picture
from export.network import DQNHead, FactoredHead, Network
from export.parity import scores_of
from export.publish import publish_run
from export.run import TrainingRun, state_to_bytes
from model_store import AgentNotFound, Store, StoredAgent
from model_store.errors import GateFailed, UsageError

CAPABILITIES = Capabilities(max_bytes=2**22, min_side=1, max_side=4096)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", clock=lambda: 2e9)


def test_a_published_agent_decides_on_a_device_as_it_was_trained(
    run_of_training: TrainingRun, store: Store
) -> None:
    manifest, parity = publish_run(run_of_training, store, aliases=["current", "scenery/day"])
    agent = load_agent(store.load("current"))
    trained = choose(run_of_training.expected, run_of_training.operating_point)
    decided = [agent.decide(Image.fromarray(picture)).rung for picture in run_of_training.inputs]
    assert decided == trained.tolist()
    assert len(set(decided)) > 3
    assert (agent.id, agent.scenery, agent.ladder) == (manifest.id, "day", PAPER)
    assert agent.operating_point == run_of_training.operating_point
    assert store.resolve("scenery/day") == manifest.id
    assert parity.same_rung == 1.0


def test_the_manifest_says_what_was_published(run_of_training: TrainingRun, store: Store) -> None:
    manifest, parity = publish_run(run_of_training, store)
    assert manifest.algorithm == "bandit"
    assert manifest.signature == {
        "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 16, 16, 3]}],
        "outputs": [
            {"name": "features", "dtype": "float32", "shape": [1, 8]},
            {"name": "q_values", "dtype": "float32", "shape": [1, 10]},
            {"name": "agreement", "dtype": "float32", "shape": [1, 10]},
            {"name": "size_ratio", "dtype": "float32", "shape": [1, 10]},
        ],
    }
    assert manifest.preprocessing == {"spec": SPEC, "sha256": spec_sha256()}
    assert manifest.metrics == {"size_ratio": 0.4, "parity": parity.as_dict()}
    assert len(manifest.probe["rungs"]) == len(manifest.probe["q_values"]) == 8
    assert manifest.backend["name"] == "fake://"
    assert {entry.role: entry.path for entry in manifest.files} == {
        "engine": "engine.onnx",
        "parity": "parity.npz",
        "head": "head.safetensors",
    }
    stored = store.load(manifest.id)
    assert stored.file("head") == state_to_bytes(run_of_training.head)
    onnx.checker.check_model(onnx.load_model_from_string(stored.file("engine")))


@pytest.fixture(scope="module")
def probing(probing_run: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> StoredAgent:
    """A probing agent in a store; exported once."""
    store = Store(tmp_path_factory.mktemp("store"), clock=lambda: 2e9)
    return store.load(publish_run(probing_run, store)[0].id)


def test_a_probing_agent_is_published_with_its_probe_and_both_points(
    probing_run: TrainingRun, probing: StoredAgent
) -> None:
    assert {entry.role: entry.path for entry in probing.manifest.files} == {
        "engine": "engine.onnx",
        "parity": "parity.npz",
        "head": "head.safetensors",
        "probe": "probe.onnx",
        "probe-head": "probe.safetensors",
    }
    assert probing_run.probe is not None
    assert probing.file("probe-head") == state_to_bytes(probing_run.probe)
    agent = load_agent(probing)
    assert agent.operating_point == probing_run.operating_point
    assert load_agent(probing, max_probes=0).operating_point == probing_run.points[0]
    picture = Image.fromarray(probing_run.inputs[0]).resize((64, 48))
    decision = agent.decide(picture, Packer(Picture(picture), CAPABILITIES).candidate)
    assert 0 < len(decision.probed) <= 3


def test_a_probe_head_that_was_changed_after_its_export_is_not_published(
    probing_run: TrainingRun,
    probing: StoredAgent,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = copy.deepcopy(probing_run.probe)
    assert changed is not None
    with torch.no_grad():
        changed.bias.add_(0.1)
    monkeypatch.setattr("export.publish.export_probe", lambda *_: probing.file("probe"))
    with pytest.raises(GateFailed, match=r"probe graph's agreement differs.*Nothing was published"):
        publish_run(replace(probing_run, probe=changed), store, aliases=["current"])
    assert store.ids() == ()


def test_publishing_the_same_run_again_is_the_same_agent(
    run_of_training: TrainingRun, store: Store
) -> None:
    first, _ = publish_run(run_of_training, store)
    assert publish_run(run_of_training, store)[0] == first
    assert store.ids() == (first.id,)


def test_a_dqn_run_is_published_with_its_q_values(
    run_of_training: TrainingRun, tiny_prefix: Any, store: Store
) -> None:
    torch.manual_seed(0)
    head = DQNHead(8, len(PAPER), (4,))
    expected = scores_of(Network(tiny_prefix, head), run_of_training.inputs)
    point = OperatingPoint(trade_off=None)
    run = replace(run_of_training, head=head, expected=expected, operating_point=point)
    manifest, _ = publish_run(run, store)
    assert manifest.algorithm == "dqn"
    assert load_agent(store.load(manifest.id)).operating_point.trade_off is None


def test_a_head_that_is_not_the_trained_one_is_not_published(
    run_of_training: TrainingRun, store: Store
) -> None:
    other = FactoredHead(8, PAPER)
    other.load_state_dict(run_of_training.head.state_dict())
    with torch.no_grad():
        other.agreement_logit.bias[6] += 5.0
    with pytest.raises(GateFailed, match=r"Nothing was published"):
        publish_run(replace(run_of_training, head=other), store, aliases=["current"])
    assert store.ids() == ()
    with pytest.raises(AgentNotFound):
        store.resolve("current")


def test_a_run_without_pictures_for_the_gate_is_not_published(
    run_of_training: TrainingRun, store: Store
) -> None:
    expected = run_of_training.expected
    nothing = replace(expected, features=expected.features[:0], q_values=expected.q_values[:0])
    run = replace(run_of_training, inputs=run_of_training.inputs[:0], expected=nothing)
    with pytest.raises(GateFailed, match="no pictures"):
        publish_run(run, store)
    assert store.ids() == ()


def test_a_head_for_another_ladder_is_not_published(
    run_of_training: TrainingRun, store: Store
) -> None:
    with pytest.raises(EngineError, match="the ladder has 18"):
        publish_run(replace(run_of_training, ladder=FULL), store)
    assert store.ids() == ()


def test_a_manifest_needs_its_facts(run_of_training: TrainingRun, store: Store) -> None:
    facts = dict(run_of_training.facts)
    lacking = {name: value for name, value in facts.items() if name != "backend"}
    with pytest.raises(UsageError, match=r"do not make a manifest.*'backend'"):
        publish_run(replace(run_of_training, facts=lacking), store)
    with pytest.raises(UsageError, match=r"do not make a manifest.*'mood'"):
        publish_run(replace(run_of_training, facts={**facts, "mood": "good"}), store)
    assert store.ids() == ()
