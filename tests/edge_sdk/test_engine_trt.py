"""TensorRT's runtime against stand-ins of its API and of device memory; what may be loaded."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_sdk import engine_trt
from edge_sdk.assembly import open_engine
from edge_sdk.cuda import Cuda
from edge_sdk.engine import NATIVE, OnnxEngine, open_session
from edge_sdk.engine_trt import TrtEngine, cache_key, open_trt, plan_path, requirements
from edge_sdk.errors import EngineError, ProviderMissing
from edge_sdk.gpu import Gpu
from edge_sdk.ladder import PAPER
from model_store.errors import EnvironmentMissing
from model_store.files import sha256_bytes

MakeEngine = Callable[..., bytes]
GPU = Gpu("NVIDIA Imaginary 1000", "9.0", 132, 13000)


class Memory:
    """What ``Cuda`` does, in numpy."""

    stream = 77

    def __init__(self) -> None:
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self.used = self.waited = 0

    def use(self) -> None:
        self.used += 1

    def allocate(self, size: int) -> int:
        pointer = 4096 * (1 + len(self.blocks))
        self.blocks[pointer] = np.zeros(size, np.uint8)
        return pointer

    def upload(self, pointer: int, array: NDArray[Any]) -> None:
        self.blocks[pointer][:] = array.reshape(-1).view(np.uint8)

    def download(self, array: NDArray[Any], pointer: int) -> None:
        array.reshape(-1).view(np.uint8)[:] = self.blocks[pointer]

    def wait(self) -> None:
        self.waited += 1


class TensorRT:
    """What ``tensorrt``'s documentation promises of its runtime; a plan is N and an ONNX file."""

    __version__ = "11.4.0"
    Logger = SimpleNamespace

    def __init__(self, memory: Memory) -> None:
        self.memory, self.fails = memory, False
        self.runs: list[int] = []
        self.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda *_: None})
        self.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=self._engine)

    def nptype(self, kind: str) -> Any:
        return np.dtype(kind).type

    def _engine(self, plan: bytes) -> Any:
        if not plan.startswith(b"N="):
            return None
        head, model = plan.split(b";", 1)
        count, session = int(head[2:]), open_session(model)
        shapes = {"image": (count, *session.get_inputs()[0].shape[1:])}
        shapes |= {one.name: (count, *one.shape[1:]) for one in session.get_outputs()}
        names, addresses = list(shapes), {}

        def execute(stream: int) -> bool:
            assert stream == self.memory.stream
            self.runs.append(count)
            pictures = self.memory.blocks[addresses["image"]].reshape(shapes["image"])
            rows = [session.run(names[1:], {"image": one[None]}) for one in pictures]
            for name, column in zip(names[1:], zip(*rows, strict=True), strict=True):
                self.memory.upload(addresses[name], np.concatenate(column))
            return not self.fails

        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=lambda index: names[index],
            get_tensor_shape=lambda name: shapes[name],
            get_tensor_dtype=lambda name: "uint8" if name == "image" else "float32",
            create_execution_context=lambda: SimpleNamespace(
                set_tensor_address=addresses.__setitem__, execute_async_v3=execute
            ),
        )


@pytest.fixture
def trt() -> TensorRT:
    return TensorRT(Memory())


@pytest.fixture
def device(trt: TensorRT, monkeypatch: pytest.MonkeyPatch) -> TensorRT:
    """A machine with a GPU and TensorRT."""
    monkeypatch.setattr(engine_trt, "visible_gpu", lambda: GPU)
    monkeypatch.setattr(engine_trt, "Cuda", lambda _: trt.memory)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # type: ignore[arg-type]
    return trt


def _metadata(model: bytes) -> dict[str, str]:
    return dict(open_session(model).get_modelmeta().custom_metadata_map)


