"""The four states of section 3.5 as a pure function of events: no I/O, no clock, no randomness.

    INFERENCE ──ξ ≤ p_est──▶ ESTIMATION ──Ā_n < A_0──▶ QUERYING ──none passes──▶ RETRAINING
        ▲ ▲──────ξ > p_est───────┘ └─ξ ≤ p_est─▶(stays)  │   ▲                    │      │
        │   (or the features stray, from both)           │   └─retraining failed──┘      │
        └──────────────── Ā*_n ≥ A_0 ────────────────────┘                               │
        └──────────────── r̄_n > r_th and Ā*_n ≥ A_0 ─────────────────────────────────────┘

Where the paper is silent:

* agreement tells when an agent is too daring, never when it is too careful: a night agent is as
  accurate by day, only dear. So a change of the features alone also leads to querying;
* a change of the service's model leads there too;
* after an alarm the paper's monitor looks at n pictures before it ranks sceneries: the first few
  of a new scenery ring the alarm, and a window with old ones in it is near to no scenery;
* a tested agent is given up as soon as it can no longer reach A_0;
* the default monitor takes a retrained agent back if its first verified window is worse than the
  old agent's was, or than A_0 if that is not known of this scenery;
* when retraining itself fails (no trainer, or it crashed) the device rests at the reference and
  buys no labels, then looks for a cached agent again instead of paying double for ever.

    loop_state, actions = advance(loop_state, Arrived(xi=0.7))
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from edge_sdk.estimator import TABLE_1, Estimator, LoopParameters, mean
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
    Retrained,
    RetrainFailed,
    Returned,
    Strayed,
)
from edge_sdk.evidence import Betting, Evidence

__all__ = ["LoopState", "State", "Task", "Trial", "advance"]

#: Rests double with every failed retraining in a row, up to 2 to this power.
_MAX_DOUBLINGS = 6


class State(StrEnum):
    """The states of Fig. 4."""

    INFERENCE = "inference"
    ESTIMATION = "estimation"
    QUERYING = "querying"
    RETRAINING = "retraining"


class Task(StrEnum):
    """What is uploaded for one picture; the caller gets the answer to the first one named."""

    COMPRESSED = "compressed"
    COMPRESSED_AND_REFERENCE = "compressed+reference"
    REFERENCE_AND_TRIAL = "reference+trial"
    REFERENCE_AND_EXPLORED = "reference+explored"
    REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Trial:
    """An agent under test, with its agreements and rewards so far."""

    agent: str
    agreements: tuple[float, ...] = ()
    rewards: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Everything the state machine knows; immutable.

    Attributes:
        agent: id of the current agent.
        retrain_after: explored transitions before a retraining; the paper's T_start.
        estimator: watches the current agent.
        trial: the cached agent in querying, the retrained one in retraining, else None.
        candidates: cached agents still to be tried.
        missing: explored transitions still wanted before the retrainer is started.
        running: whether the retrainer is at work.
        rest: pictures until cached agents are ranked, the ranking one included; they are served
            at the reference alone, after an alarm and after a failed retraining.
        failures: failed retrainings in a row.
        predecessor: the agent before a retrained one, "" for none.
        bar: mean agreement below which the retrained one is taken back.
    """

    agent: str
    retrain_after: int
    estimator: Estimator | Evidence
    state: State = State.INFERENCE
    trial: Trial | None = None
    candidates: tuple[str, ...] = ()
    missing: int = 0
    running: bool = False
    rest: int = 0
    failures: int = 0
    predecessor: str = ""
    bar: float = 0.0

    @classmethod
    def start(
        cls, agent: str, parameters: LoopParameters | Betting = TABLE_1, retrain_after: int = 128
    ) -> LoopState:
        """Return the state that a device begins in: inference, nothing observed.

        Args:
            agent: its id.
            parameters: Table 1's for the paper's monitor, ``Betting`` for the default one.
            retrain_after: see the class.
        """
        estimator: Estimator | Evidence
        if isinstance(parameters, LoopParameters):
            estimator = Estimator(parameters)
        else:
            estimator = Evidence(parameters)
        return cls(agent=agent, retrain_after=retrain_after, estimator=estimator)

    @property
    def parameters(self) -> LoopParameters | Betting:
        """The monitor's parameters."""
        return self.estimator.parameters

    @property
    def p_est(self) -> float:
        """The estimation probability; it matters in inference and estimation only."""
        return self.estimator.p_est

    @property
    def ranking(self) -> bool:
        """Tell whether the cached agents are to be ranked now."""
        return self.state is State.QUERYING and self.trial is None and self.rest == 0

    @property
    def task(self) -> Task:
        """What to upload for a picture that arrives in this state."""
        match self.state:
            case State.INFERENCE:
                return Task.COMPRESSED
            case State.ESTIMATION:
                return Task.COMPRESSED_AND_REFERENCE
            case _ if self.trial is not None:
                return Task.REFERENCE_AND_TRIAL
            case State.RETRAINING if self.rest == 0:
                return Task.REFERENCE_AND_EXPLORED
            case _:
                return Task.REFERENCE


Step = tuple[LoopState, tuple[Action, ...]]


