"""Does what the state machine asks for: agents, memory, retrainer, hooks. Its owner holds a lock.

plan = loop.begin(rng)         # what to upload for the picture that just arrived
loop.finish(plan, outcome)     # what was learnt from it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_sdk import standards
from edge_sdk.agent import Agent, Decision
from edge_sdk.allowance import Allowance
from edge_sdk.cache import AgentCache
from edge_sdk.canaries import BackendWatch
from edge_sdk.chronicle import Chronicle, OnStateChange, OnSwap
from edge_sdk.config import EdgeConfig
from edge_sdk.crew import Crew
from edge_sdk.events import (
    Action,
    Arrived,
    Changed,
    Compared,
    Do,
    Event,
    Explored,
    LoadFailed,
    Ranked,
    Returned,
    Strayed,
)
from edge_sdk.faults import Faults
from edge_sdk.lessons import Lessons
from edge_sdk.memory import Memory
from edge_sdk.plan import Outcome, Plan
from edge_sdk.retrain import Retrainer
from edge_sdk.routing import fits_beside
from edge_sdk.scenery import Glimpse
from edge_sdk.states import LoopState, State, Task, advance
from edge_sdk.straying import WINDOWS
from edge_sdk.whereabouts import Whereabouts

__all__ = ["Loop"]


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
        self._lessons = Lessons(config, agents, memory, retrainer, faults)
        self._chronicle = Chronicle(faults, on_state_change, on_swap)
        self._paper = config.monitor == "paper"
        self._crew = Crew(agents, config.load_wait_s)
        self._service = BackendWatch(0 if self._paper else config.canaries, config.canary_every)
        self._allowance = Allowance(
            None if self._paper else config.max_extra_bytes, config.max_extra_calls, config.labels
        )
        self._images = 0
        self.steering = standards.steering(config, self._crew.current)
        self._where = self._watching()
        self._why = ""  # cause of the last alarm
        self.state = standards.begin(config, self._crew.current)

    @property
    def agent_id(self) -> str | None:
        """The current agent, or None while there is none."""
        return self._crew.current.id if self._crew.current else None

    @property
    def swaps(self) -> int:
        """Changes of the current agent so far."""
        return self._chronicle.swaps

    @property
    def alarms(self) -> Counter[str]:
        """Alarms by cause: scenery, backend, noise."""
        return self._chronicle.alarms

    @property
    def retrainings(self) -> int:
        """Retrainings begun so far."""
        return self._lessons.begun

    def begin(self, rng: np.random.Generator) -> Plan:
        """Plan the picture that just arrived."""
        # Both are drawn always, so that a run is reproducible whatever the states are.
        xi, draw = 1.0 - rng.random(), rng.random()
        if self._crew.current is None:
            return Plan(self.state.state, Task.REFERENCE, None, fallback=self._crew.why_none)
        self._images += 1
        if self.state.running and (ended := self._lessons.ended()) is not None:
            self._feed(ended)
        for event in self._crew.loaded():
            self._feed(event)
        self._feed(Arrived(xi))
        now = self.state
        task = self._allowance.within(now.task, self._config.explore_rungs)
        if now.trial:
            # Until the agent on trial is loaded the current one looks, for its features.
            plain = Task.REFERENCE if self._crew.trial is None else task
            return Plan(
                now.state,
                plain,
                self._crew.trial or self._crew.current,
                draw,
                lossless=not self._paper,
            )
        caution, canary = self.steering.caution, None
        if now.state is State.INFERENCE and self._allowance.affords(1, steady=True):
            canary = self._service.due(self._images)
        return Plan(
            now.state,
            task,
            self._crew.decider,
            draw,
            caution=caution,
            lossless=not self._paper,
            canary=canary,
            weigh=self._allowance.in_debt,
        )

    def finish(self, plan: Plan, outcome: Outcome) -> None:
        """Learn from a served picture."""
        if plan.agent is None:
            return
        self._spent(plan, outcome)
        self._check_service(plan, outcome)
        if outcome.decision is not None:
            self._see(outcome.decision)
        elif outcome.fallback == "engine":
            self._feed(LoadFailed(plan.agent.id))  # matters only if it is on trial
        if not outcome.comparisons:
            return
        if self._crew.current is not None and plan.agent.ladder == self._crew.current.ladder:
            self._lessons.remember(plan.agent.ladder, outcome)  # another space would teach nonsense
        if plan.task is Task.REFERENCE_AND_EXPLORED:
            self._feed(Explored(len(outcome.comparisons)))
            return
        for one in outcome.comparisons:
            if plan.task is Task.COMPRESSED_AND_REFERENCE:
                self.steering.verified(one.agreement)
            self._feed(Compared(plan.agent.id, one.agreement, self._lessons.reward(one)))

    def fresh(self, name: str | None) -> Agent:
        """See ``AgentCache.fresh``; needs no lock."""
        return self._agents.fresh(name)

    def use(self, agent: Agent, reason: str) -> None:
        """Begin anew with an agent that the host chose; a retraining is given up."""
        old = self._crew.current
        if self.state.running:
            self._lessons.give_up()
        self._crew.end_trial()
        self._become(agent, None)
        before, self.state = self.state.state, standards.begin(self._config, agent)
        if before is not self.state.state:
            self._chronicle.tell(before, self.state.state, reason)
        if old is None or old.id != agent.id:
            self._chronicle.swapped(old, agent, reason)

    def close(self) -> None:
        """Give up a running retraining and close the memory."""
        self._crew.close()
        self._lessons.close()

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
            self._crew.end_trial()

    def _perform(self, action: Action) -> Sequence[Event]:
        match action.do:
            case Do.RANK:
                recent = self._where.last(self._config.loop.n if self._paper else WINDOWS[0])
                return [Ranked(self._agents.ranked(recent) if recent else ())]
            case Do.LOAD:
                return self._crew.put_on_trial(action.agent)
            case Do.ADOPT:
                self._adopt()
            case Do.ROLL_BACK:
                self._roll_back(action.agent)
            case Do.COLLECT:
                return self._lessons.collect()
            case Do.START:
                assert self._crew.current is not None  # pictures were compared
                return self._lessons.begin(self._crew.current.id)
            case Do.TRIM:
                self._lessons.keep_last(self._config.loop.n)
            case Do.FLUSH:
                self._lessons.keep_last(0)
        return []

    def _adopt(self) -> None:
        new, old = self._crew.trial, self._crew.current
        assert new is not None  # the machine adopts only what was loaded
        assert old is not None
        beside = self._why == "scenery" and not self._paper and fits_beside(new, old)
        self._become(new, old if beside else None)
        self._crew.trial = None
        if new.id != old.id:  # else a false alarm: the current agent passed the test
            self._swapped(old, f"fits scenery {new.scenery!r}" if new.scenery else "fits")

    def _roll_back(self, name: str) -> None:
        bad = self._crew.current
        assert bad is not None
        old = self._crew.former(name)
        if old is None:  # gone meanwhile: what is there is watched on
            self.state = replace(self.state, agent=bad.id)
            return
        self._become(old, None)
        self._swapped(bad, f"agent {bad.id} was worse in its first verified window")

    def _become(self, new: Agent, beside: Agent | None) -> None:
        self._crew.become(new, beside)
        self.steering = standards.steering(self._config, new)
        self._where = self._watching()

    def _swapped(self, old: Agent, reason: str) -> None:
        assert self._crew.current is not None
        self._agents.promote(self._crew.current.id, reason)
        self._chronicle.swapped(old, self._crew.current, reason)

    def _watching(self) -> Whereabouts:
        return Whereabouts(None if self._paper else self._crew.current, self._crew.beside)

    def _spent(self, plan: Plan, outcome: Outcome) -> None:
        self._allowance.used(
            uploaded=outcome.uploaded_wire_bytes,
            reference=outcome.reference_wire_bytes,
            at_least=outcome.reference_at_least,
            extra=max(0, outcome.calls - 1),
            steady=plan.state in (State.INFERENCE, State.ESTIMATION),
        )

    def _check_service(self, plan: Plan, outcome: Outcome) -> None:
        """Look whether the service changed: by its version, by a canary."""
        if self._paper:
            return
        changed = self._service.told(outcome.model_version, plan.canary, outcome.canary)
        if changed is not None:
            self._feed(Changed(changed))
        elif outcome.truth is not None:
            self._service.keep(*outcome.truth)

    def _see(self, decision: Decision) -> None:
        """Take in what the current picture looks like; feed what follows from it."""
        if self._where.see(Glimpse(decision.features, decision.palette), decision.agent):
            self._feed(Strayed())
        elif self._where.returned:
            self._return()

    def _return(self) -> None:
        assert self._crew.beside is not None
        assert self._crew.current is not None
        if self.state.state not in (State.INFERENCE, State.ESTIMATION):
            return
        old, new = self._crew.current, self._crew.beside
        self._become(new, old)
        self._feed(Returned(new.id))
        self._swapped(old, "most pictures are of its scenery again")

    def _changed(self, before: LoopState, new: State, cause: Event) -> None:
        alarm = ""
        if new is State.QUERYING and before.state in (State.INFERENCE, State.ESTIMATION):
            alarm = self._why = self._cause(cause)
        self._chronicle.changed(before, new, cause, alarm)

    def _cause(self, cause: Event) -> str:
        """Tell why an alarm rang: other pictures, another model, or answers that vary."""
        if isinstance(cause, Strayed) or self._where.suspicious:
            return "scenery"
        if isinstance(cause, Changed) or self._service.suspicious:
            return "backend"
        return "noise"
