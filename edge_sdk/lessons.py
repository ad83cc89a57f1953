"""What a device learns from: comparisons are remembered, and a retrainer makes agents of them.

Neither the memory's disk nor the retrainer may stop the host: what fails is counted, and a
retraining that cannot begin or end is a failed one.

    lessons.remember(agent.ladder, outcome)
    lessons.begin(agent.id)                 # what follows for the state machine: nothing, mostly
    lessons.ended()                         # Retrained, RetrainFailed, or None while it runs
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_sdk.cache import AgentCache
from edge_sdk.config import EdgeConfig
from edge_sdk.events import Event, Retrained, RetrainFailed
from edge_sdk.faults import Faults
from edge_sdk.ladder import Ladder
from edge_sdk.memory import Memory, Transition
from edge_sdk.plan import Comparison, Outcome
from edge_sdk.retrain import Retrainer, RetrainRequest
from model_store.errors import AdaCompressError

__all__ = ["Lessons"]


class Lessons:
    """The memory and the retrainer. Not thread-safe: the loop holds a lock.

    Args:
        config: see ``EdgeConfig``.
        agents: the store that a new agent comes to.
        memory: takes transitions; None if its file cannot be used.
        retrainer: makes new agents; None if there is none on this device.
        faults: takes what must not reach the caller.
    """

    def __init__(
        self,
        config: EdgeConfig,
        agents: AgentCache,
        memory: Memory | None,
        retrainer: Retrainer | None,
        faults: Faults,
    ) -> None:
        self._config = config
        self._agents = agents
        self._memory = memory
        self._retrainer = retrainer
        self._faults = faults
        #: Retrainings that were to begin.
        self.begun = 0

    def reward(self, one: Comparison) -> float:
        """Return the reward r of a comparison."""
        return self._config.alpha * one.agreement - one.size_ratio + self._config.beta

    def remember(self, ladder: Ladder, outcome: Outcome) -> None:
        """Log the comparisons of one picture, whose rungs index ``ladder``."""
        if self._memory is None:
            return
        assert outcome.decision is not None  # nothing is compared without
        features = outcome.decision.features
        space = f"{features.size} {' '.join(rung.name for rung in ladder)}"
        transitions = [
            Transition(
                features=features,
                rung=one.rung,
                reward=self.reward(one),
                agreement=one.agreement,
                size_ratio=one.size_ratio,
                image=outcome.image,
                palette=outcome.decision.palette,
            )
            for one in outcome.comparisons
        ]
        self._faults.guarded("memory", self._memory.use, space)
        self._faults.guarded("memory", self._memory.append, transitions)

    def keep_last(self, count: int) -> None:
        """Forget all but the last ``count`` transitions."""
        if self._memory is not None:
            self._faults.guarded("memory", self._memory.keep_last, count)

    def collect(self) -> Sequence[Event]:
        """Return what follows from collecting: a failure if nobody could make anything of it."""
        if self._retrainer is not None and self._memory is not None:
            return []
        thing = "retrainer" if self._retrainer is None else "memory"
        missing = AdaCompressError(f"Retraining is impossible: there is no {thing}.")
        self._faults.note("retrainer", missing)
        return [RetrainFailed()]

    def begin(self, parent: str) -> Sequence[Event]:
        """Start a retraining of the agent ``parent``; return what follows at once."""
        self.begun += 1
        try:
            assert self._retrainer is not None  # see collect
            assert self._memory is not None
            self._retrainer.start(
                RetrainRequest(
                    store=self._agents.root,
                    parent=parent,
                    memory=str(Path(self._memory.path).absolute()),
                    scenery=self._agents.next_scenery(),
                    alpha=self._config.alpha,
                    beta=self._config.beta,
                    target_accuracy=self._config.target_accuracy,
                    seed=self._config.seed + self.begun,
                )
            )
        except Exception as error:  # a retrainer must not stop the host
            self._faults.note("retrainer", error)
            return [RetrainFailed()]
        return []

    def ended(self) -> Event | None:
        """Return how the retraining that runs has ended, or None if it has not."""
        assert self._retrainer is not None  # it was started
        try:
            result = self._retrainer.poll()
        except Exception as error:  # see begin
            self._faults.note("retrainer", error)
            return RetrainFailed()
        if result is None:
            return None
        if result.agent is None:
            self._faults.note("retrainer", AdaCompressError(f"Retraining failed: {result.reason}."))
            return RetrainFailed()
        return Retrained(result.agent)

    def give_up(self) -> None:
        """End a retraining that runs."""
        if self._retrainer is not None:
            self._faults.guarded("retrainer", self._retrainer.close)

    def close(self) -> None:
        """Give up a running retraining and close the memory."""
        self.give_up()
        if self._memory is not None:
            self._faults.guarded("memory", self._memory.close)
