"""What Pillow saves, as bytes, while other threads run.

Pillow gives up Python's lock only where it encodes to a file descriptor: into a ``BytesIO`` a large
progressive file stops every thread of the host for as long as it takes. So each thread has a file
in memory, where the system knows such files (Linux); elsewhere it is a ``BytesIO``.

    saved(lambda file: image.save(file, "JPEG"))
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from typing import IO, Any, cast

__all__ = ["saved"]

#: Bytes that a thread's file keeps for the next picture; fresh pages cost a tenth of an encode.
_KEPT = 1 << 20


class _Scratch:
    """As much of a binary file as Pillow needs; goes with its thread."""

    def __init__(self) -> None:
        self.owner = os.getpid()  # a forked child would write to the very same file
        self._descriptor = os.memfd_create("encoding")

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "_descriptor"):
            close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def flush(self) -> None:
        """Do nothing; nothing is held back."""

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def taken(self) -> bytes:
        """Return what was written since :meth:`begin`."""
        size = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        data = os.pread(self._descriptor, size, 0)
        if size > _KEPT:
            os.ftruncate(self._descriptor, 0)
        return data

    def begin(self) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)


_LOCAL = threading.local()


def saved(save: Callable[[IO[bytes]], Any]) -> bytes:
    """Return what ``save`` writes to the file that it is given."""
    scratch = _scratch()
    if scratch is None:
        buffer = io.BytesIO()
        save(buffer)
        return buffer.getvalue()
    scratch.begin()
    save(cast(IO[bytes], scratch))
    return scratch.taken()


def _scratch() -> _Scratch | None:
    mine: _Scratch | None = getattr(_LOCAL, "scratch", None)
    if mine is None or mine.owner != os.getpid():
        try:
            mine = _LOCAL.scratch = _Scratch()
        except (AttributeError, OSError):  # no such system call, or no descriptor is left
            return None
    return mine