def _build(model: bytes, cache: Path, trt: TensorRT, count: int = 1) -> Path:
    path = plan_path(model, cache, trt=trt, gpu=GPU, batch=count)
    path.parent.mkdir(parents=True, exist_ok=True)
    plan = f"N={count};".encode() + model
    path.write_bytes(plan)
    facts = {"sha256": sha256_bytes(plan), "metadata": _metadata(model)}
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def test_it_scores_as_the_onnx_does_in_as_few_runs_as_possible(
    make_engine: MakeEngine, trt: TensorRT
) -> None:
    model = make_engine()
    plans = {count: f"N={count};".encode() + model for count in (1, 4)}
    engine = TrtEngine(plans, _metadata(model), trt=trt, cuda=trt.memory)
    got, expected = engine.run(pictures(10)), OnnxEngine(model).run(pictures(10))
    assert trt.runs == [4, 4, 1, 1]
    assert (engine.side, engine.ladder, engine.factored) == (8, PAPER, True)
    for name in ("features", "q_values", "agreement", "size_ratio"):
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=1e-6)
    assert trt.memory.used == 1
    assert trt.memory.waited == 4


def test_a_dqn_engine_has_q_values_alone(make_engine: MakeEngine, trt: TensorRT) -> None:
    model = make_engine(factored=False)
    engine = TrtEngine({1: b"N=1;" + model}, _metadata(model), trt=trt, cuda=trt.memory)
    assert engine.run(pictures(2)).agreement is None
    assert not engine.factored


def test_wrong_input_a_failing_run_and_a_broken_plan_are_engine_errors(
    make_engine: MakeEngine, trt: TensorRT
) -> None:
    model = make_engine()
    engine = TrtEngine({1: b"N=1;" + model}, _metadata(model), trt=trt, cuda=trt.memory)
    with pytest.raises(EngineError, match="takes uint8"):
        engine.run(pictures(1)[:, :4])
    trt.fails = True
    with pytest.raises(EngineError, match="could not run"):
        engine.run(pictures(1))
    with pytest.raises(EngineError, match="cannot load the engine"):
        TrtEngine({1: b"nonsense"}, _metadata(model), trt=trt, cuda=trt.memory)


def test_an_engine_of_another_ladder_is_refused(make_engine: MakeEngine, trt: TensorRT) -> None:
    model, other = make_engine(PAPER), make_engine(PAPER[:3])
    with pytest.raises(EngineError, match="does not keep the contract"):
        TrtEngine({1: b"N=1;" + model}, _metadata(other), trt=trt, cuda=trt.memory)


def test_what_was_built_here_is_found_with_its_batch(
    make_engine: MakeEngine, device: TensorRT, tmp_path: Path
) -> None:
    model = make_engine()
    for count in (1, 4):
        _build(model, tmp_path, device, count)
    open_trt(model, tmp_path, 4).run(pictures(5))
    assert device.runs == [4, 1]
    open_trt(model, tmp_path).run(pictures(2))
    assert device.runs[2:] == [1, 1]


def test_nothing_that_was_changed_is_deserialised(
    make_engine: MakeEngine, device: TensorRT, tmp_path: Path
) -> None:
    path = _build(make_engine(), tmp_path, device)
    path.write_bytes(path.read_bytes() + b".")
    with pytest.raises(EngineError, match="was changed after it was built"):
        open_trt(make_engine(), tmp_path)
    path.with_suffix(".json").unlink()
    with pytest.raises(EngineError, match="facts cannot be read"):
        open_trt(make_engine(), tmp_path)


