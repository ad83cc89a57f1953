"""What the state machine is told, and what it asks for: the alphabet of ``edge_sdk.states``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Action",
    "Arrived",
    "Changed",
    "Compared",
    "Do",
    "Event",
    "Explored",
    "LoadFailed",
    "Ranked",
    "RetrainFailed",
    "Retrained",
    "Returned",
    "Strayed",
]


class Do(StrEnum):
    """What the loop has to do after a step; see :class:`Action`."""

    TRIM = "trim"  # keep only the newest n transitions: older ones show the old scenery
    RANK = "rank"  # rank the cached agents, then tell Ranked
    LOAD = "load"  # load the agent on trial; tell LoadFailed if it cannot be
    ADOPT = "adopt"  # the agent on trial becomes the current one
    COLLECT = "collect"  # transitions are wanted; tell RetrainFailed if nobody can use them
    START = "start"  # start the retrainer, later tell Retrained or RetrainFailed
    FLUSH = "flush"  # forget all transitions
    ROLL_BACK = "roll back"  # the named agent, the one before, becomes the current one again


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do, and the agent that it is about, if any."""

    do: Do
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A picture came; ``xi`` is the draw ξ from (0, 1)."""

    xi: float


@dataclass(frozen=True, slots=True)
class Compared:
    """The answer to ``agent``'s upload was compared with the answer to the reference."""

    agent: str
    agreement: float
    reward: float


@dataclass(frozen=True, slots=True)
class Strayed:
    """Recent pictures no longer look like the current agent's scenery; no label was needed."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The service runs another model; ``what`` says how that was noticed."""

    what: str = "the service's answers changed"


@dataclass(frozen=True, slots=True)
class Explored:
    """``count`` explored transitions were logged."""

    count: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """The cached agents worth a trial, best first."""

    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The agent on trial cannot be loaded, or its engine fails."""

    agent: str


@dataclass(frozen=True, slots=True)
class Retrained:
    """The retrainer published ``agent``."""

    agent: str


@dataclass(frozen=True, slots=True)
class Returned:
    """Most pictures are again of the scenery of ``agent``, which was kept at hand."""

    agent: str


@dataclass(frozen=True, slots=True)
class RetrainFailed:
    """The retrainer ended without an agent, or there is none."""


Event = (
    Arrived
    | Compared
    | Strayed
    | Changed
    | Explored
    | Ranked
    | LoadFailed
    | Retrained
    | RetrainFailed
    | Returned
)
