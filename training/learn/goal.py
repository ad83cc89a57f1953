"""What an agent is trained for, and what its operating point has to promise."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_sdk.agreement import METRICS
from model_store.errors import UsageError
from training.learn.operating import Goals
from training.learn.reward import Reward

__all__ = ["MAX_PROBES", "Goal", "goals_of"]

#: Looks a picture: with four, trials needed a tenth fewer bytes than with two; more gave nothing.
MAX_PROBES = 4


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What an agent is trained for.

    Attributes:
        target: agreement t that the user wants, in (0, 1).
        delta: error probability of the certificate.
        reward: α and β.
        metric: which agreement counts, one of ``METRICS``.
        min_score: labels below it do not count.
        scenery: name of the scenery.
        backend: the service's name.
        model_version: the service's model, if it tells.
        max_probes: candidates that a device may look at before it sends; 0 for none.
        seed: of every random choice.
    """

    backend: str
    max_probes: int = MAX_PROBES
    target: float = 0.95
    delta: float = 0.05
    reward: Reward = field(default_factory=Reward)
    metric: str = "any_hit"
    min_score: float = 0.0
    scenery: str = "day"
    model_version: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(f"The metric {self.metric!r} is unknown; allowed: {METRICS}.")
        for name in ("target", "delta"):
            if not 0.0 < getattr(self, name) < 1.0:
                label = "target accuracy" if name == "target" else name
                raise UsageError(
                    f"The {label} is {getattr(self, name)}; allowed is above 0 and below 1, for "
                    "example 0.95."
                )


def goals_of(goal: Goal, *, thrifty: bool, effect: float | None = None) -> Goals:
    """Return what an operating point has to promise.

    Args:
        goal: of the agent.
        thrifty: answers are bought, so few trade-offs are tested.
        effect: design effect, if it is known beforehand.
    """
    return Goals(
        target=goal.target,
        delta=goal.delta,
        shares=goal.metric in ("eq1", "jaccard"),
        thrifty=thrifty,
        effect=effect,
    )
