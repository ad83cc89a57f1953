"""Building engines against a stand-in of TensorRT's API, and against the real one where it is."""

from __future__ import annotations

import json
import logging
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edge_sdk.engine import OnnxEngine, Scores, ladder_of
from edge_sdk.engine_trt import WORKSPACE, open_trt, requirements
from edge_sdk.gpu import Gpu
from edge_sdk.ladder import PAPER
from export import tensorrt
from export.fuse import fuse
from export.publish import publish_run
from export.run import TrainingRun
from export.tensorrt import build, build_engines
from model_store import Store, StoredAgent
from model_store.errors import EnvironmentMissing, GateFailed
from model_store.files import sha256_bytes

GPU = Gpu("NVIDIA Imaginary 1000", "9.0", 132, 13000)


@pytest.fixture(scope="module")
def model(run_of_training: TrainingRun) -> bytes:
    return fuse(run_of_training.prefix, run_of_training.head, PAPER)


class Flags10(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class Flags11(IntEnum):
    EXPLICIT_BATCH = 0


class FakeTensorRT:
    """What the builder's documentation promises of ``import tensorrt``, as far as it is used."""

    class MemoryPoolType(IntEnum):
        WORKSPACE = 0

    class IProgressMonitor:
        pass

    class Logger:
        WARNING = 2

        def __init__(self, severity: int) -> None:
            assert severity == self.WARNING

    def __init__(self, version: str, flags: type[IntEnum]) -> None:
        self.__version__ = version
        self.NetworkDefinitionCreationFlag = flags
        self.parse_errors: list[str] = []
        self.plan: bytes | None = b"a plan"
        self.calls: list[tuple[str, Any]] = []

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        assert isinstance(logger, self.Logger)
        config = SimpleNamespace(
            set_memory_pool_limit=lambda pool, size: self._note("workspace", None, (pool, size)),
            progress_monitor=None,
            create_timing_cache=lambda known: self._note("timings", f"cache of {known!r}", known),
            set_timing_cache=lambda cache, ignore: self._note("use timings", True, (cache, ignore)),
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: memoryview(b"measured")),
        )
        self.config = config
        return SimpleNamespace(
            create_network=lambda flags: self._note("flags", "network", flags),
            create_builder_config=lambda: config,
            build_serialized_network=lambda *given: self._build(given == ("network", config)),
        )

    def OnnxParser(self, network: str, logger: Any) -> Any:  # noqa: N802
        assert (network, type(logger)) == ("network", self.Logger)
        return SimpleNamespace(
            parse=lambda model: self._note("parse", not self.parse_errors, model),
            num_errors=len(self.parse_errors),
            get_error=lambda index: SimpleNamespace(desc=lambda: self.parse_errors[index]),
        )

    def _build(self, given_what_was_made: bool) -> Any:
        assert given_what_was_made
        monitor = self.config.progress_monitor
        monitor.phase_start("Building Engine", None, 4)
        monitor.phase_start("Tactics", "Building Engine", 9)
        assert monitor.step_complete("Tactics", 0)
        assert monitor.step_complete("Building Engine", 1)
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Building Engine")
        plan = None if self.plan is None else memoryview(self.plan)  # IHostMemory is a buffer
        return self._note("build", plan)

    def _note(self, name: str, answer: Any, what: Any = None) -> Any:
        self.calls.append((name, what))
        return answer


def version_10() -> FakeTensorRT:
    return FakeTensorRT("10.13.3", Flags10)


def version_11() -> FakeTensorRT:
    return FakeTensorRT("11.4.0", Flags11)


@pytest.mark.parametrize(("trt", "flags"), [(version_10(), 2), (version_11(), 0)])
def test_an_engine_is_built_strongly_typed(
    trt: FakeTensorRT, flags: int, model: bytes, tmp_path: Path
) -> None:
    path = build(model, tmp_path, trt=trt, gpu=GPU)
    assert path.read_bytes() == b"a plan"
    assert trt.calls == [
        ("flags", flags),
        ("parse", model),
        ("workspace", (trt.MemoryPoolType.WORKSPACE, WORKSPACE)),
        ("timings", b""),
        ("use timings", ("cache of b''", False)),
        ("build", None),
    ]


def test_what_was_timed_once_is_not_timed_again(model: bytes, tmp_path: Path) -> None:
    trt = version_11()
    build(model, tmp_path, trt=trt, gpu=GPU)
    build(model, tmp_path, trt=trt, gpu=GPU, batch=4)
    assert [what for name, what in trt.calls if name == "timings"] == [b"", b"measured"]


