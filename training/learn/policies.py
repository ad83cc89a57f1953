"""What an agent may do with some pictures at a trade-off: look twice, once, or not at all.

Each policy answers one question, which rung for every picture at trade-off λ, from what is known
without asking the service; that is what lets a calibration ask about chosen rungs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.climb import Look, climb
from edge_sdk.engine import Scores
from edge_sdk.ladder import Ladder, kinds_of
from edge_sdk.policy import OperatingPoint, choose

__all__ = ["GRID", "SAFEST", "ByValue", "Fixed", "Policy", "Probing", "Static"]

#: λ at which the rung that decodes to the reference's pixels always wins.
SAFEST = 1e6

#: Trade-offs from safe to cheap.
GRID = tuple(np.geomspace(300.0, 0.05, 80).tolist())

_ALL = (SAFEST, *GRID)


class Policy(Protocol):
    """Chooses rungs for N pictures."""

    @property
    def steps(self) -> Sequence[float]:
        """Trade-offs worth testing, from the safest to the cheapest."""

    def rungs(self, step: float) -> NDArray[np.int64]:
        """Return the rung of every picture, (N,)."""

    def point(self, step: float) -> OperatingPoint:
        """Return the operating point that makes a device do this."""

    def foreseen(self, step: float) -> NDArray[np.float64]:
        """Return the agreement that the policy expects of each picture, (N,); NaN without looks."""

    def at(self, point: OperatingPoint) -> NDArray[np.int64]:
        """Return the rung of every picture at an agent's operating point, (N,)."""


@dataclass(frozen=True)
class Static:
    """Decides by the picture alone."""

    scores: Scores
    steps: Sequence[float] = _ALL

    def take(self, rows: NDArray[np.int64]) -> Static:
        """Return what it does with some of the pictures."""
        given = {name: getattr(self.scores, name) for name in Scores.__dataclass_fields__}
        known = {name: value[rows] for name, value in given.items() if value is not None}
        return replace(self, scores=Scores(**known))

    def rungs(self, step: float) -> NDArray[np.int64]:
        """See ``edge_sdk.policy.choose``."""
        return choose(self.scores, self.point(step))

    def point(self, step: float) -> OperatingPoint:
        """Return a trade-off without probes."""
        return OperatingPoint(trade_off=step)

    def foreseen(self, step: float) -> NDArray[np.float64]:
        """Return the predicted agreement of what is chosen."""
        assert self.scores.agreement is not None  # only factored heads have a trade-off
        chosen = self.rungs(step)
        return self.scores.agreement[np.arange(len(chosen)), chosen].astype(np.float64)

    def at(self, point: OperatingPoint) -> NDArray[np.int64]:
        """Return the rungs at the point's trade-off."""
        return choose(self.scores, point)


@dataclass(frozen=True)
class Probing:
    """Looks at up to ``max_probes`` candidates.

    Attributes:
        scores: of the originals.
        predictions: float32 (N, K, K), from ``training.learn.probing.predictions``.
        ladder: K rungs; without it they are taken to be of one kind.
        size_ratio: (N, K), exact.
        max_probes: looks a picture.
    """

    scores: Scores
    predictions: NDArray[np.float32]
    size_ratio: NDArray[np.float64]
    max_probes: int
    steps: Sequence[float] = _ALL
    ladder: Ladder = ()

    def rungs(self, step: float) -> NDArray[np.int64]:
        """See ``edge_sdk.climb``."""
        return np.array([self._climb(row, step)[0] for row in range(len(self.predictions))])

    def point(self, step: float) -> OperatingPoint:
        """Return a trade-off with probes."""
        return OperatingPoint(trade_off=step, max_probes=self.max_probes)

    def foreseen(self, step: float) -> NDArray[np.float64]:
        """Return the agreement of what is chosen, as the nearest look at it told."""
        return np.array([self._foreseen(row, step) for row in range(len(self.predictions))])

    def at(self, point: OperatingPoint) -> NDArray[np.int64]:
        """Return the rungs at the point's trade-off."""
        assert point.trade_off is not None  # points that probe have one
        return self.rungs(point.trade_off)

    @cached_property
    def _kinds(self) -> tuple[int, ...]:
        return kinds_of(self.ladder) or (0,) * self.size_ratio.shape[1]

    def _climb(self, row: int, step: float) -> tuple[int, tuple[int, ...]]:
        seen, exact = self.predictions[row], self.size_ratio[row]
        agreement, predicted = self.scores.agreement, self.scores.size_ratio
        assert agreement is not None  # only factored heads are probed
        assert predicted is not None
        return climb(
            agreement[row],
            predicted[row],
            step,
            lambda rung: Look(seen[rung], float(exact[rung])),
            self.max_probes,
            None,
            self._kinds,
            [index for index, one in enumerate(self.ladder) if not one.has_pixels],
        )

    def _foreseen(self, row: int, step: float) -> float:
        assert self.scores.agreement is not None  # see _climb
        rung, probed = self._climb(row, step)
        near = [one for one in probed if self._kinds[one] == self._kinds[rung]]
        if not near:
            return float(self.scores.agreement[row, rung])
        by = rung if rung in near else min(near, key=lambda one: abs(one - rung))
        return float(self.predictions[row, by, rung])


@dataclass(frozen=True)
class Fixed:
    """Sends every picture at one rung; its steps are places in ``order``.

    Attributes:
        order: rungs from the safest to the cheapest.
        count: N.
    """

    order: tuple[int, ...]
    count: int

    @property
    def steps(self) -> Sequence[float]:
        """Places in ``order``."""
        return tuple(float(place) for place in range(len(self.order)))

    def rungs(self, step: float) -> NDArray[np.int64]:
        """Return the same rung for all."""
        return np.full(self.count, self.order[int(step)])

    def point(self, step: float) -> OperatingPoint:
        """Return the one rung."""
        return OperatingPoint(trade_off=None, rung=self.order[int(step)])

    def foreseen(self, step: float) -> NDArray[np.float64]:
        """Return that nothing is expected."""
        return np.full(self.count, np.nan)

    def at(self, point: OperatingPoint) -> NDArray[np.int64]:
        """Return the point's rung for all."""
        assert point.rung is not None  # see ``point``
        return np.full(self.count, point.rung)


@dataclass(frozen=True)
class ByValue:
    """Takes the largest Q-value: the paper's agent, which has no trade-off."""

    scores: Scores
    steps: Sequence[float] = ()

    def rungs(self, step: float) -> NDArray[np.int64]:
        """Return the best rung of every picture."""
        return choose(self.scores, self.point(step))

    def point(self, step: float) -> OperatingPoint:
        """Return the only point there is."""
        return OperatingPoint(trade_off=None)

    def foreseen(self, step: float) -> NDArray[np.float64]:
        """Return that nothing is known of agreement."""
        return np.full(len(self.scores.q_values), np.nan)

    def at(self, point: OperatingPoint) -> NDArray[np.int64]:
        """Return the best rung of every picture."""
        return choose(self.scores, point)
