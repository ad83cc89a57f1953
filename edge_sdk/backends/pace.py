"""What keeps a client from harming a service and its own bill: pace, circuit and retry quota."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_sdk.errors import BackendQuota, BackendUnavailable
from model_store.errors import BackendError

__all__ = ["Circuit", "CircuitOpen", "Pace", "RetryQuota"]


class Pace:
    """Requests a second: unlimited until the service throttles, then halved, then restored.

    Args:
        clock: monotonic seconds.
        ceiling: requests a second that the account allows, or None.
    """

    _FLOOR = 0.2
    #: Requests a second that every second without throttling gives back.
    _STEP = 0.5

    def __init__(self, clock: Callable[[], float], ceiling: float | None) -> None:
        self._clock, self._ceiling = clock, ceiling
        self._lock = threading.Lock()  # guards what follows
        self._rate = ceiling
        self._next = self._changed = clock()
        self._recent: list[float] = []  # when the last second's requests left

    def turn(self) -> float:
        """Take the next turn and return the seconds until then."""
        with self._lock:
            now = self._clock()
            leaves = now if self._rate is None else max(now, self._next)
            if self._rate is not None:
                self._next = leaves + 1.0 / self._rate
            self._recent = [left for left in self._recent if left > now - 1.0] + [leaves]
            return leaves - now

    def halve(self) -> None:
        """Slow down; once a second, because one burst is refused many times."""
        with self._lock:
            now = self._clock()
            if self._rate != self._ceiling and now - self._changed < 1.0:
                return
            rate = self._rate or float(len(self._recent))
            self._rate, self._changed = max(rate / 2.0, self._FLOOR), now
            self._next = max(self._next, now + 1.0 / self._rate)

    def restore(self) -> None:
        """Speed up again, by the time that has passed in peace."""
        with self._lock:
            if self._rate in (None, self._ceiling):
                return
            now = self._clock()
            rate = (self._rate or 0.0) + self._STEP * min(now - self._changed, 1.0)
            self._rate = rate if self._ceiling is None else min(rate, self._ceiling)
            self._changed = now


class CircuitOpen(BackendUnavailable):
    """Nothing was sent, because the service has failed many times in a row."""

    transient = False


class Circuit:
    """Refuses to send while the service is known to fail; lets one attempt through to find out.

    Args:
        service: the name that messages use.
        failures: failed attempts in a row that open it.
        clock: monotonic seconds.
    """

    def __init__(self, service: str, failures: int, clock: Callable[[], float]) -> None:
        self._service, self._limit, self._clock = service, failures, clock
        self._lock = threading.Lock()  # guards what follows
        self._failures = 0
        self._until = self._pause = 0.0
        self._reason: BackendError | None = None  # set while it is open

    def check(self) -> None:
        """Return if an attempt may be made.

        Raises:
            BackendQuota, CircuitOpen: not now; the message says for how long.
        """
        with self._lock:
            if self._reason is None:
                return
            now = self._clock()
            if now >= self._until:
                self._until = now + self._pause  # for the others, while one finds out
                return
            wait = f"Nothing is sent to {self._service} for another {self._until - now:.0f} s"
            if isinstance(self._reason, BackendQuota):
                raise BackendQuota(f"{self._reason} {wait}.", code=self._reason.code)
            raise CircuitOpen(
                f"{wait}, because it failed {self._failures} times in a row, the last time so: "
                f"{self._reason}"
            )

    def fail(self, error: BackendError, pause: float) -> None:
        """Count a failure; the last of too many opens the circuit for ``pause`` seconds."""
        with self._lock:
            self._failures += 1
            many = self._failures >= self._limit
        if many:
            self.open(error, pause)

    def open(self, error: BackendError, pause: float) -> None:
        """Let nothing through for ``pause`` seconds, because of ``error``."""
        with self._lock:
            self._reason, self._pause, self._until = error, pause, self._clock() + pause

    def close(self) -> None:
        """Note that the service works."""
        with self._lock:
            self._failures, self._reason = 0, None


class RetryQuota:
    """Retries that all calls share; calls that succeed earn them back."""

    COST = 5
    _CAPACITY = 500

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = self._CAPACITY  # guarded by _lock

    def take(self) -> bool:
        """Pay for one retry; False if the quota is spent."""
        with self._lock:
            if self._left < self.COST:
                return False
            self._left -= self.COST
            return True

    def give(self, amount: int) -> None:
        """Earn ``amount`` back."""
        with self._lock:
            self._left = min(self._left + amount, self._CAPACITY)