def test_several_pictures_are_an_engine_of_their_own(model: bytes, tmp_path: Path) -> None:
    trt = version_11()
    one, four = (build(model, tmp_path, trt=trt, gpu=GPU, batch=batch) for batch in (1, 4))
    assert one != four
    first, second = (what for name, what in trt.calls if name == "parse")
    assert first == model
    shape = onnx.load_model_from_string(second).graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [4, 16, 16, 3]


def test_the_builder_tells_its_outer_phases(
    model: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "export"):
        build(model, tmp_path, trt=version_11(), gpu=GPU)
    assert [record.getMessage() for record in caplog.records] == [
        "building a TensorRT engine for NVIDIA Imaginary 1000, N = 1; this can take minutes",
        "TensorRT: Building Engine, 4 steps",
        "TensorRT: Building Engine, step 2",
    ]


def test_the_engines_facts_lie_beside_it(model: bytes, tmp_path: Path) -> None:
    path = build(model, tmp_path, trt=version_11(), gpu=GPU)
    facts = json.loads(path.with_suffix(".json").read_text())
    metadata = facts.pop("metadata")
    assert ladder_of(metadata) == PAPER
    assert facts == {
        "batch": 1,
        "sha256": sha256_bytes(b"a plan"),
        "onnx_sha256": sha256_bytes(model),
        "tensorrt": "11.4.0",
        "gpu": {
            "name": "NVIDIA Imaginary 1000",
            "compute_capability": "9.0",
            "multiprocessors": 132,
            "driver": 13000,
        },
    }


def test_a_cached_engine_is_not_built_again(
    model: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt = version_11()
    with caplog.at_level(logging.INFO, "export"):
        first = build(model, tmp_path, trt=trt, gpu=GPU)
        again = build(model, tmp_path, trt=trt, gpu=GPU)
    assert again == first
    assert [name for name, _ in trt.calls].count("build") == 1
    assert caplog.text.count("this can take minutes") == 1


def test_a_graph_that_cannot_be_parsed_is_reported(model: bytes, tmp_path: Path) -> None:
    trt = version_11()
    trt.parse_errors = ["no importer for Gelu", "invalid node"]
    with pytest.raises(EnvironmentMissing, match=r"11\.4\.0 cannot.*for Gelu; invalid node"):
        build(model, tmp_path, trt=trt, gpu=GPU)
    assert not list(tmp_path.iterdir())


def test_a_build_that_fails_leaves_nothing(model: bytes, tmp_path: Path) -> None:
    trt = version_10()
    trt.plan = None
    with pytest.raises(EnvironmentMissing, match=r"10\.13\.3 could not build the engine"):
        build(model, tmp_path, trt=trt, gpu=GPU)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_named(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file, not a folder")
    with pytest.raises(EnvironmentMissing, match=r"cache cannot be written"):
        build(model, tmp_path / "cache", trt=version_11(), gpu=GPU)


@pytest.fixture
def stored(run_of_training: TrainingRun, tmp_path: Path) -> StoredAgent:
    store = Store(tmp_path / "store")
    return store.load(publish_run(run_of_training, store)[0].id)


def test_an_engine_that_decides_the_same_stays(
    stored: StoredAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "open_trt", lambda model, *_: OnnxEngine(model))
    paths, parity = build_engines(stored, tmp_path / "cache", trt=version_11(), gpu=GPU)
    assert [path.is_file() for path in paths] == [True, True]
    assert (parity.pictures, parity.same_rung) == (64, 1.0)


def test_an_engine_that_decides_otherwise_is_deleted(
    stored: StoredAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(OnnxEngine):
        def run(self, images: NDArray[np.uint8]) -> Scores:
            return super().run(255 - images)

    monkeypatch.setattr(tensorrt, "open_trt", lambda model, *_: Wrong(model))
    with pytest.raises(GateFailed, match=r"pictures \[.*differ"):
        build_engines(stored, tmp_path / "cache", trt=version_11(), gpu=GPU)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".bin"]


@pytest.mark.slow
def test_the_real_tensorrt_builds_engines_that_compute_the_same(
    run_of_training: TrainingRun, tmp_path: Path
) -> None:
    try:
        trt, gpu = requirements()
    except EnvironmentMissing as error:
        pytest.skip(str(error))
    model = fuse(run_of_training.prefix, run_of_training.head, PAPER)
    for batch in (1, 4):
        build(model, tmp_path, trt=trt, gpu=gpu, batch=batch)
    engine = open_trt(model, tmp_path, 4)
    got = engine.run(run_of_training.inputs[:9])
    expected = run_of_training.expected.q_values[:9]
    np.testing.assert_allclose(got.q_values, expected, atol=0.01)
