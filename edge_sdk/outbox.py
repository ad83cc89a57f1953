"""Submitted pictures on their way: a bounded queue, and what happens when it is full.

Two kinds of entries have bounds of their own: those whose picture is in memory, and those whose
picture waits on disk (``edge_sdk.spool``). An entry counts from ``put`` until ``done``, so what is
being uploaded counts too.

Reasons of drops: ``queue-full``; ``too-large``, it alone exceeds the bound; ``expired``, it was on
disk for too long; ``closed``, the client was closed before its turn; ``unreadable``, its file on
disk was lost.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from edge_sdk.stats import Result

__all__ = ["POLICIES", "Bounds", "Entry", "Outbox"]

#: What ``put`` does where there is no place.
POLICIES = ("block", "drop-new", "drop-oldest")


@dataclass(eq=False, slots=True)
class Entry:
    """One submitted picture.

    Attributes:
        key: names it; its answer is found by it.
        image: what was submitted, or None while it is on disk.
        weight: bytes that it occupies there or here.
        future: for its result.
    """

    key: str
    image: Any
    weight: int
    future: Future[Result] = field(default_factory=Future)

    @property
    def stored(self) -> bool:
        """Whether the picture is on disk."""
        return self.image is None


@dataclass(slots=True)
class Bounds:
    """How much may be on its way, and how much is."""

    most: float
    most_bytes: float
    count: int = 0
    bytes: int = 0

    def fits(self, weight: int) -> bool:
        """Tell whether there is place for one more."""
        return self.count < self.most and self.bytes + weight <= self.most_bytes

    def add(self, weight: int, sign: int = 1) -> None:
        """Count one more, or one fewer."""
        self.count += sign
        self.bytes += sign * weight


class Outbox:
    """A queue for several threads on either side.

    Args:
        memory: bounds of entries in memory.
        disk: bounds of entries on disk.
        policy: one of ``POLICIES``.
    """

    def __init__(self, memory: Bounds, disk: Bounds, policy: str) -> None:
        self._changed = threading.Condition()
        self._memory, self._disk = memory, disk  # guarded by _changed
        self._policy = policy
        self._waiting: deque[Entry] = deque()  # guarded by _changed
        self._closed = False  # likewise
        self._resume_at = 0.0  # likewise; monotonic seconds

    def __len__(self) -> int:
        """Return how many entries are on their way."""
        with self._changed:
            return self._memory.count + self._disk.count

    @property
    def paused(self) -> bool:
        """Whether nothing is handed out for a while."""
        with self._changed:
            return self._resume_at > time.monotonic()

    def put(
        self, entry: Entry, timeout: float | None = None, save: Callable[[], None] | None = None
    ) -> list[tuple[Entry, str]]:
        """Add an entry, after ``save`` when there is place for it.

        Args:
            entry: what is submitted.
            timeout: seconds to wait for a place at most, where the policy is ``block``.
            save: makes the entry durable before anybody can take it; what it raises is passed on,
                and the entry is not added.

        Returns:
            What was dropped for it, which may be the entry itself, with reasons.
        """
        with self._changed:
            bounds = self._bounds(entry)
            if entry.weight > bounds.most_bytes:
                return [(entry, "too-large")]
            if self._policy == "block":
                self._changed.wait_for(lambda: self._closed or bounds.fits(entry.weight), timeout)
            dropped = self._make_room(entry) if self._policy == "drop-oldest" else []
            if self._closed:
                return [*dropped, (entry, "closed")]
            if not bounds.fits(entry.weight):
                return [*dropped, (entry, "queue-full")]
            if save is not None:
                save()
            bounds.add(entry.weight)
            self._waiting.append(entry)
            self._changed.notify_all()
            return dropped

    def take(self) -> Entry | None:
        """Wait for an entry; None once the outbox is closed."""
        with self._changed:
            while not self._closed:
                pause = self._resume_at - time.monotonic()
                if self._waiting and pause <= 0:
                    return self._waiting.popleft()
                self._changed.wait(pause if self._waiting else None)
            return None

    def done(self, entry: Entry) -> None:
        """Free the place of an entry that was taken."""
        with self._changed:
            self._bounds(entry).add(entry.weight, -1)
            self._changed.notify_all()

    def back(self, entry: Entry, pause_s: float) -> bool:
        """Put an entry that was taken to the front again, and hand out nothing for a while.

        Returns:
            Whether that was possible; False once the outbox is closed.
        """
        with self._changed:
            if self._closed:
                return False
            self._waiting.appendleft(entry)
            self._resume_at = time.monotonic() + pause_s
            self._changed.notify_all()
            return True

    def resume(self) -> None:
        """End a pause: something got through."""
        with self._changed:
            self._resume_at = 0.0
            self._changed.notify_all()

    def withdraw(self, keys: set[str]) -> list[Entry]:
        """Take out the waiting entries on disk that have these keys."""
        with self._changed:
            out = [entry for entry in self._waiting if entry.stored and entry.key in keys]
            self._remove(out)
            return out

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is on its way; False if that took longer than ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._memory.count + self._disk.count == 0, timeout
            )

    def close(self) -> list[Entry]:
        """Hand out nothing any more, and return what was waiting."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._remove(left)
            return left

    def _bounds(self, entry: Entry) -> Bounds:
        return self._disk if entry.stored else self._memory

    def _make_room(self, new: Entry) -> list[tuple[Entry, str]]:
        bounds, out = self._bounds(new), []
        count, size = bounds.count, bounds.bytes
        for entry in self._waiting:
            if count < bounds.most and size + new.weight <= bounds.most_bytes:
                break
            if entry.stored == new.stored:
                out.append(entry)
                count, size = count - 1, size - entry.weight
        self._remove(out)
        return [(entry, "queue-full") for entry in out]

    def _remove(self, entries: list[Entry]) -> None:
        gone = {id(entry) for entry in entries}
        self._waiting = deque(entry for entry in self._waiting if id(entry) not in gone)
        for entry in entries:
            self._bounds(entry).add(entry.weight, -1)
        self._changed.notify_all()
