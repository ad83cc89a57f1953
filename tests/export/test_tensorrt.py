"""Building engines against a stand-in of TensorRT's API, and against the real one where it is."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edge_sdk.gpu import Gpu
from edge_sdk.ladder import PAPER
from export import tensorrt
from export.fuse import fuse
from export.run import TrainingRun
from export.tensorrt import WORKSPACE, build, cache_key, requirements
from model_store.errors import EnvironmentMissing
from model_store.files import sha256_bytes

GPU = Gpu("NVIDIA Imaginary 1000", "9.0", 132, 13000)
MODEL = b"an onnx model"


class Flags10(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


class Flags11(IntEnum):
    EXPLICIT_BATCH = 0


class FakeTensorRT:
    """What the builder's documentation promises of ``import tensorrt``, as far as it is used."""

    class MemoryPoolType(IntEnum):
        WORKSPACE = 0

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
            set_memory_pool_limit=lambda pool, size: self._note("workspace", None, (pool, size))
        )
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
def test_an_engine_is_built_strongly_typed(trt: FakeTensorRT, flags: int, tmp_path: Path) -> None:
    path = build(MODEL, tmp_path, trt=trt, gpu=GPU)
    assert path.read_bytes() == b"a plan"
    assert trt.calls == [
        ("flags", flags),
        ("parse", MODEL),
        ("workspace", (trt.MemoryPoolType.WORKSPACE, WORKSPACE)),
        ("build", None),
    ]


def test_the_engines_facts_lie_beside_it(tmp_path: Path) -> None:
    path = build(MODEL, tmp_path, trt=version_11(), gpu=GPU)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts == {
        "sha256": sha256_bytes(b"a plan"),
        "onnx_sha256": sha256_bytes(MODEL),
        "tensorrt": "11.4.0",
        "gpu": {
            "name": "NVIDIA Imaginary 1000",
            "compute_capability": "9.0",
            "multiprocessors": 132,
            "driver": 13000,
        },
    }


def test_a_cached_engine_is_not_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trt = version_11()
    with caplog.at_level(logging.INFO, "export"):
        first = build(MODEL, tmp_path, trt=trt, gpu=GPU)
        again = build(MODEL, tmp_path, trt=trt, gpu=GPU)
    assert again == first
    assert [name for name, _ in trt.calls].count("build") == 1
    assert caplog.text.count("this can take minutes") == 1


def test_whatever_makes_an_engine_unportable_changes_its_key() -> None:
    keys = {
        cache_key(MODEL, "11.4.0", GPU),
        cache_key(MODEL + b".", "11.4.0", GPU),
        cache_key(MODEL, "11.4.1", GPU),
        cache_key(MODEL, "11.4.0", replace(GPU, name="NVIDIA Imaginary 1000 Ti")),
        cache_key(MODEL, "11.4.0", replace(GPU, compute_capability="10.0")),
        cache_key(MODEL, "11.4.0", replace(GPU, multiprocessors=114)),
        cache_key(MODEL, "11.4.0", replace(GPU, driver=13010)),
    }
    assert len(keys) == 7
    assert cache_key(MODEL, "11.4.0", replace(GPU)) in keys


def test_the_settings_of_the_builder_change_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_key(MODEL, "11.4.0", GPU)
    monkeypatch.setattr(tensorrt, "WORKSPACE", 2 * WORKSPACE)
    assert cache_key(MODEL, "11.4.0", GPU) != before


def test_a_graph_that_cannot_be_parsed_is_reported_with_every_reason(tmp_path: Path) -> None:
    trt = version_11()
    trt.parse_errors = ["no importer for Gelu", "invalid node"]
    with pytest.raises(EnvironmentMissing, match=r"11\.4\.0 cannot.*for Gelu; invalid node"):
        build(MODEL, tmp_path, trt=trt, gpu=GPU)
    assert not list(tmp_path.iterdir())


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    trt = version_10()
    trt.plan = None
    with pytest.raises(EnvironmentMissing, match=r"10\.13\.3 could not build the engine"):
        build(MODEL, tmp_path, trt=trt, gpu=GPU)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file, not a folder")
    with pytest.raises(EnvironmentMissing, match=r"cache cannot be written"):
        build(MODEL, tmp_path / "cache", trt=version_11(), gpu=GPU)


def test_without_a_gpu_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "visible_gpu", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(EnvironmentMissing, match="no NVIDIA GPU is visible"):
        requirements()


def test_without_tensorrt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "visible_gpu", lambda: GPU)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EnvironmentMissing, match=r"pip install adacompress\[trt\]"):
        requirements()


def test_with_both_both_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tensorrt")
    monkeypatch.setattr(tensorrt, "visible_gpu", lambda: GPU)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert requirements() == (module, GPU)


@pytest.mark.slow
def test_the_real_tensorrt_builds_an_engine_that_it_can_load(
    run_of_training: TrainingRun, tmp_path: Path
) -> None:
    try:
        trt, gpu = requirements()
    except EnvironmentMissing as error:
        pytest.skip(str(error))
    model = fuse(run_of_training.prefix, run_of_training.head, PAPER)
    path = build(model, tmp_path, trt=trt, gpu=gpu)
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    assert names == {"image", "features", "q_values", "agreement", "size_ratio"}
