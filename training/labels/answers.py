"""Answers about pictures, rung by rung: what is worth asking is decided on the way.

    answers = Answers(views, ladder, labeller)          # encodes, asks about the references
    answers.bisect(calls=3)                             # each picture's own border on the ladder
    table = answers.table()                             # NaN where nobody asked

A grid costs K answers a picture, of which most only repeat that a rung beside an agreeing one
agrees as well (``training.labels.labelling`` buys it, for research). Sizes and features of every
rung are known all the same: they cost no answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agreement import METRICS, compare
from edge_sdk.backends.base import Label
from edge_sdk.codec import encode
from edge_sdk.errors import BackendProtocol, BackendRejected, BackendUnavailable, ImageError
from edge_sdk.ladder import REFERENCE, Ladder
from model_store.errors import AdaCompressError, UsageError
from training.labels.labeller import Labeller, ModelChanged
from training.labels.prepare import Picture, prepare
from training.labels.table import AnswerTable, Rejected

__all__ = ["Answers", "Look"]

T = TypeVar("T")

#: The files of (reference, *rungs) -> features (1 + K, D).
Look = Callable[[Sequence[bytes]], NDArray[np.float32]]

#: Any-hit and top-1 are 0 or 1; of the fractions, half the labels count as agreement where it only
#: decides which rung is asked next.
_AGREED = 0.5

#: What concerns one picture alone, however often it happens.
_OWN = (ImageError, BackendRejected)


@dataclass
class _Row:
    picture: Picture
    key: str
    truth: tuple[Label, ...]
    bytes: NDArray[np.int64]  # (1 + K,), the reference's first
    wire: NDArray[np.int64]  # (1 + K,)
    looks: NDArray[np.float32] | None
    known: dict[object, dict[str, float]] = field(default_factory=dict)  # pixels -> agreement


class Answers:
    """N pictures and what the service said about some of their rungs.

    Args:
        pictures: those that cannot be read or are refused are left out, see ``rejected``.
        ladder: K rungs, cheapest first.
        labeller: answers.
        wire_size: request body of a JPEG file, in bytes.
        min_score: labels below it do not count.
        workers: uploads under way at once.
        max_failures: pictures that the service may fail on before everything stops.
        look: computes features of a picture's files; None for none.
        progress: called with 1 after every picture.

    Raises:
        BackendError, BudgetReached: asking stopped; what was paid for is in the ledger.
        UsageError: no picture can be used.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        ladder: Ladder,
        labeller: Labeller,
        *,
        wire_size: Callable[[bytes], int] = len,
        min_score: float = 0.0,
        workers: int = 2,
        max_failures: int = 0,
        look: Look | None = None,
        progress: Callable[[int], object] = lambda count: None,
    ) -> None:
        self.ladder, self._labeller, self._wire_size = ladder, labeller, wire_size
        self._min_score, self._workers, self._look = min_score, workers, look
        self._max_failures, self._failed = max_failures, 0
        self._bought, self._found = labeller.bought, labeller.found
        self.rejected: list[Rejected] = []
        self._rows: list[_Row] = []
        #: Position among ``pictures`` of each row.
        self.positions: list[int] = []
        outcomes = self._parallel(self._open, [(picture,) for picture in pictures], progress)
        self._settle(outcomes)
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, _Row):
                self._rows.append(outcome)
                self.positions.append(position)
            else:
                photo, kind = pictures[position].photo, type(outcome).__name__
                self.rejected.append(Rejected(position, photo, str(outcome), kind))
        if not self._rows:
            reason = self.rejected[0].reason if self.rejected else "there are none."
            raise UsageError(f"None of {len(pictures)} pictures could be labelled: {reason}")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def groups(self) -> NDArray[np.object_]:
        """(N,) the photo that each picture is a view of."""
        return np.array([row.picture.photo for row in self._rows], dtype=object)

    @property
    def size_ratio(self) -> NDArray[np.float64]:
        """(N, K) compressed over reference JPEG bytes."""
        sizes = np.stack([row.bytes for row in self._rows])
        return np.asarray(sizes[:, 1:] / sizes[:, :1])

    @property
    def looks(self) -> NDArray[np.float32]:
        """(N, 1 + K, D) features of the reference and of every rung.

        Raises:
            UsageError: nobody looked.
        """
        if self._look is None:
            raise UsageError("The pictures were opened without a look at their encodings.")
        return np.stack([row.looks for row in self._rows if row.looks is not None])

    def ask(self, rungs: NDArray[np.int64], rows: NDArray[np.int64] | None = None) -> None:
        """Ask about one rung of each picture, if that is not known.

        Args:
            rungs: (M,) indices into the ladder.
            rows: (M,) of the pictures; default all.
        """
        rows = np.arange(len(self)) if rows is None else rows
        cells = [
            (self._rows[row], int(rung))
            for row, rung in zip(rows, rungs, strict=True)
            if not self._is_known(self._rows[row], int(rung))
        ]
        self._settle(self._parallel(self._agreement, cells))

    def observe(self, metric: str, rungs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the agreement of one rung of each picture, (N,), asking where it is not known."""
        self.ask(rungs)
        return np.array(
            [
                self._value(row, int(rung), metric)
                for row, rung in zip(self._rows, rungs, strict=True)
            ]
        )

    def bisect(
        self,
        calls: int,
        metric: str = "any_hit",
        start: NDArray[np.int64] | None = None,
        progress: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Look for the cheapest agreeing rung of every picture with ``calls`` questions.

        Args:
            calls: answers a picture at most.
            metric: which agreement counts.
            start: (N,) rung that is asked first; default the middle.
            progress: called with 1 after every picture.
        """
        first = np.full(len(self), len(self.ladder) // 2) if start is None else start
        cells = [
            (row, int(place), calls, metric) for row, place in zip(self._rows, first, strict=True)
        ]
        self._settle(self._parallel(self._bisect_row, cells, progress))

    def table(self) -> AnswerTable:
        """Return what is known; agreement is NaN where nobody asked."""
        rows = self._rows
        best = [row.truth[0].score if row.truth else 0.0 for row in rows]
        sizes, wire = np.stack([r.bytes for r in rows]), np.stack([r.wire for r in rows])
        return AnswerTable(
            ladder=self.ladder,
            keys=np.array([row.key for row in rows], dtype=object),
            groups=self.groups,
            reference_bytes=sizes[:, 0],
            reference_wire=wire[:, 0],
            bytes=sizes[:, 1:],
            wire=wire[:, 1:],
            agreement={
                metric: np.array(
                    [[self._value(row, k, metric) for k in range(len(self.ladder))] for row in rows]
                )
                for metric in METRICS
            },
            reference_score=np.array(best),
            calls=self._labeller.bought - self._bought,
            from_ledger=self._labeller.found - self._found,
            rejected=tuple(self.rejected),
        )

    def _open(self, picture: Picture) -> _Row:
        prepared = prepare(picture, self.ladder, self._labeller.capabilities)
        truth = self._labeller.ask(prepared.key, REFERENCE, prepared.reference)
        files = (prepared.reference, *prepared.uploads)
        row = _Row(
            picture=picture,
            key=prepared.key,
            truth=truth,
            bytes=np.array([len(jpeg) for jpeg in files], dtype=np.int64),
            wire=np.array([self._wire_size(jpeg) for jpeg in files], dtype=np.int64),
            looks=None if self._look is None else self._look(files),
        )
        row.known[REFERENCE.pixels] = self._compared(truth, truth)
        return row

    def _bisect_row(self, row: _Row, place: int, calls: int, metric: str) -> None:
        left, right = 0, len(self.ladder)
        for _ in range(calls):
            if left >= right:
                return
            if self._agreement(row, place)[metric] >= _AGREED:
                right = place
            else:
                left = place + 1
            place = (left + right) // 2

    def _agreement(self, row: _Row, rung: int) -> dict[str, float]:
        pixels = self.ladder[rung].pixels
        if pixels not in row.known:
            # Encoded once more: a folder's files at every rung would not fit into the memory.
            jpeg = encode(row.picture.open(), self.ladder[rung])
            labels = self._labeller.ask(row.key, self.ladder[rung], jpeg)
            row.known[pixels] = self._compared(row.truth, labels)
        return row.known[pixels]

    def _compared(self, truth: tuple[Label, ...], labels: tuple[Label, ...]) -> dict[str, float]:
        compared = compare(truth, labels, self._min_score)
        return {metric: float(getattr(compared, metric)) for metric in METRICS}

    def _is_known(self, row: _Row, rung: int) -> bool:
        return self.ladder[rung].pixels in row.known

    def _value(self, row: _Row, rung: int, metric: str) -> float:
        known = row.known.get(self.ladder[rung].pixels)
        return float("nan") if known is None else known[metric]

    def _settle(self, outcomes: Sequence[object]) -> None:
        """Raise the last failure if there are more than is allowed; refusals are no failures."""
        for outcome in outcomes:
            if isinstance(outcome, AdaCompressError) and not isinstance(outcome, _OWN):
                self._failed += 1
                if self._failed > self._max_failures:
                    raise outcome

    def _parallel(
        self,
        work: Callable[..., T],
        items: Sequence[tuple[Any, ...]],
        progress: Callable[[int], object] = lambda count: None,
    ) -> list[T | AdaCompressError]:
        """Run ``work`` over items in threads; return what went wrong with one picture alone."""
        stop = threading.Event()

        def one(item: tuple[Any, ...]) -> T | AdaCompressError:
            if stop.is_set():
                raise CancelledError
            try:
                return work(*item)
            except (ImageError, BackendRejected, BackendUnavailable, BackendProtocol) as error:
                if isinstance(error, ModelChanged):
                    stop.set()
                    raise
                return error
            except BaseException:
                stop.set()  # before the other threads begin another upload
                raise

        with ThreadPoolExecutor(self._workers, thread_name_prefix="asking") as pool:
            outcomes = []
            try:
                for outcome in pool.map(one, items):
                    outcomes.append(outcome)
                    progress(1)
            finally:
                stop.set()
            return outcomes