def advance(now: LoopState, event: Event) -> Step:
    """Return the next state and what to do; an event that no longer concerns it changes nothing."""
    match event:
        case Arrived(xi=xi):
            return _arrived(now, xi)
        case Compared() if now.trial is not None:
            return _tested(now, now.trial, event)
        case Compared() if now.state in (State.INFERENCE, State.ESTIMATION):
            return _estimated(now, event)
        case Strayed() | Changed() if now.state in (State.INFERENCE, State.ESTIMATION):
            return _alarmed(now)
        case Returned(agent=agent) if now.state in (State.INFERENCE, State.ESTIMATION):
            # It was tested when it was adopted; the estimator watches it from the beginning.
            return replace(now, agent=agent, estimator=now.estimator.restarted(())), ()
        case Explored(count=count) if now.task is Task.REFERENCE_AND_EXPLORED:
            return _explored(now, count)
        case Ranked(agents=agents) if now.ranking:
            return _next_candidate(replace(now, candidates=agents))
        case LoadFailed(agent=agent) if now.trial is not None and now.trial.agent == agent:
            return _rejected(now)
        case Retrained(agent=agent) if now.running:
            trial = Trial(agent)
            return replace(now, running=False, trial=trial), (Action(Do.LOAD, agent),)
        case RetrainFailed() if now.task is Task.REFERENCE_AND_EXPLORED:
            return _rest(now), ()
        case _:
            return now, ()


def _arrived(now: LoopState, xi: float) -> Step:
    if now.state in (State.INFERENCE, State.ESTIMATION):
        estimate = xi <= now.p_est
        return replace(now, state=State.ESTIMATION if estimate else State.INFERENCE), ()
    if now.rest == 0:
        return now, ()
    rested = replace(now, rest=now.rest - 1)
    if rested.rest:
        return rested, ()
    return replace(rested, state=State.QUERYING), (Action(Do.RANK),)


def _estimated(now: LoopState, event: Compared) -> Step:
    # An answer may come late, from another thread: about an agent that was swapped meanwhile, or
    # when the loop is back in inference, where it counts all the same.
    if event.agent != now.agent:
        return now, ()
    estimator = now.estimator.observe(event.agreement)
    watched = replace(now, estimator=estimator)
    if estimator.judged and now.predecessor and mean(estimator.window) < now.bar:
        return _rolled_back(watched)
    return _alarmed(watched) if estimator.failing else (watched, ())


def _alarmed(now: LoopState) -> Step:
    looking = replace(now, state=State.QUERYING, rest=now.estimator.patience + 1)
    return looking, (Action(Do.TRIM),)


def _rolled_back(now: LoopState) -> Step:
    old = now.predecessor
    again = replace(now, agent=old, predecessor="", estimator=now.estimator.restarted(()))
    looking, actions = _alarmed(again)
    return looking, (Action(Do.ROLL_BACK, old), *actions)


def _tested(now: LoopState, trial: Trial, event: Compared) -> Step:
    if event.agent != trial.agent:
        return now, ()
    trial = Trial(trial.agent, (*trial.agreements, event.agreement), (*trial.rewards, event.reward))
    tested = replace(now, trial=trial)
    match _verdict(tested, trial):
        case "passed":
            return _adopt(tested, trial)
        case "failed":
            return _rejected(tested)
        case _:
            return tested, ()


def _verdict(now: LoopState, trial: Trial) -> Literal["passed", "failed", "open"]:
    found = now.estimator.verdict(trial.agreements)
    if found != "passed":
        return found
    # Only a retrained agent has to earn the reward threshold as well (section 3.5.4).
    poor = now.state is State.RETRAINING and mean(trial.rewards) <= now.parameters.r_th
    return "failed" if poor else "passed"


def _adopt(now: LoopState, trial: Trial) -> Step:
    adopt = Action(Do.ADOPT, trial.agent)
    actions = (adopt, Action(Do.FLUSH)) if now.state is State.RETRAINING else (adopt,)
    estimator = now.estimator.restarted(trial.agreements)
    begun = LoopState(agent=trial.agent, retrain_after=now.retrain_after, estimator=estimator)
    if now.state is State.QUERYING or trial.agent == now.agent:
        return begun, actions
    # What the old agent reached before the scenery changed says nothing about this one.
    known = now.estimator.average if now.estimator.failing else None
    bar = now.parameters.A_0 if known is None else known
    return replace(begun, predecessor=now.agent, bar=bar), actions


def _rejected(now: LoopState) -> Step:
    if now.state is State.QUERYING:
        return _next_candidate(now)
    return replace(now, trial=None, missing=max(1, now.retrain_after // 2)), ()


def _next_candidate(now: LoopState) -> Step:
    if now.candidates:
        first, *rest = now.candidates
        trying = replace(now, trial=Trial(first), candidates=tuple(rest))
        return trying, (Action(Do.LOAD, first),)
    collecting = replace(now, state=State.RETRAINING, trial=None, missing=now.retrain_after)
    return collecting, (Action(Do.COLLECT),)


def _explored(now: LoopState, count: int) -> Step:
    missing = max(0, now.missing - count)
    start = missing == 0 and not now.running
    collected = replace(now, missing=missing, running=now.running or start)
    return collected, (Action(Do.START),) if start else ()


def _rest(now: LoopState) -> LoopState:
    pictures = now.retrain_after * 2 ** min(now.failures, _MAX_DOUBLINGS)
    return replace(now, running=False, missing=0, rest=pictures, failures=now.failures + 1)
