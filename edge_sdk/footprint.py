"""Memory that nobody uses goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes

__all__ = ["give_back"]


def give_back() -> None:
    """Return freed memory, where the C library can; building an engine leaves 20 to 40 MB of it."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # only glibc has such a call
        ctypes.CDLL(None).malloc_trim(0)
