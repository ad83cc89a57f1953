"""One picture's uploads: decide, encode, send; later compare. No state outlives the picture.

Runs without the loop's lock, so that several pictures can be on their way at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from edge_sdk.agent import Agent, Decision
from edge_sdk.backends.base import Backend, Recognition
from edge_sdk.comparer import Comparer
from edge_sdk.courier import Courier
from edge_sdk.errors import BackendRejected, EngineError
from edge_sdk.faults import Faults
from edge_sdk.gate import FrameGate
from edge_sdk.hooks import Hooks
from edge_sdk.ladder import REFERENCE, Ladder, Rung
from edge_sdk.link import Link
from edge_sdk.lossless import Recode
from edge_sdk.parcel import Packer, Parcel
from edge_sdk.plan import Outcome, Plan
from edge_sdk.policy import choose
from edge_sdk.reading import Picture
from edge_sdk.states import Task

__all__ = ["Errand"]


class Errand:
    """Carries out a plan for one picture.

    Args:
        plan: what the loop wants.
        backend: where to.
        faults: takes what must not reach the caller.
        agreement: (metric, min_score) of the comparison.
        explore_rungs: rungs tried when exploring.
        clock: seconds that only grow.
        hooks: the host's.
        link: what is known of the uplink.
        link_aware: decide only where that gains time.
        gate: passes over frames that did not change, or None.
        recode: makes files smaller and leaves their pixels, or None.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        backend: Backend,
        faults: Faults,
        agreement: tuple[str, float],
        explore_rungs: int,
        clock: Callable[[], float],
        hooks: Hooks | None = None,
        link: Link | None = None,
        link_aware: bool = False,
        gate: FrameGate | None = None,
        recode: Recode | None = None,
    ) -> None:
        self.outcome = Outcome(fallback=plan.fallback)
        self._plan = plan
        self._backend = backend
        self._faults = faults
        self._clock = clock
        self._link, self._link_aware = link or Link(), link_aware
        self._gate, self._recode = gate, recode
        self._timed = partial(self.outcome.timed, clock=clock)
        self._courier = Courier(
            backend, self.outcome, hooks=hooks or Hooks(), faults=faults, clock=clock
        )
        self._comparer = Comparer(
            plan,
            self.outcome,
            self._courier,
            backend=backend,
            agreement=agreement,
            explore_rungs=explore_rungs,
            clock=clock,
        )
        self._todo: Callable[[], None] | None = None
        self._mode = "full"
        self._first_look: float | None = None
        self._decided = 0.0

    def serve(self, picture: Picture) -> tuple[Parcel, Recognition]:
        """Serve the picture.

        Returns:
            The served upload and its answer.

        Raises:
            BackendError: the upload failed. Every other failure is counted only.
        """
        agent = self._plan.agent
        packer = Packer(
            picture,
            self._backend.capabilities,
            lossless=self._plan.lossless,
            codec=None if agent is None else agent.codec,
            recode=self._recode,
        )
        self._courier.size = picture.image.size
        rung = self._fixed(packer)
        if not self.outcome.skipped:
            rung = self._decide(picture, packer)
        self._faults.check()  # strict: before anything is paid for
        if (known := self._unchanged()) is not None:
            return known
        served, answer = self._served(packer, self._serve(packer, rung))
        try:
            self._measure(rung, served, answer)
        except Exception as error:  # a measurement must not cost the answer
            self._faults.note("link", error)
        if rung is not None and self._plan.task not in (Task.COMPRESSED, Task.REFERENCE):
            self._todo = partial(self._comparer.compare, packer, rung, served, answer)
        elif self._plan.weigh:
            self._todo = partial(self._comparer.weigh, packer, anyway=True)
        self._comparer.weigh(packer)
        return served, answer

    @property
    def weight(self) -> int:
        """Bytes that the picture keeps in memory until :meth:`compare`; 0 if nothing is to do."""
        width, height = self._courier.size
        # Pillow pads a pixel to four; all scales of a ladder together are about one picture more.
        return 8 * width * height if self._todo else 0

    def compare(self) -> None:
        """Compare what the plan wants compared; nothing is raised."""
        todo, self._todo = self._todo, None
        try:
            if todo is not None:
                todo()
            self._comparer.ask_canary()
        except Exception as error:  # labels are a by-product; the caller has the answer
            self._faults.note("comparison", error)

    def _decide(self, picture: Picture, packer: Packer) -> int | None:
        """Return the index of the chosen rung, moved to one that the service accepts."""
        agent = self._plan.agent
        if agent is None:
            return None
        try:
            usable = packer.usable(agent.ladder)
            with self._timed("decide"):
                decision = self._decision(agent, picture, packer, usable)
                self._decided = self._clock()
            if not np.isfinite(decision.features).all():
                raise EngineError(f"The engine of agent {agent.id} gave features not finite.")
            decision = decision.coloured(picture.image)
        except Exception as error:  # a broken engine or policy must not stop the host
            self._faults.note("engine", error)
            self.outcome.fallback = "engine"
            return None
        self.outcome.decision = decision
        if not usable:
            self.outcome.fallback = "size"
            return None
        return _moved(decision.rung, usable, agent.ladder)

    def _decision(
        self, agent: Agent, picture: Picture, packer: Packer, usable: list[int]
    ) -> Decision:
        """Let the agent decide, with looks unless the link makes them a loss of time."""

        def candidate(rung: Rung) -> tuple[bytes, float]:
            if self._first_look is None:
                self._first_look = self._clock()
            return packer.candidate(rung)

        if self._mode != "plain" or agent.plain is None:
            return agent.decide(picture.image, candidate, usable or None, self._plan.caution)
        decision = agent.decide(picture.image, None, usable or None, self._plan.caution)
        self.outcome.skipped = "looks"
        point = agent.plain.times(self._plan.caution)
        chosen = choose(decision.scores, point, agent.barred)
        return replace(decision, rung=int(chosen[0]))

    def _fixed(self, packer: Packer) -> int | None:
        """Return the rung to send without a decision, if that is what the link asks for."""
        agent = self._plan.agent
        if agent is None or not self._link_aware or self._plan.task is not Task.COMPRESSED:
            return None
        self._mode = self._link.mode(agent.id)
        if self._mode != "fixed":
            return None
        self.outcome.skipped = "decision"
        usable = packer.usable(agent.ladder)
        return agent.fixed if agent.fixed in usable else None

    def _unchanged(self) -> tuple[Parcel, Recognition] | None:
        """Return the last upload and its answer if the frame did not change since."""
        decision, agent = self.outcome.decision, self._plan.agent
        if self._gate is None or decision is None or self._plan.task is not Task.COMPRESSED:
            return None
        assert agent is not None  # it has decided
        known = self._gate.match(agent.id, decision.features)
        if known is not None:
            self.outcome.skipped = "gate"
        return known

    def _measure(self, rung: int | None, served: Parcel, answer: Recognition) -> None:
        """Tell link and gate of an upload of the agent's own choice."""
        milliseconds = self.outcome.milliseconds
        self._link.uploaded(answer.wire_bytes, milliseconds["upload"] / 1000.0)
        agent, decision = self._plan.agent, self.outcome.decision
        if agent is None or decision is None or rung is None:
            return
        if self._gate is not None:
            self._gate.uploaded(agent.id, decision.features, served, answer)
        sizes = decision.scores.size_ratio
        chosen = self._plan.task in (Task.COMPRESSED, Task.COMPRESSED_AND_REFERENCE)
        if sizes is None or not chosen or self.outcome.skipped or served.as_is:
            return
        whole = len(served.jpeg) / float(sizes[0][rung])  # the reference, as predicted
        fixed = whole if agent.fixed is None else whole * float(sizes[0][agent.fixed])
        plain = None
        if agent.plain is not None:
            plain = fixed - whole * float(sizes[0][int(choose(decision.scores, agent.plain)[0])])
        looks = 0.0 if self._first_look is None else self._decided - self._first_look
        engine = milliseconds["decide"] / 1000.0 - looks
        self._link.decided(agent.id, (engine, looks), fixed - len(served.jpeg), plain)

    def _serve(self, packer: Packer, rung: int | None) -> Parcel:
        agent, task = self._plan.agent, self._plan.task
        with self._timed("encode"):
            compressed = task in (Task.COMPRESSED, Task.COMPRESSED_AND_REFERENCE)
            if agent is None or rung is None or not compressed:
                return packer.reference()
            try:
                return packer.pack(agent.ladder[rung])
            except EngineError as error:  # of a codec, whose engine may fail as an agent's may
                self._faults.note("engine", error)
                self.outcome.fallback = "engine"
                return packer.reference()

    def _served(self, packer: Packer, parcel: Parcel) -> tuple[Parcel, Recognition]:
        """Send what is to be answered; the reference, too, if the service wants no such format."""
        try:
            return self._courier.send(parcel, served=True)
        except BackendRejected as error:
            if parcel.as_is or parcel.rung.format == REFERENCE.format:
                raise
            self._faults.note("format", error)
            self.outcome.fallback = "format"
            return self._courier.send(packer.reference(), served=True)


def _moved(rung: int, usable: list[int], ladder: Ladder) -> int:
    """Return a rung if it is usable, else the next dearer one of its kind, else a safe one."""
    dearer = [one for one in usable if one >= rung and ladder[one].kind == ladder[rung].kind]
    safe = [one for one in usable if ladder[one].pixels == REFERENCE.pixels]
    return next(iter(dearer or safe or usable[::-1]))
