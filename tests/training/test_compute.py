"""Where torch computes, and with how many threads."""

from __future__ import annotations

import onnxruntime
import pytest
import torch

from model_store.errors import EnvironmentMissing, UsageError
from training.learn.compute import CPU, CUDA_PROVIDER, device_of, mixed, one_thread, provider_of


@pytest.mark.parametrize(
    ("name", "there", "device"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_a_gpu_is_taken_where_there_is_one_unless_told_otherwise(
    name: str, there: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of(name) == torch.device(device)


def test_a_gpu_that_is_not_there_is_an_environment_that_lacks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(EnvironmentMissing, match=r"was built without CUDA\. .*--device cpu"):
        device_of("cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(EnvironmentMissing, match="finds no CUDA GPU"):
        device_of("cuda")
    with pytest.raises(UsageError, match="'tpu' is unknown; allowed are auto, cpu, cuda"):
        device_of("tpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch find a GPU, and return what ONNX Runtime offers, to be added to."""
    offered = ["CPUExecutionProvider"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    return offered


def test_features_in_fp32_are_the_gpus_and_whole_numbers_the_cpus(gpu: list[str]) -> None:
    gpu.append(CUDA_PROVIDER)
    for name, fp32 in (("auto", CUDA_PROVIDER), ("cuda", CUDA_PROVIDER), ("cpu", gpu[0])):
        assert provider_of(name, "fp32") == fp32
        assert provider_of(name, "int8") == gpu[0]


def test_a_runtime_without_cuda_is_done_without_unless_it_is_asked_for(gpu: list[str]) -> None:
    assert provider_of("auto", "fp32") == gpu[0]
    assert provider_of("cuda", "int8") == gpu[0]
    with pytest.raises(EnvironmentMissing, match="onnxruntime-gpu in place of onnxruntime"):
        provider_of("cuda", "fp32")


def test_the_cpu_computes_as_it_would_anyway() -> None:
    with mixed(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU here")
def test_a_gpu_computes_in_bfloat16_where_it_is_let() -> None:
    ones = torch.ones(2, 2, device="cuda")
    with mixed(device_of("cuda")):
        assert (ones @ ones).dtype is torch.bfloat16


def test_one_thread_is_for_the_block_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(ValueError, match="mine"), one_thread():
            raise ValueError("mine")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_it_decorates_functions() -> None:
    @one_thread()
    def threads() -> int:
        return torch.get_num_threads()

    before = torch.get_num_threads()
    assert [threads(), threads()] == [1, 1]
    assert torch.get_num_threads() == before
