"""What fit, evaluate and the demo have in common: a service, a ledger, labelled pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend, Label
from edge_sdk.codec import encode
from edge_sdk.ladder import REFERENCE, Ladder
from export.network import Prefix
from model_store.errors import EnvironmentMissing, UsageError
from training.cloud.local import register_local
from training.labels.labelling import Budget, Labeller, label_grid
from training.labels.ledger import Ledger, picture_key
from training.labels.table import AnswerTable
from training.learn.features import Features, extract
from training.learn.fit import Labelled
from training.photos import View
from training.progress import Stages

__all__ = ["Job", "accepted", "open_run"]

#: Uploads under way at once; a service's own limit is lower than what a machine can send.
WORKERS = 2


class Job:
    """A run's service and ledger, open until the ``with`` block ends.

    Args:
        backend: a specification such as ``baidu://HOST`` or ``local:MODEL``.
        run: the run's folder; the ledger is in it, so that a second run pays for nothing twice.
        stages: tells the progress.
        min_score: labels below it do not count.
        budget: what may be spent.
        model_version: what the service runs, if that is known.
        seed: chooses the parity pictures.
    """

    def __init__(
        self,
        backend: str,
        run: Path,
        stages: Stages,
        *,
        min_score: float = 0.0,
        budget: Budget | None = None,
        model_version: str | None = None,
        seed: int = 0,
    ) -> None:
        register_local()
        if not 0.0 <= min_score <= 1.0:
            raise UsageError(f"The minimum score is {min_score}; allowed is 0 to 1.")
        self.min_score, self.stages, self._seed = min_score, stages, seed
        self._open = contextlib.ExitStack()
        self.backend: Backend = open_backend(backend)
        self._open.callback(self.backend.close)
        try:
            self.ledger = Ledger(run / "ledger.sqlite")
        except BaseException:
            self._open.close()
            raise
        self._open.callback(self.ledger.close)
        self.labeller = Labeller(self.backend, self.ledger, budget, model_version)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def label(self, views: Sequence[View], ladder: Ladder, title: str) -> AnswerTable:
        """Ask the service about every view at every rung; the ledger's answers are free."""
        with self.stages.stage(title, len(views)) as step:
            return label_grid(
                views,
                ladder,
                self.labeller,
                wire_size=self.backend.wire_size,
                min_score=self.min_score,
                workers=WORKERS,
                progress=step,
            )

    def reference_labels(self, image: Image.Image) -> tuple[Label, ...]:
        """Return the service's answer to a picture's reference, through the ledger."""
        return self.labeller.ask(picture_key(image), REFERENCE, encode(image, REFERENCE))

    def features(self, prefix: Prefix, views: Sequence[View], title: str) -> Features:
        """Compute the features of every view."""
        rng = np.random.default_rng(self._seed)
        with self.stages.stage(title, len(views)) as step:
            return extract(prefix, views, rng=rng, progress=step)

    def labelled(
        self, prefix: Prefix, views: Sequence[View], ladder: Ladder, part: str
    ) -> Labelled:
        """Label views and compute their features."""
        table = self.label(views, ladder, f"asking about {part}")
        kept = accepted(views, table)
        return Labelled(self.features(prefix, kept, f"features of {part}"), table)


def accepted(views: Sequence[View], table: AnswerTable) -> list[View]:
    """Return the views that have a row in ``table``: the service refused the others."""
    refused = {one.position for one in table.rejected}
    return [view for position, view in enumerate(views) if position not in refused]


def open_run(folder: Path) -> Path:
    """Make a run's folder and return it.

    Raises:
        EnvironmentMissing: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise EnvironmentMissing(
            f"The folder {str(folder)!r} cannot be written: {reason}. Give another one."
        ) from error
    return folder
