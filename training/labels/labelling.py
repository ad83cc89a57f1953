"""Ask the service about pictures at every rung of a ladder; pay only for what is not known.

    table = label_grid(views, FULL, backend, ledger, budget=Budget(max_calls=500))

Every rung is encoded, because its size is wanted; rungs that decode to the same pixels share one
upload. Uploads run in a few threads: a service answers slower than a machine can ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from edge_sdk.agreement import METRICS, Agreement, compare
from edge_sdk.backends.base import Backend, Label
from edge_sdk.backends.limits import check_limits
from edge_sdk.codec import encode
from edge_sdk.errors import BackendProtocol, BackendRejected
from edge_sdk.ladder import REFERENCE, Ladder, Rung
from model_store.errors import UsageError
from training.labels.budget import Budget
from training.labels.ledger import Key, Ledger, picture_key
from training.labels.table import AnswerTable, Rejected

__all__ = ["Budget", "Labeller", "Picture", "label_grid"]


class Picture(Protocol):
    """Something to label; ``training.photos.View`` is one."""

    @property
    def photo(self) -> str:
        """Identity of the photo it is a view of."""

    def open(self) -> Image.Image:
        """Return the picture, RGB."""


@runtime_checkable
class _Versioned(Protocol):
    """A backend that can be asked for its model without paying."""

    def model_version(self) -> str | None:
        """Return the version of the model that answers, or None if the service does not tell."""


class Labeller:
    """Answers about pictures, from the ledger or the service. Safe to use from several threads.

    Args:
        backend: the service.
        ledger: keeps what was paid for.
        budget: what may be spent.
        model_version: what the service runs, if that is known beforehand; else the backend is
            asked, if it can be. Answers of another version are other answers.
    """

    def __init__(
        self,
        backend: Backend,
        ledger: Ledger,
        budget: Budget | None = None,
        model_version: str | None = None,
    ) -> None:
        self._backend, self._ledger = backend, ledger
        self._budget = budget or Budget()
        if model_version is None and isinstance(backend, _Versioned):
            model_version = backend.model_version()
        #: The model that answers, or None if nobody tells.
        self.model_version = model_version
        self._turn = threading.Condition()
        self._asked: set[tuple[str, ...]] = set()  # what a thread is asking; guarded by _turn
        self.bought = self.found = 0  # guarded by _turn

    @property
    def cost_usd(self) -> float:
        """Dollars spent so far."""
        return self._budget.cost_usd

    def ask(self, picture: str, rung: Rung, jpeg: bytes) -> tuple[Label, ...]:
        """Return the labels for a picture encoded as ``jpeg`` with ``rung``.

        Raises:
            BackendError: the service failed; nothing was paid for this picture.
            BackendProtocol: the service runs another model by now; its answer is kept all the same.
            BudgetReached: the answer would have to be bought and may not.
        """
        key = Key(self._service(self.model_version), picture, rung)
        with self._alone(key):
            known = self._ledger.get(key)
            labels = self._buy(key, jpeg) if known is None else known
        with self._turn:
            self.bought += known is None
            self.found += known is not None
        return labels

    def check(self, jpeg: bytes) -> None:
        """Return if the service accepts such a file; nothing is sent.

        Raises:
            BackendRejected: it does not.
        """
        check_limits(jpeg, self._backend.capabilities, self._backend.name)

    def _buy(self, key: Key, jpeg: bytes) -> tuple[Label, ...]:
        self._budget.spend()
        answer = self._backend.recognize(jpeg)
        version = answer.model_version
        changed = None not in (version, self.model_version) and version != self.model_version
        if changed:
            key = key._replace(service=self._service(version))
        self._ledger.put(key, answer)
        if changed:
            raise BackendProtocol(
                f"{self._backend.name} answered with the model {version} instead of "
                f"{self.model_version}; answers of two models do not compare. Run again with the "
                "new one; every answer is kept."
            )
        return answer.labels

    def _service(self, version: str | None) -> str:
        # A local cloud is another address every time and the same service all the same.
        scheme = self._backend.name.partition(":")[0]
        return f"{scheme}/{version}" if version else self._backend.name

    @contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        """Let one thread at a time ask for an answer, so that no two buy the same."""
        with self._turn:
            self._turn.wait_for(lambda: key.row not in self._asked)
            self._asked.add(key.row)
        try:
            yield
        finally:
            with self._turn:
                self._asked.discard(key.row)
                self._turn.notify_all()


@dataclass(frozen=True)
class _Row:
    key: str
    group: str
    reference: tuple[int, int, float]  # bytes, wire bytes, best score
    sizes: list[tuple[int, int]]  # bytes and wire bytes per rung
    agreements: list[Agreement]


def label_grid(
    pictures: Sequence[Picture],
    ladder: Ladder,
    labeller: Labeller,
    *,
    wire_size: Callable[[bytes], int] = len,
    min_score: float = 0.0,
    workers: int = 2,
    progress: Callable[[int], object] = lambda count: None,
) -> AnswerTable:
    """Return sizes and agreements of every picture at every rung.

    Args:
        pictures: N pictures, opened one by one in the workers.
        ladder: K rungs.
        labeller: answers.
        wire_size: request body of a JPEG file, in bytes.
        min_score: labels below it do not count.
        workers: uploads under way at once.
        progress: called with 1 after every picture.

    Raises:
        BackendError, BudgetReached: asking stopped; what was paid for is in the ledger.
        UsageError: the service refused every picture.
    """
    bought, found = labeller.bought, labeller.found
    rows: list[_Row] = []
    rejected: list[Rejected] = []
    with _pool(workers) as (pool, stop):

        def work(picture: Picture) -> _Row | BackendRejected:
            return _row(picture, ladder, labeller, wire_size, min_score, stop)

        futures = [pool.submit(work, picture) for picture in pictures]
        for position, future in enumerate(futures):
            outcome = future.result()
            if isinstance(outcome, BackendRejected):
                rejected.append(Rejected(position, pictures[position].photo, str(outcome)))
            else:
                rows.append(outcome)
            progress(1)
    if not rows:
        reason = rejected[0].reason if rejected else "there are none."
        raise UsageError(f"None of {len(pictures)} pictures could be labelled: {reason}")
    return _table(rows, ladder, labeller.bought - bought, labeller.found - found, rejected)


def _row(
    picture: Picture,
    ladder: Ladder,
    labeller: Labeller,
    wire_size: Callable[[bytes], int],
    min_score: float,
    stop: threading.Event,
) -> _Row | BackendRejected:
    image = picture.open()
    key, jpegs = picture_key(image), [encode(image, rung) for rung in ladder]
    reference = encode(image, REFERENCE)
    answers: dict[tuple[int, float, str], tuple[Label, ...]] = {}
    uploads = [(REFERENCE, reference), *zip(ladder, jpegs, strict=True)]
    try:
        for _, jpeg in uploads:
            labeller.check(jpeg)  # all of them before the first is paid for
        for rung, jpeg in uploads:
            if stop.is_set():
                raise CancelledError
            if rung.pixels not in answers:
                answers[rung.pixels] = labeller.ask(key, rung, jpeg)
    except BackendRejected as error:  # this picture will never be accepted, others may
        return error
    truth = answers[REFERENCE.pixels]
    return _Row(
        key=key,
        group=picture.photo,
        reference=(len(reference), wire_size(reference), truth[0].score if truth else 0.0),
        sizes=[(len(jpeg), wire_size(jpeg)) for jpeg in jpegs],
        agreements=[compare(truth, answers[rung.pixels], min_score) for rung in ladder],
    )


def _table(
    rows: Sequence[_Row],
    ladder: Ladder,
    calls: int,
    from_ledger: int,
    rejected: Sequence[Rejected],
) -> AnswerTable:
    reference = np.array([row.reference for row in rows])
    sizes = np.array([row.sizes for row in rows], dtype=np.int64).reshape(len(rows), -1, 2)
    return AnswerTable(
        ladder=ladder,
        keys=np.array([row.key for row in rows], dtype=object),
        groups=np.array([row.group for row in rows], dtype=object),
        reference_bytes=reference[:, 0].astype(np.int64),
        reference_wire=reference[:, 1].astype(np.int64),
        bytes=sizes[:, :, 0],
        wire=sizes[:, :, 1],
        agreement={
            metric: np.array([[getattr(one, metric) for one in row.agreements] for row in rows])
            for metric in METRICS
        },
        reference_score=reference[:, 2],
        calls=calls,
        from_ledger=from_ledger,
        rejected=tuple(rejected),
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
