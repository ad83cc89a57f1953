"""Which NVIDIA GPU is visible, asked from the driver itself: no torch, no TensorRT, no subprocess.

Uses the CUDA driver API (https://docs.nvidia.com/cuda/cuda-driver-api/) through ctypes.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

__all__ = ["Gpu", "load_driver", "visible_gpu"]

_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MULTIPROCESSOR_COUNT = 16
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """What makes an engine built for this GPU unportable.

    Attributes:
        name: as the driver says it.
        compute_capability: as in ``9.0``.
        multiprocessors: number of them; two cards of one name can differ.
        driver: CUDA version the driver supports, as in ``13000``.
    """

    name: str
    compute_capability: str
    multiprocessors: int
    driver: int


def visible_gpu(driver: Any = None) -> Gpu | None:
    """Return the first visible GPU, or None without driver or device.

    Args:
        driver: the loaded driver library; None loads the system's.
    """
    driver = driver or load_driver()
    if driver is None or driver.cuInit(0) != 0:
        return None
    count, device = ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    if driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    name, version = ctypes.create_string_buffer(256), ctypes.c_int(0)
    driver.cuDeviceGetName(name, 256, device)
    driver.cuDriverGetVersion(ctypes.byref(version))
    major = _attribute(driver, device, _CAPABILITY_MAJOR)
    minor = _attribute(driver, device, _CAPABILITY_MINOR)
    processors = _attribute(driver, device, _MULTIPROCESSOR_COUNT)
    return Gpu(name.value.decode(), f"{major}.{minor}", processors, version.value)


def _attribute(driver: Any, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), number, device)
    return value.value


def load_driver() -> Any:
    """Return the CUDA driver library, or None where there is none."""
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
