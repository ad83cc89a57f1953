"""Ask the service about pictures at every rung of a ladder; pay only for what is not known.

    table = label_grid(views, FULL, Labeller(backend, ledger, Budget(max_calls=500)))

Every rung is encoded, because its size is wanted; rungs that decode to the same pixels share one
upload. Uploads run in a few threads of this process, where the ledger, the budget, the service's
pace and the keys are. Encoding is pure and may be left to an executor, see
``training.labels.executors``; the table is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agreement import METRICS, compare
from edge_sdk.backends.base import Label
from edge_sdk.codec import Streams
from edge_sdk.errors import BackendProtocol, BackendRejected, BackendUnavailable, ImageError
from edge_sdk.ladder import Ladder
from edge_sdk.parcel import Parcel
from model_store.errors import AdaCompressError, UsageError
from training.labels.budget import Budget
from training.labels.executors import Encoding, WorkerFailed
from training.labels.labeller import Labeller, ModelChanged
from training.labels.prepare import Attempt, Picture, Prepared
from training.labels.table import AnswerTable, Rejected

__all__ = ["Budget", "Labeller", "Picture", "label_grid"]

T = TypeVar("T")

#: Pictures begun and not finished, for each uploading thread, where there is no executor.
AHEAD = 4


def label_grid(
    pictures: Sequence[Picture],
    ladder: Ladder,
    labeller: Labeller,
    *,
    wire_size: Callable[[bytes], int] = len,
    min_score: float = 0.0,
    workers: int = 2,
    executor: Executor | None = None,
    ahead: int | None = None,
    max_failures: int = 0,
    progress: Callable[[int], object] = lambda count: None,
    codec: Streams | None = None,
) -> AnswerTable:
    """Return sizes and agreements of every picture at every rung.

    Args:
        pictures: N pictures, opened one by one in the workers.
        ladder: K rungs.
        labeller: answers.
        wire_size: request body of a file, in bytes.
        min_score: labels below it do not count.
        workers: uploads under way at once.
        executor: opens and encodes the pictures; None leaves it to the uploading threads.
        ahead: pictures begun and not finished at most, so that millions do not fill the memory.
        max_failures: pictures that the service or a worker may fail on before everything stops.
            Until then they are left out, as those are that cannot be read or are refused.
        progress: called with 1 after every picture.
        codec: of the ladder's rungs of features.

    Raises:
        BackendError, BudgetReached: asking stopped; what was paid for is in the ledger.
        UsageError: no picture can be read, or the service refused every one.
        EnvironmentMissing: the executor's workers cannot do their part.
    """
    bought, found = labeller.bought, labeller.found
    rows: dict[int, _Row] = {}
    failures = _Failures(max_failures)
    with (
        _pool(workers) as (pool, stop),
        closing(Encoding(executor, ladder, labeller.capabilities, codec)) as encoding,
    ):
        grid = _Grid(ladder, labeller, wire_size, min_score, stop)

        def begin(position: int) -> Future[_Row | AdaCompressError]:
            picture = pictures[position]
            return pool.submit(grid.row, picture.photo, encoding.begin(picture))

        for position, future in _finished(begin, len(pictures), ahead or AHEAD * workers):
            try:
                outcome = future.result()
            except CancelledError:  # another picture stopped everything; its error is on its way
                continue
            if isinstance(outcome, _Row):
                rows[position] = outcome
            else:
                failures.add(position, pictures[position].photo, outcome)
            progress(1)
    if not rows:
        raise failures.of_all(len(pictures))
    return _table(
        [rows[position] for position in sorted(rows)],
        ladder,
        calls=labeller.bought - bought,
        from_ledger=labeller.found - found,
        rejected=tuple(sorted(failures.rejected)),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    key: str
    group: str
    reference: tuple[int, int]  # bytes, wire bytes
    best: Label  # of the reference
    sizes: NDArray[np.int64]  # (K, 2): bytes and wire bytes
    agreement: NDArray[np.float64]  # (K, metrics)


@dataclass(frozen=True, slots=True)
class _Grid:
    """How every picture of a table is asked about."""

    ladder: Ladder
    labeller: Labeller
    wire_size: Callable[[bytes], int]
    min_score: float
    stop: threading.Event

    def row(self, photo: str, encoded: Callable[[], Attempt]) -> _Row | AdaCompressError:
        """Return a picture's row, or what went wrong with it alone."""
        try:
            if self.stop.is_set():
                raise CancelledError
            prepared = encoded()
            return self._row(photo, prepared) if isinstance(prepared, Prepared) else prepared
        except BaseException as error:
            own = (BackendRejected, BackendUnavailable, BackendProtocol, WorkerFailed)
            if isinstance(error, own) and not isinstance(error, ModelChanged):
                return error
            self.stop.set()  # before the other threads begin another upload
            raise

    def _row(self, photo: str, prepared: Prepared) -> _Row:
        answers = self._answers(prepared)
        truth, reference = answers[prepared.reference.pixels], prepared.reference.jpeg
        agreements = [
            compare(truth, answers[upload.pixels], self.min_score) for upload in prepared.uploads
        ]
        return _Row(
            key=prepared.key,
            group=photo,
            reference=(len(reference), self.wire_size(reference)),
            best=truth[0] if truth else Label("", 0.0),
            sizes=np.array([(len(one.jpeg), self.wire_size(one.jpeg)) for one in prepared.uploads]),
            agreement=np.array([[getattr(one, name) for name in METRICS] for one in agreements]),
        )

    def _answers(self, prepared: Prepared) -> dict[object, tuple[Label, ...]]:
        wanted: dict[object, Parcel] = {}
        for upload in (prepared.reference, *prepared.uploads):
            wanted.setdefault(upload.pixels, upload)
        known = self.labeller.known_many([(prepared.key, one.rung) for one in wanted.values()])
        answers: dict[object, tuple[Label, ...]] = {}
        for upload, labels in zip(wanted.values(), known, strict=True):
            if self.stop.is_set():
                raise CancelledError
            if labels is None:
                labels = self.labeller.ask(prepared.key, upload.rung, upload.jpeg)
            answers[upload.pixels] = labels
        return answers


