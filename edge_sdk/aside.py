"""A retrainer whose every method returns at once, whatever the one behind it does."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_sdk.retrain import Retrainer, RetrainRequest, RetrainResult

__all__ = ["AsideRetrainer"]

#: Seconds between two looks at a retraining.
_LOOK_S = 0.5
#: Seconds that ``close`` waits for the inner ``close``: a child gets two to end by itself.
_CLOSE_S = 5.0


class AsideRetrainer:
    """Runs another retrainer on a daemon thread, one thread a retraining.

    A retrainer may wait for a network, or hang; its caller holds the loop's lock. One that hangs
    keeps its thread, and the loop keeps serving the reference, until the client is closed.

    Args:
        inner: the retrainer; called from one thread at a time, unless it hangs.
        on_error: told what the inner ``close`` raised.
    """

    def __init__(self, inner: Retrainer, on_error: Callable[[Exception], None]) -> None:
        self._inner = inner
        self._on_error = on_error
        self._ended: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self._results: list[RetrainResult] = []  # append and pop are atomic

    def start(self, request: RetrainRequest) -> None:
        """Begin; what is still running from before is given up."""
        before, self._thread = self._thread, None
        if self._ended is not None:
            self._ended.set()
        self._results = []
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._run,
            args=(request, self._ended, self._results, before),
            name="adacompress-retrainer",
            daemon=True,
        )
        self._thread.start()

    def poll(self) -> RetrainResult | None:
        """Return the result once, None before and after."""
        return self._results.pop() if self._results else None

    def close(self) -> None:
        """Give up what is running, waiting a few seconds at most; calling it twice is fine."""
        if self._ended is not None:
            self._ended.set()
        closer = threading.Thread(target=self._close, name="adacompress-closer", daemon=True)
        closer.start()
        closer.join(_CLOSE_S)
        if self._thread is not None:
            self._thread.join(0.0 if closer.is_alive() else _LOOK_S)

    def _run(
        self,
        request: RetrainRequest,
        ended: threading.Event,
        results: list[RetrainResult],
        before: threading.Thread | None,
    ) -> None:
        if before is not None:
            before.join()
        try:
            self._inner.start(request)
            while (result := self._inner.poll()) is None:
                if ended.wait(_LOOK_S):
                    return
        except Exception as error:  # the loop makes a failed retraining of it
            result = RetrainResult(None, f"{type(error).__name__}: {error}")
        results.append(result)

    def _close(self) -> None:
        try:
            self._inner.close()
        except Exception as error:
            self._on_error(error)
