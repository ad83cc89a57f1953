"""A Triton repository: one folder a graph, and a configuration that says what the graph says."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.publish import publish_run
from export.run import TrainingRun
from export.triton import write_repository
from model_store import Store, StoredAgent


@pytest.fixture(scope="module")
def stored(probing_run: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> StoredAgent:
    store = Store(tmp_path_factory.mktemp("store"))
    return store.load(publish_run(probing_run, store)[0].id)


def test_the_repository_holds_every_graph(stored: StoredAgent, tmp_path: Path) -> None:
    written = write_repository(stored, tmp_path, "day")
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "day/1/model.onnx",
        "day/config.pbtxt",
        "day-probe/1/model.onnx",
        "day-probe/config.pbtxt",
    }
    assert (tmp_path / "day" / "1" / "model.onnx").read_bytes() == stored.file("engine")


def test_the_configuration_is_the_graphs(stored: StoredAgent, tmp_path: Path) -> None:
    write_repository(stored, tmp_path, "day")
    engine = (tmp_path / "day" / "config.pbtxt").read_text()
    assert 'name: "day"\nbackend: "onnxruntime"\nmax_batch_size: 0' in engine
    assert '{ name: "image" data_type: TYPE_UINT8 dims: [ 1, 16, 16, 3 ] }' in engine
    assert '{ name: "q_values" data_type: TYPE_FP32 dims: [ 1, 10 ] }' in engine
    assert engine.count("name:") == 1 + 5
    probe = (tmp_path / "day-probe" / "config.pbtxt").read_text()
    assert '{ name: "rung" data_type: TYPE_INT64 dims: [ 1 ] }' in probe
    for text in (engine, probe):
        assert text.count("[") == text.count("]")
        assert text.count("{") == text.count("}")


def test_an_agent_without_a_probe_has_one_graph(
    run_of_training: TrainingRun, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    agent = store.load(publish_run(run_of_training, store)[0].id)
    assert len(write_repository(agent, tmp_path / "triton", "day")) == 2
