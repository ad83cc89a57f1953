"""Answers that are all known, given out as if they were bought: what labelling less would cost.

recorded = Recorded(table)                # complete, as ``label_grid`` returns it
recorded.sample(4, rng)
recorded.table(), recorded.answers        # NaN where nobody asked; how many somebody did
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import REFERENCE
from training.labels.sampling import stratified
from training.labels.table import AnswerTable

__all__ = ["Recorded"]


class Recorded:
    """Stands in for ``training.labels.answers.Answers``.

    Args:
        table: N pictures on K rungs, without a gap.
    """

    def __init__(self, table: AnswerTable) -> None:
        self._table = table
        pixels = [rung.pixels for rung in table.ladder]
        # Rungs that decode to the same pixels share one answer.
        self._same = np.array([pixels.index(one) for one in pixels])
        self._asked = np.zeros((len(table), len(pixels)), dtype=bool)
        self._free = np.array([one == REFERENCE.pixels for one in pixels])

    @property
    def answers(self) -> int:
        """Answers given out so far, those to the references included."""
        return len(self._table) + int(self._asked[:, ~self._free].sum())

    def observe(self, metric: str, rungs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the agreement of one rung of each picture, (N,)."""
        rows = np.arange(len(self._table))
        self._asked[rows, self._same[rungs]] = True
        return self._table.agreement[metric][rows, rungs]

    def sample(self, calls: int, rng: np.random.Generator) -> None:
        """Ask about ``calls`` rungs of every picture."""
        self.ask(stratified(len(self._table), len(self._same), calls, rng))

    def ask(self, rungs: NDArray[np.int64]) -> None:
        """Ask about some rungs of every picture, (N, c)."""
        np.put_along_axis(self._asked, self._same[rungs], values=True, axis=1)

    def table(self) -> AnswerTable:
        """Return what was asked; agreement is NaN elsewhere."""
        known = self._asked[:, self._same] | self._free
        return replace(
            self._table,
            agreement={
                metric: np.where(known, values, np.nan)
                for metric, values in self._table.agreement.items()
            },
            calls=self.answers,
            from_ledger=0,
        )
