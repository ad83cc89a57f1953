"""A device's loop over a finite set of pictures: each is seen, encoded and asked about once.

The loop, its monitors, budgets and re-training are the product's own; only the way to the service
is replaced by looking up what was found out before, so that thousands of pictures take seconds.
What the device does with one picture is ``edge_sdk.errand`` in a few lines, without its faults.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.agent import Agent, Decision
from edge_sdk.cache import AgentCache
from edge_sdk.config import EdgeConfig
from edge_sdk.faults import Faults
from edge_sdk.ladder import FULL, REFERENCE, Rung
from edge_sdk.loop import Loop
from edge_sdk.memory import Memory
from edge_sdk.plan import Comparison, Outcome, Plan
from edge_sdk.policy import OperatingPoint
from edge_sdk.retrain import RetrainRequest, RetrainResult
from edge_sdk.scenery import Signature
from edge_sdk.states import State, Task
from model_store import Store, StoredAgent
from training.demo.world import ReplayEngine, World
from training.retrain import retrain

__all__ = ["Diary", "LateRetrainer", "play"]


class LateRetrainer:
    """The re-training itself, whose result comes so many pictures later.

    Args:
        pictures: that go by meanwhile.
    """

    def __init__(self, pictures: int) -> None:
        self._pictures, self._left = pictures, 0
        self._result: RetrainResult | None = None

    def start(self, request: RetrainRequest) -> None:
        """Re-train."""
        self._left = self._pictures
        self._result = RetrainResult(retrain(request.to_json()).id)

    def poll(self) -> RetrainResult | None:
        """Return the result after so many looks."""
        self._left -= 1
        if self._result is None or self._left > 0:
            return None
        result, self._result = self._result, None
        return result

    def close(self) -> None:
        """Forget the result."""
        self._result = None


@dataclass
class Diary:
    """What happened, one entry a picture.

    Attributes:
        events: (picture, what happened) of changes of state and agent.
        alarms: by cause.
    """

    scenery: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    p_est: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    wire_bytes: list[int] = field(default_factory=list)
    reference_wire_bytes: list[int] = field(default_factory=list)
    rung: list[str] = field(default_factory=list)
    agent_id: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    served_bytes: list[int] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)
    alarms: dict[str, int] = field(default_factory=dict)

    def timeline(self) -> dict[str, list[Any]]:
        """Return the columns of the figure."""
        names = ("scenery", "state", "p_est", "accuracy", "wire_bytes", "reference_wire_bytes")
        columns = {name: list(getattr(self, name)) for name in (*names, "rung", "agent_id")}
        return {"image": list(range(len(self.state))), **columns}


def play(
    world: World,
    config: EdgeConfig,
    order: Sequence[int],
    *,
    store: Store,
    retrainer: Any = None,
    folder: Path,
    step: Callable[[int], object] = lambda count: None,
) -> Diary:
    """Show a device the pictures in ``order``.

    Args:
        world: the pictures.
        config: the device's; its backend is not used.
        order: places in the world.
        store: the device's agents.
        retrainer: the device's, or None.
        folder: for its memory.
        step: called with 1 after every picture.
    """
    diary, rng = Diary(), np.random.default_rng(config.seed)
    faults = Faults(strict=True)

    def changed(old: State, new: State, reason: str) -> None:
        if {old, new} != {State.INFERENCE, State.ESTIMATION}:
            diary.events.append((len(diary.state), f"{new}: {reason}"))

    memory = Memory(folder / "memory.sqlite", config.max_transitions)
    loop = Loop(
        config,
        agents=AgentCache(store, lambda stored: _agent(world, stored), config.alias, faults),
        memory=memory,
        retrainer=retrainer,
        faults=faults,
        on_state_change=changed,
        on_swap=lambda _, new, reason: diary.events.append((len(diary.state), f"{new}: {reason}")),
    )
    with contextlib.closing(loop):
        for place in order:
            world.now = place
            plan = loop.begin(rng)
            outcome, rung = _errand(world, plan, config)
            loop.finish(plan, outcome)
            faults.check()
            _note(diary, world, plan, outcome, rung, loop.state.p_est, config.metric)
            step(1)
        diary.alarms = dict(loop.alarms)
    return diary


def _agent(world: World, stored: StoredAgent) -> Agent:
    manifest = stored.manifest
    points = [OperatingPoint.from_dict(point) for point in manifest.operating_points]
    point = next((one for one in points if not one.max_probes), replace(points[0], max_probes=0))
    scenery = manifest.scenery or {}
    signature = scenery.get("signature")
    return Agent(
        id=manifest.id,
        engine=ReplayEngine(world, stored),
        operating_point=point,
        scenery=str(scenery.get("name", "")),
        signature=Signature.from_dict(signature) if signature else None,
    )


def _errand(world: World, plan: Plan, config: EdgeConfig) -> tuple[Outcome, Rung]:
    """Do what ``edge_sdk.errand`` does; return the served rung too."""
    agent, place = plan.agent, world.now
    assert agent is not None  # the store has one
    outcome = Outcome(image=f"picture-{place}")
    small = world.small(place)
    decision = agent.decide(small, None, None, plan.caution).coloured(small)
    outcome.decision = decision
    reference = world.found(place, REFERENCE)
    outcome.reference_wire_bytes = reference.size
    plain = FULL[-1] if plan.lossless else REFERENCE
    if world.found(place, plain).size > reference.size:
        plain = REFERENCE
    trip = _Trip(world, outcome, plain)
    chosen = agent.ladder[decision.rung]
    compressed = plan.task in (Task.COMPRESSED, Task.COMPRESSED_AND_REFERENCE)
    served = trip.send(chosen if compressed else plain)
    if plan.task is Task.COMPRESSED_AND_REFERENCE:
        trip.send(plain)
        trip.compare(decision, chosen, config.metric)
    elif plan.task is Task.REFERENCE_AND_TRIAL:
        trip.send(chosen)
        trip.compare(decision, chosen, config.metric)
    elif plan.task is Task.REFERENCE_AND_EXPLORED:
        rung = int(plan.draw * len(agent.ladder))
        trip.send(agent.ladder[rung])
        trip.compare(replace(decision, rung=rung), agent.ladder[rung], config.metric)
    return outcome, served


class _Trip:
    """The uploads of one picture; the same pixels are sent once."""

    def __init__(self, world: World, outcome: Outcome, plain: Rung) -> None:
        self._world, self._outcome, self._plain = world, outcome, plain
        self._sent: set[object] = set()

    def send(self, rung: Rung) -> Rung:
        """Upload a rung, or the reference if that is smaller; return what was sent."""
        world, place = self._world, self._world.now
        if world.found(place, rung).size > world.found(place, REFERENCE).size:
            rung = self._plain
        if rung.pixels not in self._sent:
            self._sent.add(rung.pixels)
            self._outcome.calls += 1
            self._outcome.uploaded_wire_bytes += world.found(place, rung).size
        return rung

    def compare(self, decision: Decision, rung: Rung, metric: str) -> None:
        """Compare a rung's answer with the reference's."""
        world, place = self._world, self._world.now
        found, reference = world.found(place, rung), world.found(place, REFERENCE)
        agreed = world.agreement(place, found.labels, metric)
        ratio = min(1.0, found.size / reference.size)
        self._outcome.comparisons.append(Comparison(decision.rung, agreed, ratio))


def _note(
    diary: Diary, world: World, plan: Plan, outcome: Outcome, rung: Rung, p_est: float, metric: str
) -> None:
    place = world.now
    assert outcome.decision is not None  # every picture is looked at
    diary.scenery.append(world.sceneries[place])
    diary.state.append(plan.state.value)
    diary.p_est.append(p_est)
    diary.accuracy.append(world.agreement(place, world.found(place, rung).labels, metric))
    diary.wire_bytes.append(outcome.uploaded_wire_bytes)
    diary.reference_wire_bytes.append(world.found(place, REFERENCE).size)
    diary.rung.append(rung.name)
    served = plan.state in (State.INFERENCE, State.ESTIMATION)
    diary.agent_id.append(outcome.decision.agent if served else "")
    diary.calls.append(outcome.calls)
    diary.served_bytes.append(world.found(place, rung).size)
