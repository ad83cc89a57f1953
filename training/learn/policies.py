"""What an agent may do with held-out pictures at a trade-off: look, predict, or always the same.

Each policy answers one question, which rung for every picture at trade-off λ, from what is known
without asking the service; that is what lets a calibration ask about chosen rungs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.climb import Look, climb
from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint, choose

__all__ = ["GRID", "SAFEST", "Fixed", "Policy", "Probing", "Static"]


class Policy(Protocol):
    """Chooses rungs for N pictures."""

    @property
    def kind(self) -> str:
        """``static``, ``probing`` or ``fixed``."""

    @property
    def steps(self) -> Sequence[float]:
        """Trade-offs worth testing, from the safest to the cheapest."""

    def rungs(self, trade_off: float) -> NDArray[np.int64]:
        """Return the rung of every picture, (N,)."""

    def point(self, trade_off: float) -> OperatingPoint:
        """Return the operating point that makes a device do this."""


#: λ at which the rung that decodes to the reference's pixels always wins.
SAFEST = 1e6

#: Trade-offs from safe to cheap.
GRID = tuple(np.geomspace(300.0, 0.05, 80).tolist())

_ALL = (SAFEST, *GRID)


@dataclass(frozen=True)
class Static:
    """Decides by the picture alone."""

    scores: Scores
    kind: str = "static"
    steps: Sequence[float] = _ALL

    def rungs(self, trade_off: float) -> NDArray[np.int64]:
        """See ``edge_sdk.policy.choose``."""
        return choose(self.scores, self.point(trade_off))

    def point(self, trade_off: float) -> OperatingPoint:
        """Return a trade-off without probes."""
        return OperatingPoint(trade_off=trade_off)


@dataclass(frozen=True)
class Probing:
    """Looks at up to ``max_probes`` candidates.

    Attributes:
        scores: of the originals.
        predictions: float32 (N, K, K), from ``training.learn.probing.predictions``.
        size_ratio: (N, K), exact.
        max_probes: looks a picture.
    """

    scores: Scores
    predictions: NDArray[np.float32]
    size_ratio: NDArray[np.float64]
    max_probes: int
    kind: str = "probing"
    steps: Sequence[float] = _ALL

    def rungs(self, trade_off: float) -> NDArray[np.int64]:
        """See ``edge_sdk.climb``."""
        agreement, predicted = self.scores.agreement, self.scores.size_ratio
        assert agreement is not None  # only factored heads are probed
        assert predicted is not None
        chosen = np.empty(len(agreement), dtype=np.int64)
        for row, (seen, exact) in enumerate(zip(self.predictions, self.size_ratio, strict=True)):

            def look(rung: int, seen: NDArray[np.float32] = seen, exact: object = exact) -> Look:
                return Look(seen[rung], float(exact[rung]))  # type: ignore[index]

            chosen[row], _ = climb(agreement[row], predicted[row], trade_off, look, self.max_probes)
        return chosen

    def point(self, trade_off: float) -> OperatingPoint:
        """Return a trade-off with probes."""
        return OperatingPoint(trade_off=trade_off, max_probes=self.max_probes)


@dataclass(frozen=True)
class Fixed:
    """Sends every picture at one rung; its steps are indices into ``order``.

    Attributes:
        order: rungs from the safest to the cheapest.
        count: N.
    """

    order: tuple[int, ...]
    count: int
    kind: str = "fixed"

    @property
    def steps(self) -> Sequence[float]:
        """Places in ``order``."""
        return tuple(float(place) for place in range(len(self.order)))

    def rungs(self, trade_off: float) -> NDArray[np.int64]:
        """Return the same rung for all."""
        return np.full(self.count, self.order[int(trade_off)])

    def point(self, trade_off: float) -> OperatingPoint:
        """Return the one rung."""
        return OperatingPoint(trade_off=None, rung=self.order[int(trade_off)])