def test_an_engine_for_another_machine_is_not_found(
    make_engine: MakeEngine,
    device: TensorRT,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _build(make_engine(), tmp_path, device)
    monkeypatch.setattr(engine_trt, "visible_gpu", lambda: replace(GPU, multiprocessors=114))
    with pytest.raises(EnvironmentMissing, match=r"no TensorRT 11\.4\.0 engine for .*--trt"):
        open_trt(make_engine(), tmp_path)


def test_whatever_makes_an_engine_unportable_changes_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {
        cache_key(b"model", "11.4.0", GPU),
        cache_key(b"model.", "11.4.0", GPU),
        cache_key(b"model", "11.4.1", GPU),
        cache_key(b"model", "11.4.0", GPU, 4),
        cache_key(b"model", "11.4.0", replace(GPU, name="NVIDIA Imaginary 1000 Ti")),
        cache_key(b"model", "11.4.0", replace(GPU, compute_capability="10.0")),
        cache_key(b"model", "11.4.0", replace(GPU, multiprocessors=114)),
        cache_key(b"model", "11.4.0", replace(GPU, driver=13010)),
    }
    assert len(keys) == 8
    assert cache_key(b"model", "11.4.0", replace(GPU)) in keys
    monkeypatch.setattr(engine_trt, "WORKSPACE", 1)
    assert cache_key(b"model", "11.4.0", GPU) not in keys


class Agent:
    """What of a stored agent opening an engine asks for."""

    def __init__(self, **files: bytes) -> None:
        self._files = {name.replace("_", "-"): content for name, content in files.items()}
        self.manifest = SimpleNamespace(entries=lambda role: [role] * (role in self._files))

    def file(self, role: str) -> bytes:
        return self._files[role]


def test_a_device_takes_the_engine_built_from_the_form_for_tensorrt(
    make_engine: MakeEngine, device: TensorRT, tmp_path: Path
) -> None:
    fp32, quantised = make_engine(PAPER), make_engine(PAPER, factored=False)
    _build(quantised, tmp_path, device)
    agent: Any = Agent(engine=fp32, engine_qdq=quantised)
    engine = open_engine(agent, provider=NATIVE, strict=True, cache=tmp_path)
    assert (engine.provider, engine.factored) == ("TensorRT", False)


def test_without_an_engine_the_cpu_is_used_with_a_warning_or_strictly_not(
    make_engine: MakeEngine,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_trt, "visible_gpu", lambda: None)
    agent: Any = Agent(engine=make_engine())
    with caplog.at_level(logging.WARNING):
        engine = open_engine(agent, provider=NATIVE, cache=tmp_path)
    assert engine.provider == "CPUExecutionProvider"
    assert caplog.text.count("no NVIDIA GPU is visible") == 1
    with pytest.raises(ProviderMissing, match="no NVIDIA GPU is visible"):
        open_engine(agent, provider=NATIVE, strict=True, cache=tmp_path)
    with pytest.raises(ProviderMissing, match="no folder of engines"):
        open_engine(agent, provider=NATIVE, strict=True)


def test_the_cpu_takes_whole_numbers_where_there_are_some(make_engine: MakeEngine) -> None:
    agent: Any = Agent(engine=make_engine(), engine_int8=make_engine(factored=False))
    opened = open_engine(agent)
    assert not opened.factored
    assert open_engine(Agent(engine=make_engine())).factored  # type: ignore[arg-type]


def test_requirements_name_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_trt, "visible_gpu", lambda: None)
    with pytest.raises(EnvironmentMissing, match="no NVIDIA GPU is visible"):
        requirements()
    monkeypatch.setattr(engine_trt, "visible_gpu", lambda: GPU)
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # type: ignore[arg-type]
    with pytest.raises(EnvironmentMissing, match=r"pip install adacompress\[trt\]"):
        requirements()
    module = ModuleType("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert requirements() == (module, GPU)


class Driver:
    """The driver's entry points, noting what they are called with."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.calls = failing, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == "cuMemAlloc_v2":
                arguments[0]._obj.value = 0x7000
            if name == "cuMemcpyDtoHAsync_v2":
                assert (arguments[1].value, arguments[2].value) == (0x7000, 12)
            return 2 if name == self.failing else 0

        return call


def test_device_memory_is_the_drivers() -> None:
    driver = Driver()
    cuda = Cuda(driver)
    array = np.zeros(3, np.float32)
    pointer = cuda.allocate(array.nbytes)
    cuda.upload(pointer, array)
    cuda.download(array, pointer)
    cuda.wait()
    assert pointer == 0x7000
    assert driver.calls == [
        "cuInit",
        "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
        "cuCtxSetCurrent",
        "cuStreamCreate",
        "cuMemAlloc_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
        "cuStreamSynchronize",
    ]


def test_what_the_driver_refuses_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="cuStreamCreate failed with 2"):
        Cuda(Driver("cuStreamCreate"))
