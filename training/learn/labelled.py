"""Pictures as learning takes them: their features, the answers so far, and who buys more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder
from edge_sdk.view import View
from training.labels.table import AnswerTable
from training.learn.calibrate import Observe
from training.learn.features import Features
from training.learn.seen import Seen

__all__ = ["Asking", "Labelled"]


class Asking(Protocol):
    """Who buys answers, such as ``training.labels.answers.Answers``."""

    def observe(self, metric: str, rungs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the agreement of one rung of each picture, (N,)."""

    def ask(self, rungs: NDArray[np.int64]) -> None:
        """Ask about some rungs of every picture, (N, c)."""

    def table(self) -> AnswerTable:
        """Return what is known."""


@dataclass(frozen=True)
class Labelled:
    """Features of N views and the service's answers to them, row by row.

    Attributes:
        features: of the originals.
        table: sizes, and the answers so far.
        looks: float32 (N, K, D), features of every encoding, or None if nobody looked.
        answers: buys what the table lacks; None where it is complete.
        framed: view -> float32 (N, D), features of what the ladder's views show.
    """

    features: Features
    table: AnswerTable
    looks: NDArray[np.float32] | None = None
    answers: Asking | None = None
    framed: Mapping[View, NDArray[np.float32]] = field(default_factory=dict)

    def on(self, ladder: Ladder) -> Labelled:
        """Return the same pictures with the answers on another ladder."""
        columns = [self.table.ladder.index(rung) for rung in ladder]
        looks = None if self.looks is None else self.looks[:, columns]
        return Labelled(self.features, self.table.on(ladder), looks, framed=self.framed)

    def take(self, rows: NDArray[np.int64]) -> Labelled:
        """Return some of the pictures, with the answers so far."""
        looks = None if self.looks is None else self.looks[rows]
        framed = {view: values[rows] for view, values in self.framed.items()}
        return Labelled(self.features.take(rows), self.table.take(rows), looks, framed=framed)

    def observer(self, metric: str) -> Observe:
        """Return what tells the agreement of one rung of each picture."""
        if self.answers is not None:
            return partial(self.answers.observe, metric)
        known = self.table.agreement[metric]
        return lambda rungs: known[np.arange(len(known)), rungs]

    def refreshed(self) -> Labelled:
        """Return the same with what was bought since."""
        return self if self.answers is None else replace(self, table=self.answers.table())

    def seen(self, metric: str) -> Seen:
        """Return what heads are fitted to."""
        table = self.table
        return Seen(
            ladder=table.ladder,
            features=self.features.values,
            groups=table.groups,
            agreement=table.agreement[metric],
            size_ratio=table.size_ratio,
            labels=table.reference_label,
            looks=self.looks,
            framed=self.framed,
        )
