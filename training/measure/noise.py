"""How often the service disagrees with itself, when next to nothing has changed.

The reference's quality is moved by one step up and one down, which nobody sees. What the service
then says differently is its own noise, and no agent can be blamed for as much: agreement above
this floor is luck, or the reference's very pixels.

    table = job.label([views[row] for row in sample(len(views), 50, rng)], NEIGHBOURS, "…")
    noise = measure_noise(table, agreement=result.agreement["any_hit"], target=0.95, rng=rng)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.agreement import METRICS
from edge_sdk.ladder import REFERENCE, Ladder, Rung
from training.measure.intervals import Interval, resample

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = ["NEIGHBOURS", "SAMPLE", "Noise", "measure_noise", "sample"]

_STEP = 5

#: The reference with its quality one step lower and one higher.
NEIGHBOURS: Ladder = (
    Rung(REFERENCE.quality - _STEP, entropy=REFERENCE.entropy),
    Rung(REFERENCE.quality + _STEP, entropy=REFERENCE.entropy),
)

#: Pictures that are asked about unless another number is given.
SAMPLE = 50


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The service's agreement with itself.

    Attributes:
        pictures: how many were asked about, at each of ``NEIGHBOURS``.
        agreement: each metric's mean agreement.
        target_above: the agreement target is above what the service keeps with itself.
        sentence: what it means for the agent and its target, for people.
    """

    pictures: int
    agreement: Mapping[str, Interval]
    target_above: bool
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "pictures": self.pictures,
            "qualities": [rung.quality for rung in NEIGHBOURS],
            "agreement": {name: figure.as_dict() for name, figure in self.agreement.items()},
            "target_above": self.target_above,
            "sentence": self.sentence,
        }


def sample(count: int, size: int, rng: np.random.Generator) -> list[int]:
    """Return the rows, in order, of ``size`` of ``count`` pictures, or of all if they are fewer."""
    rows: list[int] = rng.choice(count, min(count, size), replace=False).tolist()
    return sorted(rows)


def measure_noise(
    table: AnswerTable,
    *,
    agreement: Interval | None,
    target: float,
    rng: np.random.Generator,
    metric: str = "any_hit",
) -> Noise:
    """Return the floor and what it says of an agent.

    Args:
        table: answers on ``NEIGHBOURS``.
        agreement: the agent's; None where there is none yet.
        target: the agreement target.
        rng: source of the bootstrap.
        metric: which agreement target and agent are about.
    """
    own = np.column_stack([table.agreement[name].mean(axis=1) for name in METRICS])
    shares = resample(table.groups, rng).proportions(own)
    found = dict(zip(METRICS, shares, strict=True))
    floor = found[metric]
    return Noise(
        pictures=len(table.groups),
        agreement=found,
        target_above=target > floor.mean,
        sentence=_floor(floor, len(table.groups))
        + (_agent(agreement.mean, floor) if agreement else "")
        + _target(target, floor),
    )


def _floor(floor: Interval, pictures: int) -> str:
    lower, higher = NEIGHBOURS
    return (
        f"With the reference's quality at {lower.quality} or {higher.quality} instead of "
        f"{REFERENCE.quality} the service agrees with itself in {floor.mean:.3f} (95 % interval "
        f"{floor.lo:.3f} to {floor.hi:.3f}, {pictures} pictures): its noise floor."
    )


def _agent(agreement: float, floor: Interval) -> str:
    if agreement >= floor.lo:
        return f" The agent's agreement of {agreement:.3f} cannot be told from that."
    return (
        f" The agent's agreement of {agreement:.3f} is {floor.mean - agreement:.3f} below it: so "
        "much is the encoding's doing."
    )


def _target(target: float, floor: Interval) -> str:
    if target <= floor.mean:
        return ""
    return (
        f" The target of {target:g} is above this floor: only the reference's own pixels can be "
        "expected to keep it. Ask for less, or let labels of low scores not count (--min-score)."
    )
