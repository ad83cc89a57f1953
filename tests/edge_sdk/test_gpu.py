"""Asking the driver for a GPU: against a driver of our own, and against the machine's."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from edge_sdk.gpu import Gpu, visible_gpu

ATTRIBUTES = {16: 132, 75: 9, 76: 0}


class Driver:
    """The seven entry points that are used; every one of them can be told to fail."""

    def __init__(self, devices: int = 1, failing: str = "") -> None:
        self.devices, self.failing, self.asked = devices, failing, 0

    def _status(self, name: str) -> int:
        return 100 if name == self.failing else 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self._status("cuInit")

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return self._status("cuDeviceGetCount")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        assert ordinal == 0
        device._obj.value = 7  # a handle, not the ordinal
        return self._status("cuDeviceGet")

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        assert device.value == 7
        assert size == len(name)
        name.value = b"NVIDIA Imaginary 1000"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13000
        return 0

    def cuDeviceGetAttribute(  # noqa: N802
        self, value: Any, number: int, device: ctypes.c_int
    ) -> int:
        assert device.value == 7
        value._obj.value = ATTRIBUTES[number]
        return 0


def test_what_makes_an_engine_unportable_is_read_from_the_driver() -> None:
    assert visible_gpu(Driver()) == Gpu("NVIDIA Imaginary 1000", "9.0", 132, 13000)


def test_no_device_is_no_gpu() -> None:
    assert visible_gpu(Driver(devices=0)) is None


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGetCount", "cuDeviceGet"])
def test_a_driver_that_fails_is_no_gpu(call: str) -> None:
    assert visible_gpu(Driver(failing=call)) is None


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert visible_gpu() is None


def test_the_gpu_of_this_machine_is_described() -> None:
    gpu = visible_gpu()
    if gpu is None:
        pytest.skip("no NVIDIA GPU is visible here")
    major, minor = map(int, gpu.compute_capability.split("."))
    assert gpu.name
    assert (major, minor) >= (5, 0)
    assert gpu.multiprocessors > 0
    assert gpu.driver >= 11000
