"""Publishing a variant: a new version of the same agent, that a device picks by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import probe
from edge_sdk.assembly import load_agent, open_engine
from edge_sdk.engine import OnnxEngine, Scores, open_session
from edge_sdk.errors import EngineError
from edge_sdk.policy import choose
from export.bench import Row
from export.calibrate import calibrate
from export.fuse import prefix_of
from export.gate import fp32_agent, probe_set
from export.publish import publish_run
from export.run import TrainingRun
from export.tensorrt import build_engines
from export.variants import engines, publish_int8
from model_store import Store
from model_store.errors import GateFailed, UsageError

Pictures = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="module")
def filled(run_of_training: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store to copy: fusing takes its time."""
    store = Store(tmp_path_factory.mktemp("filled"))
    publish_run(run_of_training, store, aliases=["current"])
    return store


@pytest.fixture
def store(filled: Store, tmp_path: Path) -> Store:
    shutil.copytree(filled.root, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network's decisions are closer calls than a real one's."""
    monkeypatch.setattr("export.gate.MIN_SAME", 0.9)


def timing(int8_ms: float) -> Callable[..., list[Row]]:
    """Return a bench that measures fp32 at 2 ms, and INT8 as told."""

    def timed(_: object, models: dict[str, bytes], photos: list[Image.Image]) -> list[Row]:
        assert photos
        times = {"fp32": 2.0, "int8": int8_ms}
        return [
            Row(
                variant=name,
                size=len(model),
                load_ms=1.0,
                decision_ms=times[name],
                decision_p90_ms=3.0,
                ratio=times[name],
                encode_ms=1.0,
            )
            for name, model in models.items()
        ]

    return timed


def test_the_new_version_holds_both_engines_and_a_device_takes_int8(
    store: Store, pictures: Pictures
) -> None:
    old = store.load("current")
    made = publish_int8(store, "current", pictures(40), aliases=["current"], timed=timing(1.0))
    new = store.load("current")
    assert new.id == made.manifest.id != old.id
    assert new.file("engine") == old.file("engine")
    assert {entry.role for entry in new.manifest.files} == {
        *(entry.role for entry in old.manifest.files),
        "engine-int8",
    }
    assert engines(new) == {"fp32": old.file("engine"), "int8": made.quantized.model}
    inputs = probe_set(new)
    agent = load_agent(new)
    point = agent.operating_point
    np.testing.assert_array_equal(
        agent.engine.run(inputs).q_values, open_engine(new).run(inputs).q_values
    )
    exact = fp32_agent(new).engine.run(inputs)
    assert (choose(agent.engine.run(inputs), point) == choose(exact, point)).mean() >= 0.9
    assert not np.array_equal(agent.engine.run(inputs).features, exact.features)


def test_the_manifest_says_what_was_measured(store: Store, pictures: Pictures) -> None:
    made = publish_int8(store, "current", pictures(40), timed=timing(1.0))
    facts = made.manifest.metrics["variants"]["int8"]
    assert facts["blocks"] == ["blocks.0"]
    assert facts["times_faster"] == 2.0
    assert facts["parity"]["pictures"] == 64
    assert facts["size"] == len(made.quantized.model)
    assert made.manifest.metrics["size_ratio"] == 0.4
    assert store.resolve("current") != made.manifest.id


def test_retraining_still_finds_its_prefix(store: Store, pictures: Pictures) -> None:
    made = publish_int8(store, "current", pictures(40), timed=timing(1.0))
    prefix = onnx.load_model_from_string(prefix_of(store.load(made.manifest.id).file("engine")))
    assert "QuantizeLinear" not in {node.op_type for node in prefix.graph.node}


def test_what_is_not_faster_is_not_published(store: Store, pictures: Pictures) -> None:
    before = store.ids()
    with pytest.raises(GateFailed, match=r"decision takes 1\.99 ms, against 2\.00 ms in fp32"):
        publish_int8(store, "current", pictures(40), timed=timing(1.99))
    assert store.ids() == before


def test_what_devices_would_refuse_is_not_published(
    store: Store, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(engine: OnnxEngine, expected: object) -> None:
        if engine.run(probe.pictures(16)).features.tolist() != exact:
            raise EngineError("It decides otherwise here.")

    exact = fp32_agent(store.load("current")).engine.run(probe.pictures(16)).features.tolist()
    monkeypatch.setattr(probe, "check", check)
    before = store.ids()
    with pytest.raises(GateFailed, match="decides otherwise here"):
        publish_int8(store, "current", pictures(40), timed=timing(1.0))
    assert store.ids() == before


def test_without_other_photos_the_probe_set_calibrates(store: Store) -> None:
    assert publish_int8(store, "current", timed=timing(1.0)).quantized.parity.same_rung >= 0.9


def test_an_agent_without_a_probe_set_is_proved_on_synthetic_pictures(
    store: Store, run_of_training: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: Any = store.load("current")
    files = tuple(entry for entry in stored.manifest.files if entry.role != "parity")
    bare = replace(stored, manifest=replace(stored.manifest, files=files))
    np.testing.assert_array_equal(probe_set(bare), probe.pictures(16))
    np.testing.assert_array_equal(probe_set(stored), run_of_training.inputs)


def test_an_engine_that_was_learnt_in_int8_is_not_rounded_again(
    run_of_training: TrainingRun, pictures: Pictures, tmp_path: Path
) -> None:
    calibration = calibrate(run_of_training.prefix, pictures(20))
    prefix = calibration.quantized(tuple(calibration.blocks))
    network = open_session(prefix)
    features = np.concatenate(
        [network.run(None, {"image": one[None]})[0] for one in run_of_training.inputs]
    )
    with torch.inference_mode():
        said = run_of_training.head(torch.from_numpy(features))
    run = replace(
        run_of_training, prefix=prefix, expected=Scores(features, *(one.numpy() for one in said))
    )
    store = Store(tmp_path / "rounded")
    publish_run(run, store, aliases=["current"])
    stored = store.load("current")
    with pytest.raises(UsageError, match=r"int8 already.*--int8 takes agents of .*fp32"):
        publish_int8(store, "current", pictures(20), timed=timing(1.0))
    with pytest.raises(UsageError, match=r"--trt takes agents of"):
        build_engines(stored, tmp_path, trt=None, gpu=None)  # type: ignore[arg-type]
