"""Everything that can be chosen about a client, checked when it is written down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_sdk.agreement import METRICS
from edge_sdk.backends.base import Backend
from edge_sdk.engine import NATIVE, PROVIDERS
from edge_sdk.estimator import TABLE_1, LoopParameters
from edge_sdk.memory import MAX_TRANSITIONS
from model_store.errors import UsageError

if TYPE_CHECKING:
    from model_store import Manifest, StoredAgent

__all__ = ["AgentStore", "EdgeConfig"]


#: What may ring the alarm, see ``EdgeConfig.monitor``.
MONITORS = ("features", "paper")


class AgentStore(Protocol):
    """What the loop asks of a store; ``model_store.Store`` is one."""

    @property
    def root(self) -> Path:
        """The store's folder."""

    def ids(self) -> Sequence[str]:
        """Return the ids of all agents."""

    def manifest(self, reference: str, /) -> Manifest:
        """Return an agent's manifest."""

    def load(self, reference: str, /) -> StoredAgent:
        """Return an agent's manifest and files."""

    def load_healthy(self, alias: str, /) -> tuple[StoredAgent, Sequence[str]]:
        """Return the newest whole agent of an alias, and the ids that were given up for it."""

    def promote(self, reference: str, /, alias: str, reason: str) -> object:
        """Point ``alias`` to an agent."""


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """The choices behind an ``EdgeClient``.

    Attributes:
        store: the folder of the agents, or an opened store.
        backend: a specification such as ``baidu://aip.baidubce.com``, or an opened service, which
            then stays the caller's to close.
        alias: the agent to begin with; it follows the loop, so that a restart resumes.
        folder: where transitions are kept; default is beside the store, ``STORE-device``.
        min_score: labels below it do not count when two answers are compared.
        metric: which of ``edge_sdk.agreement.METRICS`` is A.
        loop: n, p_0, ω, A_0, r_th (Table 1).
        monitor: what rings the alarm: ``features``, agreement or a change of the features'
            scenery, which costs no label; ``paper``, agreement alone as in section 3.5.
        alpha: weight of agreement in r = α·A − Δs + β.
        beta: offset of the reward.
        target_accuracy: agreement that a retrained agent's operating point has to promise.
        steering: how far one verified answer moves the trade-off, see ``edge_sdk.steering``; 0
            keeps it where it was certified.
        retrain_after: explored transitions before the retrainer is started; the paper's T_start.
        explore_rungs: rungs tried per picture while retraining; each is one more paid call.
        max_transitions: transitions kept, the oldest are dropped first.
        max_probes: looks at candidate encodings that this device can afford per picture, each about
            one engine run; None takes what the agent was certified with.
        seed: of every random draw.
        provider: where the engine runs, one of ``edge_sdk.engine.PROVIDERS``, or ``trt``,
            TensorRT's own runtime with the engines that ``python -m export --trt`` built here.
        strict: raise what would otherwise be counted and answered at the reference; for tests.

    Raises:
        UsageError: a value is not allowed.
    """

    store: str | Path | AgentStore
    backend: str | Backend
    alias: str = "current"
    folder: str | Path | None = None
    min_score: float = 0.0
    metric: str = "any_hit"
    loop: LoopParameters = TABLE_1
    monitor: str = "features"
    alpha: float = 1.0
    beta: float = 0.0
    target_accuracy: float = 0.95
    steering: float = 1.0
    retrain_after: int = 128
    explore_rungs: int = 1
    max_transitions: int = MAX_TRANSITIONS
    max_probes: int | None = None
    seed: int = 0
    provider: str = "cpu"
    strict: bool = False

    def __post_init__(self) -> None:
        self._check_choice("metric", METRICS)
        self._check_choice("monitor", MONITORS)
        self._check_choice("provider", (*PROVIDERS, NATIVE))
        for name in ("retrain_after", "explore_rungs", "max_transitions"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is 1 or more.")
        if self.max_probes is not None and self.max_probes < 0:
            raise UsageError(f"max_probes is {self.max_probes}; allowed is 0 or more, or None.")
        if self.max_transitions < self.retrain_after:
            raise UsageError(
                f"max_transitions is {self.max_transitions}, less than the {self.retrain_after} "
                "of retrain_after; a retraining would never see them all."
            )
        if not 0.0 <= self.min_score <= 1.0:
            raise UsageError(f"min_score is {self.min_score}; allowed is 0 to 1.")
        if not 0.0 < self.target_accuracy < 1.0:
            raise UsageError(
                f"target_accuracy is {self.target_accuracy}; allowed is between 0 and 1."
            )
        if not 0.0 <= self.steering < math.inf:
            raise UsageError(f"steering is {self.steering}; allowed is a finite number from 0 up.")
        for name in ("alpha", "beta"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is a finite number.")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; allowed is 0 or more.")

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        if getattr(self, name) not in allowed:
            raise UsageError(
                f"{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}."
            )
