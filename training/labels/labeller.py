"""One answer at a time: from the ledger if it is there, else from the service, within the budget.

labeller = Labeller(backend, ledger, Budget(max_calls=500, price_per_call=0.001))
labels = labeller.ask(picture_key(image), rung, jpeg)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from edge_sdk.backends.base import Backend, Capabilities, Label, Recognition
from edge_sdk.backends.spec import is_loopback
from edge_sdk.errors import BackendProtocol
from edge_sdk.ladder import Rung
from training.labels.budget import Budget
from training.labels.ledger import Key, Ledger

__all__ = ["Labeller", "ModelChanged"]


class ModelChanged(BackendProtocol):
    """The service runs another model by now: answers of two models do not compare."""


@runtime_checkable
class _Versioned(Protocol):
    """A backend that can be asked for its model without paying."""

    def model_version(self) -> str | None:
        """Return the version of the model that answers, or None if the service does not tell."""


class Labeller:
    """Answers about pictures, from the ledger or the service. Safe to use from several threads.

    Answers of another version of the model are other answers. The version is the one that is
    given, else what the backend says without being paid, else that of the ledger's newest answer
    of this service, else the first answer's.

    Args:
        backend: the service.
        ledger: keeps what was paid for.
        budget: what may be spent, and what a call costs.
        model_version: what the service runs, if that is known beforehand.
    """

    def __init__(
        self,
        backend: Backend,
        ledger: Ledger,
        budget: Budget | None = None,
        model_version: str | None = None,
    ) -> None:
        self._backend, self._ledger = backend, ledger
        self._budget = budget or Budget(price_per_call=backend.capabilities.price_usd)
        self._service = _service(backend.name)
        if model_version is None and isinstance(backend, _Versioned):
            model_version = backend.model_version()
        if model_version is None:
            model_version = ledger.latest_version(self._service)
        self._turn = threading.Condition()  # guards all that follows
        #: The model that answers, or None as long as nobody has told.
        self.model_version = model_version
        self._nameless = False  # an answer was used that does not tell its model
        self._asked: set[tuple[str, ...]] = set()  # what threads are asking
        self.bought = self.found = 0

    @property
    def capabilities(self) -> Capabilities:
        """What the service accepts."""
        return self._backend.capabilities

    @property
    def cost_usd(self) -> float:
        """Dollars spent so far, as far as the price is known."""
        return self._budget.cost_usd

    def ask(self, picture: str, rung: Rung, jpeg: bytes) -> tuple[Label, ...]:
        """Return the labels for a picture encoded as ``jpeg`` with ``rung``.

        Args:
            picture: its ``picture_key``.
            rung: what it was encoded with.
            jpeg: what to upload.

        Raises:
            BackendError: the service failed; there is no answer.
            ModelChanged: the service runs another model by now; its answer is kept all the same.
            BudgetReached: the answer would have to be bought and may not.
        """
        with self._alone(picture, rung):
            labels = self.known(picture, rung)
            return self._buy(picture, rung, jpeg) if labels is None else labels

    def known(self, picture: str, rung: Rung) -> tuple[Label, ...] | None:
        """Return the ledger's labels as :meth:`ask` would, None where they would be bought."""
        return self.known_many([(picture, rung)])[0]

    def known_many(self, uploads: Sequence[tuple[str, Rung]]) -> list[tuple[Label, ...] | None]:
        """Return what :meth:`known` would say of each (picture, rung) if they came in this order.

        One look-up for all of them: to be asked before anything is encoded for :meth:`ask`.
        """
        with self._turn:  # throughout, or the model might be told in between
            model = self.model_version
            keys = [self._key(picture, rung, model) for picture, rung in uploads]
            labels = self._ledger.get_many(keys)
            if model is None and None in labels:
                # What will be bought there may tell the model, and what follows is of that one.
                gap = labels.index(None)
                labels[gap:] = [None] * (len(labels) - gap)
            count = sum(one is not None for one in labels)
            self.found += count
            self._nameless |= model is None and count > 0
            return labels

    def _buy(self, picture: str, rung: Rung, jpeg: bytes) -> tuple[Label, ...]:
        with self._budget.call():
            answer = self._backend.recognize(jpeg)
        model, expected = self._confirm(answer)
        # Before anybody uses it: what is used and not kept would be paid for again.
        self._ledger.put(self._key(picture, rung, model), answer, self._budget.price_per_call)
        if model != expected:
            raise ModelChanged(
                f"{self._backend.name} answered with the model {model} instead of "
                f"{expected or 'one that it did not name'}; answers of two models do not compare. "
                "Run again with the new one; every answer is kept."
            )
        return answer.labels

    def _confirm(self, answer: Recognition) -> tuple[str | None, str | None]:
        """Return the model that gave the answer, and the one that gives all answers of this run."""
        told = answer.model_version
        with self._turn:
            self.bought += 1
            if self.model_version is None and not self._nameless:
                self.model_version, self._nameless = told, told is None
            return told or self.model_version, self.model_version

    def _key(self, picture: str, rung: Rung, model: str | None) -> Key:
        # Who does not tell the model is known by the full address at least.
        return Key(self._service if model else self._backend.name, picture, rung, model or "")

    @contextmanager
    def _alone(self, picture: str, rung: Rung) -> Iterator[None]:
        """Let one thread at a time ask for an answer, so that no two buy the same."""
        # Without the model: it may be told while another thread waits here.
        asked = Key("", picture, rung).row
        with self._turn:
            self._turn.wait_for(lambda: asked not in self._asked)
            self._asked.add(asked)
        try:
            yield
        finally:
            with self._turn:
                self._asked.discard(asked)
                self._turn.notify_all()


def _service(name: str) -> str:
    """Return a backend's name without what says nothing about who answers.

    A local cloud is another address every time, and its version names the model.
    """
    scheme, _, rest = name.partition(":")
    if not rest.startswith("//"):
        return scheme
    host, slash, path = rest[2:].partition("/")
    return scheme + slash + path if is_loopback(host) else name
