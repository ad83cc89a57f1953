"""The local cloud: a real HTTP server on loopback that speaks vendors' dialects over a model.

    with CloudServer(open_model("efficientnet-lite0")) as server:
        backend = open_backend(server.spec_of("google"))

It serves from threads of this process; ``training.cloud.process`` runs it in one of its own.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_sdk.backends.torchserve import CODEC_VERSION
from model_store.errors import UsageError
from training.cloud.batching import Batcher
from training.cloud.connections import Connections
from training.cloud.dialects import open_dialects
from training.cloud.dialects.base import Dialect, Rules
from training.cloud.journal import Journal
from training.cloud.lineup import line_up
from training.cloud.models import Model, codecs_of
from training.cloud.service import Service
from training.cloud.settings import Settings

__all__ = ["CloudServer"]


class CloudServer:
    """Serves ``model`` from entering the ``with`` block to leaving it.

    Args:
        model: answers the uploads.
        port: of the loopback interface; 0 takes a free one.
        dialects: names of ``training.cloud.dialects.DIALECTS``, all on the one port; None for all.
        rules: the accepted keys; default is any that are not empty.
        settings: delays, faults, a swap of the model; default is none of them.
        swap_to: the model after ``settings.swap_after`` answers.
        log: a JSON line per request is appended to this file.
        clock, timer: seconds since the epoch, and monotonic ones.
        sleep: the pause for a delay; default ends when the server stops.

    Attributes:
        url: the server's address, such as ``http://127.0.0.1:8000``, once entered.

    Raises:
        UsageError: a dialect is not known, it cannot fail so, or a swap would change nothing; on
            entering, there is no such port.
        EnvironmentMissing: on entering, the port or the log cannot be had.
    """

    def __init__(
        self,
        model: Model,
        port: int = 0,
        *,
        dialects: Sequence[str] | None = None,
        rules: Rules | None = None,
        settings: Settings | None = None,
        swap_to: Model | None = None,
        log: Path | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.url = ""
        self._settings = settings or Settings()
        self._dialects = open_dialects(dialects, rules or Rules(secret=secrets.token_bytes(32)))
        _check_tokens(self._dialects, self._settings.faults)
        self._lineup = line_up(
            model,
            swap_to=swap_to,
            swap_after=self._settings.swap_after,
            rename_labels=self._settings.rename_labels,
        )
        self._port, self._journal = port, Journal(log)
        self._clock, self._timer, self._sleep = clock, timer, sleep
        self._open = contextlib.ExitStack()

    @property
    def model(self) -> Model:
        """The model that answers now."""
        return self._lineup.at(self._journal.billed)

    @property
    def spec(self) -> str:
        """What ``open_backend`` takes, for the first dialect."""
        return self._spec(self._dialects[0])

    @property
    def specs(self) -> dict[str, str]:
        """Dialect -> what ``open_backend`` and ``--backend`` take."""
        return {dialect.name: self._spec(dialect) for dialect in self._dialects}

    def spec_of(self, dialect: str) -> str:
        """Return what ``open_backend`` takes for one of the served dialects."""
        return self.specs[dialect]

    def _spec(self, dialect: Dialect) -> str:
        """Return a dialect's, with the codec that the model reads where the dialect can say it."""
        spec, codecs = dialect.spec(self.url), codecs_of(self.model)
        return f"{spec}/{CODEC_VERSION}{codecs[0]}" if codecs and dialect.streams else spec

    def counts(self) -> dict[str, int]:
        """Return ``requests``, ``billed``, and how many requests there were of each kind."""
        return self._journal.counts()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            opening.enter_context(self._journal)
            batcher = opening.enter_context(Batcher(lambda: self.model))
            connections = opening.enter_context(Connections(self._port))
            self.url = connections.url
            sleep = self._sleep or connections.stopping.wait
            service = Service(
                self._dialects,
                self.url,
                self._lineup,
                batcher,
                self._journal,
                self._settings,
                clock=self._clock,
                timer=self._timer,
                sleep=sleep,
            )
            connections.serve(service, sleep)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()


def _check_tokens(dialects: Sequence[Dialect], faults: Collection[str]) -> None:
    if [*faults] == ["token"] and not any(dialect.tokens for dialect in dialects):
        raise UsageError(
            f"The fault token is given alone, and {', '.join(one.name for one in dialects)} has no "
            "tokens that expire; serve baidu too, or name another fault."
        )
