"""Run what waits through the model: one worker per core, each takes a fair share of the queue.

Nothing is held back to fill a batch. A request waits for its own result; what its client no longer
wants is dropped before the model sees it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from edge_sdk.backends.base import Label
from edge_sdk.errors import ClosedError
from training.cloud.models import Model, codecs_of

__all__ = ["MAX_BATCH", "Abandoned", "Batcher", "Result"]

#: Pictures that a worker takes at once. Two cost some 4 % less each than one alone; four or eight
#: cost no less, take more memory, and make the first of them wait for the last.
MAX_BATCH = 2

#: Seconds that closing waits for the models to return.
_PATIENCE_S = 5.0

_log = logging.getLogger(__name__)


class Abandoned(Exception):
    """Nobody waits for the result any more, so the model was not asked."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a model said about one picture, which one, and the codecs that it reads."""

    labels: tuple[Label, ...]
    model: str
    codecs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Waiting:
    jpeg: bytes
    wanted: Callable[[], bool]
    result: Future[Result] = field(default_factory=Future)


class Batcher:
    """Answers pictures from entering the ``with`` block to leaving it; its threads start then.

    Args:
        current: the model that answers from now on; asked once per batch.
        workers: threads that run models; default is the number of cores that may be used.
    """

    def __init__(self, current: Callable[[], Model], workers: int | None = None) -> None:
        self._current = current
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()  # guarded by _changed
        self._closed = True  # guarded by _changed
        self._threads = [
            threading.Thread(target=self._work, name=f"local-cloud-model-{i}", daemon=True)
            for i in range(workers or _cores())
        ]

    def __enter__(self) -> Self:
        self._closed = False
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            left = [*self._queue]
            self._queue.clear()
            self._changed.notify_all()
        for waiting in left:
            waiting.result.set_exception(ClosedError("The local cloud stops."))
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    def answer(self, jpeg: bytes, wanted: Callable[[], bool] = lambda: True) -> Result:
        """Wait for the labels of one picture.

        Args:
            jpeg: the picture.
            wanted: asked right before the model runs; False drops the picture.

        Raises:
            ImageError: the bytes are no picture.
            Abandoned: it was not wanted any more.
            ClosedError: the block was left before its turn.
        """
        waiting = _Waiting(jpeg, wanted)
        with self._changed:
            if self._closed:
                raise ClosedError("The local cloud stops.")
            self._queue.append(waiting)
            self._changed.notify()
        return waiting.result.result()

    def _work(self) -> None:
        while batch := self._next():
            wanted = [waiting for waiting in batch if self._still(waiting)]
            if wanted:
                self._run(wanted)

    def _next(self) -> Sequence[_Waiting]:
        """Return this worker's share of what waits; nothing means that it is all over."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            share = -(-len(self._queue) // len(self._threads))
            return [self._queue.popleft() for _ in range(min(share, MAX_BATCH))]

    def _still(self, waiting: _Waiting) -> bool:
        if waiting.wanted():
            return True
        waiting.result.set_exception(Abandoned())
        return False

    def _run(self, batch: Sequence[_Waiting]) -> None:
        model = self._current()
        answers: Sequence[tuple[Label, ...] | Exception]
        try:
            answers = model.answer_many([waiting.jpeg for waiting in batch])
        except Exception as error:  # a model's fault must end neither the thread nor the server
            _log.exception("event=model_failed model=%s", model.version)
            answers = [error] * len(batch)
        for waiting, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                waiting.result.set_exception(answer)
            else:
                waiting.result.set_result(Result(answer, model.version, codecs_of(model)))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not everywhere; it respects what a container allows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
