"""One writer at a time: an advisory lock on one file, with a deadline.

Readers take no lock, because every write is a rename. The kernel drops the lock of a process that
dies, so nothing is ever left locked. Where there is no ``flock`` the lock does nothing: a store is
then to be written by one process only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from model_store.errors import EnvironmentMissing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["exclusive"]

#: Short, for who waits must find the moment between two writes of somebody busy.
_RETRY_S = 0.002


@contextlib.contextmanager
def exclusive(
    path: Path,
    *,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock file ``path`` for the duration of the block.

    Raises:
        EnvironmentMissing: another writer held it until the deadline.
        OSError: the lock file cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            _wait(descriptor, path.parent, timeout_s, clock, sleep)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # also unlocks


def _wait(
    descriptor: int,
    folder: Path,
    timeout_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    deadline = clock() + timeout_s
    while not _taken(descriptor):
        if clock() >= deadline:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace") or "pid unknown"
            raise EnvironmentMissing(
                f"Another process ({holder}) has been writing to {folder} for more than "
                f"{timeout_s:g} s; wait until it has ended, or end it."
            )
        sleep(_RETRY_S)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
