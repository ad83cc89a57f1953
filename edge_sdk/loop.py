"""Does what the state machine asks for: agents, memory, retrainer, hooks. Its owner holds a lock.

plan = loop.begin(rng)         # what to upload for the picture that just arrived
loop.finish(plan, outcome)     # what was learnt from it
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agent import Agent
from edge_sdk.cache import AgentCache
from edge_sdk.config import EdgeConfig
from edge_sdk.errand import Comparison, Outcome, Plan
from edge_sdk.events import (
    Action,
    Arrived,
    Compared,
    Do,
    Event,
    Explored,
    LoadFailed,
    Ranked,
    Retrained,
    RetrainFailed,
    Strayed,
)
from edge_sdk.faults import Faults
from edge_sdk.memory import Memory, Transition
from edge_sdk.retrain import Retrainer, RetrainRequest
from edge_sdk.states import LoopState, State, Task, advance, reason_of
from edge_sdk.steering import Steering
from model_store.errors import AdaCompressError

__all__ = ["Loop", "OnStateChange", "OnSwap"]

_log = logging.getLogger("edge_sdk")

OnStateChange = Callable[[State, State, str], None]
OnSwap = Callable[[str, str, str], None]


class Loop:
    """The inference-estimation-querying-retraining loop around one state machine.

    Args:
        config: see ``EdgeConfig``.
        agents: the cached agents.
        memory: takes transitions; None if its file cannot be used.
        retrainer: makes new agents; None if there is none on this device.
        faults: takes what must not reach the caller.
        on_state_change: called with the old state, the new one and the reason.
        on_swap: called with the old agent's id, the new one's and the reason.
    """

    def __init__(
        self,
        config: EdgeConfig,
        *,
        agents: AgentCache,
        memory: Memory | None,
        retrainer: Retrainer | None,
        faults: Faults,
        on_state_change: OnStateChange | None = None,
        on_swap: OnSwap | None = None,
    ) -> None:
        self._config = config
        self._agents = agents
        self._memory = memory
        self._retrainer = retrainer
        self._faults = faults
        self._on_state_change = on_state_change
        self._on_swap = on_swap
        self._agent, self._no_agent = agents.first()
        self._trial: Agent | None = None
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=config.loop.n)
        self._strange = 0  # pictures in a row whose window lay outside the current scenery
        self.steering = self._steered()
        self.swaps = 0
        self.retrainings = 0
        first = self._agent.id if self._agent else ""
        self.state = LoopState.start(first, config.loop, config.retrain_after)

    @property
    def agent_id(self) -> str | None:
        """The current agent, or None while there is none."""
        return self._agent.id if self._agent else None

    def begin(self, rng: np.random.Generator) -> Plan:
        """Plan the picture that just arrived."""
        # Both are drawn always, so that a run is reproducible whatever the states are.
        xi, draw = 1.0 - rng.random(), rng.random()
        if self._agent is None:
            return Plan(self.state.state, Task.REFERENCE, None, fallback=self._no_agent)
        if self.state.running:
            self._poll()
        self._feed(Arrived(xi))
        now = self.state
        if now.trial:
            return Plan(now.state, now.task, self._trial, draw)
        return Plan(now.state, now.task, self._agent, draw, caution=self.steering.caution)

    def finish(self, plan: Plan, outcome: Outcome) -> None:
        """Learn from a served picture."""
        if plan.agent is None:
            return
        if outcome.decision is not None:
            self._remember(outcome.decision.features)
            self._watch()
        elif outcome.fallback == "engine":
            self._feed(LoadFailed(plan.agent.id))  # matters only if it is on trial
        if not outcome.comparisons:
            return
        self._log(plan.agent, outcome)
        if plan.task is Task.REFERENCE_AND_EXPLORED:
            self._feed(Explored(len(outcome.comparisons)))
            return
        for one in outcome.comparisons:
            if plan.task is Task.COMPRESSED_AND_REFERENCE:
                self.steering.verified(one.agreement)
            self._feed(Compared(plan.agent.id, one.agreement, self._reward(one)))

    def close(self) -> None:
        """Give up a running retraining and close the memory."""
        for part, thing in (("retrainer", self._retrainer), ("memory", self._memory)):
            if thing is not None:
                self._guarded(part, thing.close)

    def _feed(self, event: Event) -> None:
        pending = [event]
        while pending:
            cause = pending.pop(0)
            before = self.state
            self.state, actions = advance(before, cause)
            for action in actions:
                pending += self._perform(action)
            if self.state.state is not before.state:
                self._changed(before, self.state.state, cause)
        if self.state.trial is None:
            self._trial = None  # a rejected engine holds memory that a device may need

    def _perform(self, action: Action) -> Sequence[Event]:
        match action.do:
            case Do.RANK:
                return [Ranked(self._agents.ranked(np.stack(self._recent)) if self._recent else ())]
            case Do.LOAD:
                self._trial = self._usable(action.agent)
                return [] if self._trial else [LoadFailed(action.agent)]
            case Do.ADOPT:
                self._adopt()
            case Do.COLLECT if self._retrainer is None or self._memory is None:
                thing = "retrainer" if self._retrainer is None else "memory"
                missing = AdaCompressError(f"Retraining is impossible: there is no {thing}.")
                self._faults.note("retrainer", missing)
                return [RetrainFailed()]
            case Do.START:
                return self._start()
            case Do.TRIM | Do.FLUSH if self._memory is not None:
                keep = self._config.loop.n if action.do is Do.TRIM else 0
                self._guarded("memory", self._memory.keep_last, keep)
        return []

    def _usable(self, name: str) -> Agent | None:
        if self._agent is not None and self._agent.id == name:
            return self._agent
        return self._agents.load(name)

    def _adopt(self) -> None:
        new, old = self._trial, self._agent
        assert new is not None  # the machine adopts only what was loaded
        assert old is not None
        self._agent, self._trial = new, None
        self.steering = self._steered()
        if new.id == old.id:
            return  # a false alarm: the current agent passed the test
        reason = f"fits scenery {new.scenery!r}" if new.scenery else "fits the scenery"
        self.swaps += 1
        self._agents.promote(new.id, reason)
        _log.info("swapped old=%s new=%s", old.id, new.id)
        if self._on_swap is not None:
            self._guarded("hook", self._on_swap, old.id, new.id, reason)

    def _start(self) -> Sequence[Event]:
        self.retrainings += 1
        try:
            assert self._retrainer is not None  # see Do.COLLECT
            assert self._memory is not None
            assert self._agent is not None
            self._retrainer.start(
                RetrainRequest(
                    store=self._agents.root,
                    parent=self._agent.id,
                    memory=str(Path(self._memory.path).absolute()),
                    scenery=self._agents.next_scenery(),
                    alpha=self._config.alpha,
                    beta=self._config.beta,
                    target_accuracy=self._config.target_accuracy,
                    seed=self._config.seed + self.retrainings,
                )
            )
        except Exception as error:  # a retrainer must not stop the host
            self._faults.note("retrainer", error)
            return [RetrainFailed()]
        return []

    def _poll(self) -> None:
        assert self._retrainer is not None  # it was started
        try:
            result = self._retrainer.poll()
        except Exception as error:  # see _start
            self._faults.note("retrainer", error)
            self._feed(RetrainFailed())
            return
        if result is None:
            return
        if result.agent is None:
            self._faults.note("retrainer", AdaCompressError(f"Retraining failed: {result.reason}."))
            self._feed(RetrainFailed())
        else:
            self._feed(Retrained(result.agent))

    def _steered(self) -> Steering:
        """Return the current agent's steering, which begins at its certified trade-off."""
        point = self._agent.operating_point if self._agent else None
        target = point.target if point else None
        return Steering(self._config.steering, target or self._config.target_accuracy)

    def _remember(self, features: NDArray[np.float32]) -> None:
        if self._recent and self._recent[-1].shape != features.shape:
            self._recent.clear()  # an agent of another prefix: not comparable
        self._recent.append(features)

    def _watch(self) -> None:
        """Tell that the scenery changed once windows lie outside it for n/2 pictures in a row.

        A single window outside is one in a hundred even at home.
        """
        signature = self._agent.signature if self._agent else None
        if self._config.monitor == "paper" or signature is None:
            return
        full = len(self._recent) == self._recent.maxlen
        strange = full and not signature.near(np.stack(self._recent))
        self._strange = self._strange + 1 if strange else 0
        if self._strange >= max(1, self._config.loop.n // 2):
            self._strange = 0
            self._feed(Strayed())

    def _log(self, agent: Agent, outcome: Outcome) -> None:
        """Log transitions of the current agent's space; of another's they would teach nonsense."""
        if self._memory is None or self._agent is None or agent.ladder != self._agent.ladder:
            return
        assert outcome.decision is not None  # nothing is compared without
        features = outcome.decision.features
        space = f"{features.size} {' '.join(rung.name for rung in agent.ladder)}"
        transitions = [
            Transition(
                features=features,
                rung=one.rung,
                reward=self._reward(one),
                agreement=one.agreement,
                size_ratio=one.size_ratio,
                image=outcome.image,
            )
            for one in outcome.comparisons
        ]
        self._guarded("memory", self._memory.use, space)
        self._guarded("memory", self._memory.append, transitions)

    def _reward(self, one: Comparison) -> float:
        return self._config.alpha * one.agreement - one.size_ratio + self._config.beta

    def _changed(self, before: LoopState, new: State, cause: Event) -> None:
        reason = reason_of(before, cause)
        drawn = isinstance(cause, Arrived) and new is not State.QUERYING
        level = logging.DEBUG if drawn else logging.INFO
        _log.log(level, "state old=%s new=%s reason=%r", before.state, new, reason)
        if self._on_state_change is not None:
            self._guarded("hook", self._on_state_change, before.state, new, reason)

    def _guarded(self, part: str, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:  # hooks, disks and children must not stop the host
            self._faults.note(part, error)
