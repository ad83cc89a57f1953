"""The threads behind ``EdgeClient.submit``: they take pictures, upload, and answer futures."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from edge_sdk.errors import BackendRejected, ClosedError, DroppedError
from edge_sdk.faults import Faults
from edge_sdk.outbox import Entry, Outbox
from edge_sdk.reading import Source, as_file, kept
from edge_sdk.spool import Spool
from edge_sdk.stats import Result
from model_store.errors import BackendError
from model_store.files import sha256_bytes

__all__ = ["Sender", "growing_pause"]

#: Longest pause between two tries of a link that is down, in seconds.
_PAUSE_S = 60.0

_MESSAGES = {
    "queue-full": "The queue is full; submit less often, allow more, or choose another queue_full.",
    "too-large": "The picture alone is larger than the queue may be; raise queue_bytes or "
    "spool_bytes.",
    "expired": "The picture waited on disk for longer than spool_age_s.",
    "closed": "The client was closed before the picture's turn; give close() more time.",
    "unreadable": "The picture's file on disk was lost; submit it again.",
}


def growing_pause(failures: int) -> float:
    """Return seconds to wait after so many failures in a row: 1 to 60, half of them random."""
    return min(_PAUSE_S, 2.0 ** min(failures, 6)) * (0.5 + 0.5 * random.random())


class Sender:
    """Uploads what is submitted; safe to use from several threads.

    Args:
        outbox: what is on its way.
        spool: keeps pictures on disk until they are answered, or None.
        serve: uploads one picture with its key.
        on_result: told every result before its future is.
        on_drop: told reason and key of what is given up.
        faults: takes what must not reach the host.
        threads: uploads at once.
        pause: seconds to wait after so many failures in a row, where there is a spool.
    """

    def __init__(
        self,
        outbox: Outbox,
        spool: Spool | None,
        *,
        serve: Callable[[Source, str], Result],
        on_result: Callable[[Result], object],
        on_drop: Callable[[str, str], object],
        faults: Faults,
        threads: int,
        pause: Callable[[int], float],
    ) -> None:
        self._outbox, self._spool = outbox, spool
        self._serve = serve
        self._on_result, self._on_drop = on_result, on_drop
        self._faults = faults
        self._count = threads
        self._pause = pause
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []  # guarded by _lock
        self._entries: dict[str, Entry] = {}  # on disk, by key; guarded by _lock
        self._failures = 0  # in a row; a race costs no more than a pause
        self._left: list[dict[str, Any]] = []  # guarded by _lock

    @property
    def waiting(self) -> int:
        """How many pictures are on their way."""
        return len(self._outbox)

    def take_over(self) -> None:
        """Go on with what an earlier process left on disk."""
        if self._spool is None:
            return
        for key in self._guarded(self._spool.expire) or ():
            self._on_drop("expired", key)
        self._left = self._guarded(self._spool.undelivered) or []
        waiting = self._guarded(self._spool.waiting) or []
        for key, weight in waiting:
            self._entries[key] = entry = Entry(key, None, weight)
            for dropped, reason in self._outbox.put(entry, 0.0):
                self._give_up(dropped, reason)
        if waiting or self._left:
            self._start()

    def submit(self, image: Source, key: str, timeout: float | None) -> Future[Result]:
        """See ``EdgeClient.submit``."""
        if self._spool is None:
            picture, weight = kept(image)
            return self._put(Entry(key, picture, weight), timeout)
        data = as_file(image)
        return self._put_down(self._spool, key or sha256_bytes(data)[:32], data, timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything is answered; False if that took longer than ``timeout``."""
        return self._outbox.flush(timeout)

    def close(self, timeout: float) -> None:
        """Answer what is left, for at most ``timeout`` seconds; what is on disk may stay there."""
        deadline = time.monotonic() + timeout
        if not self._outbox.paused:  # else the link is down, and waiting is of no use
            self._outbox.flush(timeout)
        for entry in self._outbox.close():
            if entry.stored:
                self._leave(entry)
            else:
                self._give_up(entry, "closed")
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._spool is not None and not any(thread.is_alive() for thread in threads):
            self._spool.close()

    def _put_down(
        self, spool: Spool, key: str, data: bytes, timeout: float | None
    ) -> Future[Result]:
        """Submit a picture that waits on disk; one that was submitted before is not paid again."""
        entry = Entry(key, None, len(data))
        with self._lock:
            known = self._entries.setdefault(key, entry)
        if known is not entry:
            return known.future
        try:
            answer = spool.answer(key)
            if answer is not None:
                self._forget(entry)
                entry.future.set_result(Result.from_dict(answer))
                return entry.future
            return self._put(entry, timeout, lambda: spool.put(key, data))
        except Exception as error:  # a full or broken disk: memory is better than nothing
            self._faults.note("spool", error)
            self._forget(entry)
            entry.image = data
            return self._put(entry, timeout)

    def _put(
        self, entry: Entry, timeout: float | None, save: Callable[[], None] | None = None
    ) -> Future[Result]:
        self._start()
        for dropped, reason in self._outbox.put(entry, timeout, save):
            self._give_up(dropped, reason)
        return entry.future

    def _start(self) -> None:
        with self._lock:
            if self._threads:
                return
            self._threads = [
                threading.Thread(target=self._run, name=f"adacompress-upload-{place}", daemon=True)
                for place in range(self._count)
            ]
            for thread in self._threads:
                thread.start()

    def _run(self) -> None:
        with self._lock:
            left, self._left = self._left, []
        for document in left:
            self._tell(Result.from_dict(document))
        while (entry := self._outbox.take()) is not None:
            try:
                self._handle(entry)
            except Exception as error:  # a mistake here must not end the thread
                self._faults.note("behind", error)
                self._outbox.done(entry)
                _fail(entry, error)
            del entry  # it may hold a picture

    def _handle(self, entry: Entry) -> None:
        future = entry.future
        if not (future.running() or future.set_running_or_notify_cancel()):
            self._finish(entry, remove=True)  # the host has cancelled it
            return
        image = self._image(entry)
        if image is None:
            self._finish(entry)
            self._give_up(entry, "unreadable")
            return
        try:
            result = self._serve(image, entry.key)
        except Exception as error:
            self._failed(entry, error)
            return
        if self._failures:
            self._failures = 0
            self._outbox.resume()
        if entry.stored and self._spool is not None:
            self._guarded(self._spool.settle, entry.key, result.to_dict())
        self._tell(result, stored=entry.stored)
        self._finish(entry)
        future.set_result(result)

    def _image(self, entry: Entry) -> Any:
        if not entry.stored or self._spool is None:
            return entry.image
        return self._guarded(self._spool.image, entry.key)

    def _failed(self, entry: Entry, error: Exception) -> None:
        waits = isinstance(error, BackendError) and not isinstance(error, BackendRejected)
        if entry.stored and waits:
            self._failures += 1
            if self._outbox.back(entry, self._pause(self._failures)):
                self._expire()
            else:
                self._leave(entry)
            return
        self._finish(entry, remove=not isinstance(error, ClosedError))
        _fail(entry, error)

    def _expire(self) -> None:
        if self._spool is not None:
            keys = self._guarded(self._spool.expire) or set()
            for entry in self._outbox.withdraw(keys):
                self._give_up(entry, "expired")

    def _tell(self, result: Result, *, stored: bool = True) -> None:
        self._on_result(result)
        if stored and self._spool is not None:
            self._guarded(self._spool.delivered, result.key)

    def _finish(self, entry: Entry, *, remove: bool = False) -> None:
        """Free an entry's place; its picture goes too if there is no answer to replace it."""
        if remove and entry.stored and self._spool is not None:
            self._guarded(self._spool.remove, entry.key)
        self._forget(entry)
        self._outbox.done(entry)

    def _give_up(self, entry: Entry, reason: str) -> None:
        if entry.stored and self._spool is not None:
            self._guarded(self._spool.remove, entry.key)
            self._forget(entry)
        self._on_drop(reason, entry.key)
        _fail(entry, DroppedError(reason, _MESSAGES[reason]))

    def _leave(self, entry: Entry) -> None:
        """Let a picture wait on disk for the next start."""
        self._forget(entry)
        _fail(entry, ClosedError("The client is closed; the picture waits on disk."))

    def _forget(self, entry: Entry) -> None:
        with self._lock:
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # a broken disk must not stop the host
            self._faults.note("spool", error)
            return None


def _fail(entry: Entry, error: Exception) -> None:
    if entry.future.done():
        return
    if entry.future.running() or entry.future.set_running_or_notify_cancel():
        entry.future.set_exception(error)
