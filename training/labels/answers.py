"""Answers about pictures, rung by rung: what is worth asking is decided on the way.

    answers = Answers(views, ladder, labeller)          # encodes, asks about the references
    answers.sample(calls=4, rng=rng)                    # a few rungs of every picture
    table = answers.table()                             # NaN where nobody asked

A grid costs K answers a picture, of which most only repeat that a rung beside an agreeing one
agrees as well (``training.labels.labelling`` buys it, for research). The sizes of every rung are
known all the same: they cost no answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agreement import METRICS, compare
from edge_sdk.backends.base import Label
from edge_sdk.codec import Scales, Streams, encode
from edge_sdk.errors import BackendProtocol, BackendRejected, BackendUnavailable, ImageError
from edge_sdk.ladder import Ladder, Rung
from model_store.errors import AdaCompressError, UsageError
from training.labels.labeller import Labeller, ModelChanged
from training.labels.prepare import Picture, prepare
from training.labels.sampling import stratified
from training.labels.table import AnswerTable, Rejected

__all__ = ["Answers"]

T = TypeVar("T")

#: What concerns one picture alone, however often it happens.
_OWN = (ImageError, BackendRejected)


@dataclass
class _Row:
    picture: Picture
    key: str
    truth: tuple[Label, ...]
    rungs: tuple[Rung, ...]  # what stands for each of the ladder's
    bytes: NDArray[np.int64]  # (1 + K,), the reference's first
    wire: NDArray[np.int64]  # (1 + K,)
    known: dict[object, dict[str, float]] = field(default_factory=dict)  # pixels -> agreement


class Answers:
    """N pictures and what the service said about some of their rungs.

    Args:
        pictures: those that cannot be read or are refused are left out, see ``rejected``.
        ladder: K rungs, cheapest first.
        labeller: answers.
        wire_size: request body of a file, in bytes.
        min_score: labels below it do not count.
        workers: uploads under way at once.
        max_failures: pictures that the service may fail on before everything stops.
        progress: called with 1 after every picture.
        codec: of the ladder's rungs of features.

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
        progress: Callable[[int], object] = lambda count: None,
        codec: Streams | None = None,
    ) -> None:
        self._codec = codec
        self.ladder, self._labeller, self._wire_size = ladder, labeller, wire_size
        self._min_score, self._workers = min_score, workers
        self._max_failures = max_failures
        self._failures: list[AdaCompressError] = []
        self._bought, self._found = labeller.bought, labeller.found
        self.rejected: list[Rejected] = []
        self._rows: list[_Row] = []
        #: Position among ``pictures`` of each row.
        self.positions: list[int] = []
        outcomes = self._parallel(self._open, [(picture,) for picture in pictures], progress)
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, _Row):
                self._rows.append(outcome)
                self.positions.append(position)
            else:
                photo, kind = pictures[position].photo, type(outcome).__name__
                self.rejected.append(Rejected(position, photo, str(outcome), kind))
        if not self._rows:
            if self._failures:  # the service is to blame, not the pictures
                raise self._failures[-1]
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

    def observe(self, metric: str, rungs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the agreement of one rung of each picture, (N,), asking where it is not known.

        Where the service refuses or fails, within what is allowed, that counts as disagreement:
        it proves nothing.
        """
        asked = list(zip(self._rows, map(int, rungs), strict=True))
        self._recall(asked)
        unknown = [(row, rung) for row, rung in asked if not self._is_known(row, rung)]
        outcomes = self._parallel(self._agreement, unknown)
        for (row, rung), outcome in zip(unknown, outcomes, strict=True):
            if isinstance(outcome, AdaCompressError):
                row.known[row.rungs[rung].pixels] = dict.fromkeys(METRICS, 0.0)
        return np.array([self._value(row, rung, metric) for row, rung in asked])

    def sample(
        self,
        calls: int,
        rng: np.random.Generator,
        progress: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Ask about ``calls`` rungs of every picture, see ``training.labels.sampling``."""
        self.ask(stratified(len(self), len(self.ladder), calls, rng), progress)

    def ask(
        self,
        rungs: NDArray[np.int64],
        progress: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Ask about some rungs of every picture.

        Args:
            rungs: (N, c).
            progress: called with 1 after every picture.
        """
        cells = list(zip(self._rows, rungs.tolist(), strict=True))
        self._recall((row, rung) for row, asked in cells for rung in asked)
        self._parallel(self._ask_row, cells, progress)

    def adopt(self, other: Answers) -> None:
        """Take over what another ladder's answers tell of the same pictures' rungs."""
        known = {row.key: row.known for row in other._rows}
        for row in self._rows:
            asked = known.get(row.key, {})
            row.known |= {
                rung.pixels: asked[rung.pixels] for rung in row.rungs if rung.pixels in asked
            }

    def table(self) -> AnswerTable:
        """Return what is known; agreement is NaN where nobody asked."""
        rows = self._rows
        best = [row.truth[0] if row.truth else Label("", 0.0) for row in rows]
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
            reference_score=np.array([label.score for label in best]),
            reference_label=np.array([label.name for label in best], dtype=object),
            calls=self._labeller.bought - self._bought,
            from_ledger=self._labeller.found - self._found,
            rejected=tuple(self.rejected),
        )

    def _open(self, picture: Picture) -> _Row:
        prepared = prepare(picture, self.ladder, self._labeller.capabilities, self._codec)
        reference = prepared.reference
        truth = self._labeller.ask(prepared.key, reference.rung, reference.jpeg)
        files = [one.jpeg for one in (reference, *prepared.uploads)]
        row = _Row(
            picture=picture,
            key=prepared.key,
            truth=truth,
            rungs=tuple(upload.rung for upload in prepared.uploads),
            bytes=np.array([len(jpeg) for jpeg in files], dtype=np.int64),
            wire=np.array([self._wire_size(jpeg) for jpeg in files], dtype=np.int64),
        )
        row.known[reference.rung.pixels] = self._compared(truth, truth)
        return row

    def _recall(self, cells: Iterable[tuple[_Row, int]]) -> None:
        """Look up, all at once, what the ledger has of some cells: nothing is encoded for those."""
        wanted = {
            (id(row), row.rungs[rung].pixels): (row, row.rungs[rung])
            for row, rung in cells
            if not self._is_known(row, rung)
        }
        known = self._labeller.known_many([(row.key, rung) for row, rung in wanted.values()])
        for (row, rung), labels in zip(wanted.values(), known, strict=True):
            if labels is not None:
                row.known[rung.pixels] = self._compared(row.truth, labels)

    def _ask_row(self, row: _Row, rungs: Sequence[int]) -> None:
        for rung in rungs:
            self._agreement(row, rung)

    def _agreement(self, row: _Row, rung: int) -> dict[str, float]:
        pixels = row.rungs[rung].pixels
        if pixels not in row.known:
            # Encoded once more: a folder's files at every rung would not fit into the memory.
            jpeg = encode(Scales(row.picture.open(), self._codec), row.rungs[rung])
            labels = self._labeller.ask(row.key, row.rungs[rung], jpeg)
            row.known[pixels] = self._compared(row.truth, labels)
        return row.known[pixels]

    def _compared(self, truth: tuple[Label, ...], labels: tuple[Label, ...]) -> dict[str, float]:
        compared = compare(truth, labels, self._min_score)
        return {metric: float(getattr(compared, metric)) for metric in METRICS}

    def _is_known(self, row: _Row, rung: int) -> bool:
        return row.rungs[rung].pixels in row.known

    def _value(self, row: _Row, rung: int, metric: str) -> float:
        known = row.known.get(row.rungs[rung].pixels)
        return float("nan") if known is None else known[metric]

    def _settle(self, outcome: object) -> None:
        """Raise a failure if there are more than is allowed; refusals are no failures."""
        if isinstance(outcome, AdaCompressError) and not isinstance(outcome, _OWN):
            self._failures.append(outcome)
            if len(self._failures) > self._max_failures:
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

        outcomes = []
        with ThreadPoolExecutor(self._workers, thread_name_prefix="asking") as pool:
            try:
                for future in [pool.submit(one, item) for item in items]:
                    with suppress(CancelledError):  # what stopped the others is on its way
                        outcomes.append(future.result())
                        self._settle(outcomes[-1])
                        progress(1)
            finally:
                stop.set()
        return outcomes
