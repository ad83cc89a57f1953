"""End with whoever started us: a child watches the pipe on its standard input.

The starter keeps the other end open and says nothing. When it ends, however that happens, the pipe
ends too. A terminal, a file or ``/dev/null`` on standard input means that nobody watches over us.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable

__all__ = ["when_parent_ends"]


def when_parent_ends(told: Callable[[], object]) -> None:
    """Call ``told`` from another thread when the pipe on standard input ends, if it is a pipe."""
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # no standard input, a replaced or a closed one
        return
    if _is_pipe(descriptor):
        threading.Thread(
            target=_watch, args=(descriptor, told), name="parent-watch", daemon=True
        ).start()


def _is_pipe(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _watch(descriptor: int, told: Callable[[], object]) -> None:
    # os.read, not sys.stdin: a thread inside sys.stdin breaks the interpreter's shutdown.
    while os.read(descriptor, 1024):
        pass
    told()
