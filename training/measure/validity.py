"""Does the certificate keep its word? Certify on many random sets of photos, and count.

The photos that an agent was not fitted to are taken for all the pictures there are: then its true
agreement is known, and calibration photos drawn from them, each possibly more than once, are as
independent as the test assumes. Out of many such sets, a share of at most δ may certify an agent
whose true agreement is below the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.policy import OperatingPoint
from training.learn.contest import Contest
from training.learn.operating import Goals, operating_points
from training.learn.policies import SAFEST, Fixed, Policy, Static
from training.measure.intervals import wilson

__all__ = ["Validity", "validity"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Validity:
    """What came out.

    Attributes:
        splits: sets of calibration pictures.
        pictures: in each.
        target, delta: what a certificate says: P(agreement < target) ≤ delta.
        certified: share of the sets that certified something cheaper than the safest rung.
        violations: share of all sets whose agent's true agreement is below the target.
        most: upper end of the 95 % interval of ``violations``.
        size_ratio: mean over the sets, of all pictures.
        agreement: likewise.
    """

    splits: int
    pictures: int
    target: float
    delta: float
    certified: float
    violations: float
    most: float
    size_ratio: float
    agreement: float

    @property
    def kept(self) -> bool:
        """Whether the violations are no more than δ."""
        return self.violations <= self.delta

    @property
    def sentence(self) -> str:
        """Say what came out."""
        return (
            f"On {self.splits} random sets of {self.pictures} calibration pictures the true "
            f"agreement was below {self.target:g} in {self.violations:.1%}; promised is at most "
            f"{self.delta:.0%}. Mean size {self.size_ratio:.3f} at agreement {self.agreement:.3f}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "kept": self.kept, "sentence": self.sentence}


def validity(
    policies: Mapping[str, Policy],
    contest: Contest,
    agreement: Floats,
    size_ratio: Floats,
    goals: Goals,
    *,
    pictures: int,
    splits: int,
    rng: np.random.Generator,
    progress: Callable[[int], object] = lambda count: None,
) -> Validity:
    """Certify ``splits`` times, each on ``pictures`` drawn anew.

    Args:
        policies: by kind, for N pictures that nothing was fitted to.
        contest: whose winner is calibrated.
        agreement: (N, K), complete.
        size_ratio: (N, K).
        goals: what is promised.
        pictures: in each set.
        splits: sets.
        rng: draws them.
        progress: called with 1 after every set.
    """
    count, rows = len(agreement), np.arange(len(agreement))
    memory = {kind: _Memory(policy) for kind, policy in policies.items()}
    safest = policies["static"].rungs(SAFEST)
    truths, sizes, certified = [], [], []
    for _ in range(splits):
        drawn = rng.integers(count, size=pictures)
        point = _calibrated(
            policies, memory, contest, agreement[drawn], size_ratio[drawn], drawn, goals
        )
        rungs = _decided(policies, memory, point)
        truths.append(float(agreement[rows, rungs].mean()))
        sizes.append(float(size_ratio[rows, rungs].mean()))
        certified.append(point.certified and bool((rungs != safest).any()))
        progress(1)
    violated = float(np.mean([truth < goals.target for truth in truths]))
    return Validity(
        splits=splits,
        pictures=pictures,
        target=goals.target,
        delta=goals.delta,
        certified=float(np.mean(certified)),
        violations=violated,
        most=wilson(violated, splits).hi,
        size_ratio=float(np.mean(sizes)),
        agreement=float(np.mean(truths)),
    )


def _calibrated(
    policies: Mapping[str, Policy],
    memory: Mapping[str, _Memory],
    contest: Contest,
    agreement: Floats,
    size_ratio: Floats,
    drawn: Ints,
    goals: Goals,
) -> OperatingPoint:
    """Return the operating point that one set of pictures gives."""
    places = np.arange(len(drawn))
    mine: dict[str, Policy] = {kind: _Drawn(one, drawn) for kind, one in memory.items()}
    fixed, static = policies["fixed"], policies["static"]
    assert isinstance(fixed, Fixed)
    assert isinstance(static, Static)
    mine["fixed"] = replace(fixed, count=len(drawn))
    mine["static"] = static.take(drawn)
    # Each draw is a photo of its own: drawn twice, it counts twice, as in the population.
    groups = places.astype(str).astype(object)
    return operating_points(
        mine, contest, lambda rungs: agreement[places, rungs], groups, size_ratio, goals
    )[0]


def _decided(
    policies: Mapping[str, Policy], memory: Mapping[str, _Memory], point: OperatingPoint
) -> Ints:
    """Return what a device does with all pictures at an operating point."""
    if point.rung is not None:
        return policies["fixed"].at(point)
    assert point.trade_off is not None  # the winner has one, unless it is one rung
    return memory["probing" if point.max_probes else "static"].rungs(point.trade_off)


class _Memory:
    """Decides about all pictures at a step once, however often they are drawn."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._rungs: dict[float, Ints] = {}
        self._foreseen: dict[float, Floats] = {}

    def rungs(self, step: float) -> Ints:
        if step not in self._rungs:
            self._rungs[step] = self.policy.rungs(step)
        return self._rungs[step]

    def foreseen(self, step: float) -> Floats:
        if step not in self._foreseen:
            self._foreseen[step] = self.policy.foreseen(step)
        return self._foreseen[step]


@dataclass(frozen=True)
class _Drawn:
    """A policy on pictures drawn from those that it knows."""

    memory: _Memory
    rows: Ints

    @property
    def steps(self) -> Sequence[float]:
        return self.memory.policy.steps

    def rungs(self, step: float) -> Ints:
        return self.memory.rungs(step)[self.rows]

    def point(self, step: float) -> OperatingPoint:
        return self.memory.policy.point(step)

    def foreseen(self, step: float) -> Floats:
        return self.memory.foreseen(step)[self.rows]

    def at(self, point: OperatingPoint) -> Ints:
        return self.memory.policy.at(point)[self.rows]