class _Failures:
    """The pictures without a row, and when there are too many of them."""

    def __init__(self, allowed: int) -> None:
        self.rejected: list[Rejected] = []
        self._allowed, self._count = allowed, 0
        self._last: AdaCompressError | None = None

    def add(self, position: int, photo: str, error: AdaCompressError) -> None:
        """Note a failure; raise it if it is not the picture's own and one too many."""
        self.rejected.append(Rejected(position, photo, str(error), type(error).__name__))
        if isinstance(error, ImageError | BackendRejected):
            return
        self._count, self._last = self._count + 1, error
        if self._count > self._allowed:
            if self._allowed:
                error.args = (
                    f"{self._count} pictures failed, more than the {self._allowed} that "
                    f"--max-failures allows; the last one so: {error}",
                )
            raise error

    def of_all(self, count: int) -> AdaCompressError:
        """Return the error of a table without rows."""
        if self._last is not None:
            return self._last
        reason = self.rejected[0].reason if self.rejected else "there are none."
        return UsageError(f"None of {count} pictures could be labelled: {reason}")


def _finished(
    begin: Callable[[int], Future[T]], count: int, ahead: int
) -> Iterator[tuple[int, Future[T]]]:
    """Yield positions and futures as they finish; at most ``ahead`` are begun and not finished."""
    finished: SimpleQueue[tuple[int, Future[T]]] = SimpleQueue()
    for position in range(count):
        if position >= ahead:
            yield finished.get()
        begin(position).add_done_callback(partial(_put, finished, position))
    for _ in range(min(count, ahead)):
        yield finished.get()


def _put(finished: SimpleQueue[tuple[int, Future[T]]], position: int, future: Future[T]) -> None:
    finished.put((position, future))


def _table(
    rows: Sequence[_Row],
    ladder: Ladder,
    calls: int,
    from_ledger: int,
    rejected: tuple[Rejected, ...],
) -> AnswerTable:
    reference = np.array([row.reference for row in rows], dtype=np.int64)
    sizes = np.stack([row.sizes for row in rows])
    agreement = np.stack([row.agreement for row in rows])
    return AnswerTable(
        ladder=ladder,
        keys=np.array([row.key for row in rows], dtype=object),
        groups=np.array([row.group for row in rows], dtype=object),
        reference_bytes=reference[:, 0],
        reference_wire=reference[:, 1],
        bytes=sizes[:, :, 0],
        wire=sizes[:, :, 1],
        agreement={metric: agreement[:, :, place] for place, metric in enumerate(METRICS)},
        reference_score=np.array([row.best.score for row in rows]),
        reference_label=np.array([row.best.name for row in rows], dtype=object),
        calls=calls,
        from_ledger=from_ledger,
        rejected=rejected,
    )


@contextmanager
def _pool(workers: int) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
    """A pool and its stop sign. When the block ends early no further answer is begun."""
    pool, stop = ThreadPoolExecutor(workers, thread_name_prefix="labelling"), threading.Event()
    try:
        yield pool, stop
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
