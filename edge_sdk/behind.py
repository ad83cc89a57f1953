"""Where estimation, logging and re-training run: behind the answer, never before it.

:class:`Worker` is one lazy thread with a bounded queue: what finds no place is refused, which its
caller counts. :class:`Inline` runs everything at once, on the calling thread, so that a stream of
pictures gives the same events in the same order every time; tests and shells want that.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["Behind", "Inline", "Task", "Worker"]

Task = Callable[[], None]

#: Tasks that may wait.
_MOST = 64
#: Bytes of pictures that may wait: four of 1920 by 1080 pixels.
_MOST_BYTES = 32 * 1024 * 1024


class Behind(Protocol):
    """Runs tasks in the order in which they came."""

    #: Whether a task has run when ``submit`` returns.
    inline: bool

    def submit(self, task: Task, *, weight: int = 0) -> bool:
        """Take a task, or return False where there is no place; see :class:`Worker`."""

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if that took longer than ``timeout`` seconds."""

    def close(self, timeout: float | None = None) -> int:
        """Do what is left, for at most ``timeout`` seconds; return how many tasks were given up."""


class Inline:
    """Runs a task at once."""

    inline = True

    def submit(self, task: Task, *, weight: int = 0) -> bool:
        """Run the task; always True."""
        task()
        return True

    def flush(self, timeout: float | None = None) -> bool:
        """Return True: nothing ever waits."""
        return True

    def close(self, timeout: float | None = None) -> int:
        """Return 0: nothing ever waits."""
        return 0


class Worker:
    """One daemon thread that starts with the first task; safe to use from several threads.

    Args:
        on_error: told what a task raised; the thread goes on.
        name: of the thread.
        most: tasks that may wait.
        most_bytes: weight that may wait; a single heavier task is taken while nothing else waits.
    """

    inline = False

    def __init__(
        self,
        on_error: Callable[[Exception], None],
        *,
        name: str = "adacompress-behind",
        most: int = _MOST,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._on_error = on_error
        self._name = name
        self._most, self._most_bytes = most, most_bytes
        self._changed = threading.Condition()
        self._tasks: deque[tuple[Task, int]] = deque()  # guarded by _changed
        self._weight = 0  # likewise
        self._busy = False  # likewise
        self._closed = False  # likewise
        self._thread: threading.Thread | None = None  # likewise

    def submit(self, task: Task, *, weight: int = 0) -> bool:
        """Take a task, or return False where there is no place.

        Args:
            task: what to do.
            weight: bytes that it keeps in memory until it is done.
        """
        with self._changed:
            if self._closed or not self._fits(weight):
                return False
            self._tasks.append((task, weight))
            self._weight += weight
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if that took longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout)

    def close(self, timeout: float | None = None) -> int:
        """Do what is left, for at most ``timeout`` seconds; return how many tasks were given up."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self.flush(timeout)
        with self._changed:
            self._closed = True
            left = len(self._tasks) + self._busy
            self._tasks.clear()
            self._weight = 0
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return left

    def _fits(self, weight: int) -> bool:
        if not self._tasks:
            return True
        return len(self._tasks) < self._most and self._weight + weight <= self._most_bytes

    def _idle(self) -> bool:
        return not self._tasks and not self._busy

    def _run(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except Exception as error:  # one picture's trouble is not the next one's
                self._on_error(error)
            finally:
                del task  # it may hold a picture
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next(self) -> Task | None:
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or self._closed)
            if not self._tasks:
                return None
            task, weight = self._tasks.popleft()
            self._weight -= weight
            self._busy = True
            return task
