"""Failures that must not reach the caller: counted always, logged once, raised only if strict."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

__all__ = ["Faults"]

_log = logging.getLogger("edge_sdk")


class Faults:
    """Counts failures by the part that failed; safe to use from several threads.

    Args:
        strict: :meth:`check` raises the first failure instead of forgetting it.
        told: called with the part at every failure.
    """

    def __init__(
        self, *, strict: bool = False, told: Callable[[str], object] | None = None
    ) -> None:
        self._strict = strict
        self._told = told
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()  # guarded by _lock
        self._logged: set[tuple[str, type]] = set()  # guarded by _lock
        self._pending: Exception | None = None  # guarded by _lock

    def note(self, part: str, error: Exception) -> None:
        """Count a failure of ``part``, and log it if it is the first of its kind."""
        with self._lock:
            self._counts[part] += 1
            self._pending = self._pending or error
        self.log_once(part, error)
        if self._told is not None:
            self._told(part)

    def guarded(self, part: str, call: Callable[..., object], *arguments: Any) -> None:
        """Call hooks, disks and children, which must not stop the host; note what they raise."""
        try:
            call(*arguments)
        except Exception as error:
            self.note(part, error)

    def log_once(self, part: str, error: Exception) -> None:
        """Log a failure with its traceback, unless one of its kind was logged before."""
        kind = (part, type(error))
        with self._lock:
            known = kind in self._logged
            self._logged.add(kind)
        if not known:
            _log.warning(
                "failure part=%s error=%r, counted only from now on", part, error, exc_info=error
            )

    def check(self) -> None:
        """Raise the first failure since the last check, if strict."""
        with self._lock:
            error, self._pending = self._pending, None
        if self._strict and error is not None:
            raise error

    def counts(self) -> dict[str, int]:
        """Return how often each part failed."""
        with self._lock:
            return dict(self._counts)
