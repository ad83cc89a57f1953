"""A service's rate limit: a token bucket that holds one second's worth."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Bucket"]


class Bucket:
    """Lets ``rate`` uploads a second through, and a burst of as many; safe to share by threads.

    Args:
        rate: uploads a second, more than 0.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._size = max(1.0, rate)
        self._lock = threading.Lock()  # guards what follows
        self._held, self._filled = self._size, clock()

    def take(self) -> bool:
        """Take one token; False if there is none, and then nothing is taken."""
        with self._lock:
            now = self._clock()
            self._held = min(self._size, self._held + (now - self._filled) * self._rate)
            self._filled = now
            if self._held < 1.0:
                return False
            self._held -= 1.0
            return True
