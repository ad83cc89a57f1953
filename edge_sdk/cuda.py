"""Device memory and one stream, from the CUDA driver itself: all that running an engine takes.

Uses the CUDA driver API (https://docs.nvidia.com/cuda/cuda-driver-api/) through ctypes, in the
device's primary context, which is the one that TensorRT uses. No package is needed for it.
"""

from __future__ import annotations

import ctypes
from typing import Any

from numpy.typing import NDArray

from edge_sdk.errors import EngineError

__all__ = ["Cuda"]

_Array = NDArray[Any]


class Cuda:
    """The first GPU.

    Args:
        driver: the loaded driver library, see ``edge_sdk.gpu``.

    Raises:
        EngineError: the driver refuses a call; the message has its number.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._context = ctypes.c_void_p()
        device, stream = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.use()
        self._call("cuStreamCreate", ctypes.byref(stream), 0)
        #: Handle of the stream that everything is queued on.
        self.stream = int(stream.value or 0)

    def use(self) -> None:
        """Make the GPU the calling thread's; every thread has to, once before its first call."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` new bytes of device memory."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return int(pointer.value)

    def upload(self, pointer: int, array: _Array) -> None:
        """Queue the copy of a contiguous array to the device."""
        self._copy("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(pointer), _address(array), array)

    def download(self, array: _Array, pointer: int) -> None:
        """Queue the copy from the device into a contiguous array."""
        self._copy("cuMemcpyDtoHAsync_v2", _address(array), ctypes.c_uint64(pointer), array)

    def wait(self) -> None:
        """Return when everything that was queued is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def _copy(self, name: str, to: Any, source: Any, array: _Array) -> None:
        size, stream = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(self.stream)
        self._call(name, to, source, size, stream)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            raise EngineError(f"The CUDA driver's {name} failed with {status}; see its log.")


def _address(array: _Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
