"""One picture's uploads: decide, encode, send; later compare. No state outlives the picture.

Runs without the loop's lock, so that several pictures can be on their way at once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from edge_sdk.agent import Agent, Decision
from edge_sdk.agreement import compare
from edge_sdk.backends.base import Backend, Label, Recognition
from edge_sdk.canaries import Canary
from edge_sdk.codec import shown
from edge_sdk.errors import BackendRejected, EngineError
from edge_sdk.faults import Faults
from edge_sdk.gate import FrameGate
from edge_sdk.hooks import Hooks, Upload
from edge_sdk.ladder import REFERENCE, Ladder, Rung
from edge_sdk.link import Link
from edge_sdk.lossless import Recode
from edge_sdk.parcel import Packer, Parcel
from edge_sdk.policy import choose
from edge_sdk.reading import Picture
from edge_sdk.states import State, Task

__all__ = ["Comparison", "Errand", "Outcome", "Plan"]

#: Any-hit and top-1 are 0 or 1; of the fractions, half the labels count as agreement here, where
#: it only decides which rung is worth exploring next.
_AGREED = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What the loop wants for one picture.

    Attributes:
        state: the loop's state.
        task: what to upload.
        agent: who looks at the picture, or None.
        draw: random, in [0, 1): where exploration begins.
        fallback: why nobody looks, or "".
        caution: factor on the agent's trade-off.
        lossless: the reference may be sent in its smallest entropy coding.
        canary: a stored upload to ask about again, or None.
        weigh: find out what the reference weighs, sent or not.
    """

    state: State
    task: Task
    agent: Agent | None
    draw: float = 0.0
    fallback: str = ""
    caution: float = 1.0
    lossless: bool = False
    canary: Canary | None = None
    weigh: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """A rung's answer against the reference's: agreement A and size ratio Δs."""

    rung: int
    agreement: float
    size_ratio: float


@dataclass(slots=True)
class Outcome:
    """What became of one picture; filled in on the way.

    Attributes:
        fallback: why the reference was served although it was not planned, or "".
        decision: what the agent said, or None.
        image: key of the picture; set if there are comparisons.
        comparisons: in the order they were made.
        calls: uploads tried.
        uploaded_wire_bytes: of all answered uploads.
        drops: comparisons given up, by reason.
        milliseconds: by part.
        reference_wire_bytes: what the reference weighs as a request, or None if it was not encoded.
        reference_at_least: what it weighs at least.
        model_version: what the service says about its model, or None.
        truth: the reference's upload and its answer, once both are there; else None.
        canary: the answer to the canary, or None.
        skipped: what was spared: ``gate`` (an upload), ``decision`` or ``looks``; or "".
    """

    fallback: str = ""
    decision: Decision | None = None
    image: str = ""
    comparisons: list[Comparison] = field(default_factory=list)
    calls: int = 0
    uploaded_wire_bytes: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    milliseconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("load", "decide", "encode", "upload"), 0.0)
    )
    reference_wire_bytes: int | None = None
    reference_at_least: int = 0
    model_version: str | None = None
    truth: tuple[bytes, tuple[Label, ...]] | None = None
    canary: tuple[Label, ...] | None = None
    skipped: str = ""


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
        self._metric, self._min_score = agreement
        self._explore_rungs = explore_rungs
        self._clock = clock
        self._hooks = hooks or Hooks()
        self._link, self._link_aware = link or Link(), link_aware
        self._gate, self._recode = gate, recode
        self._answers: dict[object, Recognition] = {}
        self._size = (0, 0)  # of the picture, which the caller's boxes are in
        self._todo: Callable[[], None] | None = None
        self._mode = "full"
        self._first_look: float | None = None
        self._decided = 0.0

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time spent inside to ``part``."""
        begun = self._clock()
        try:
            yield
        finally:
            self.outcome.milliseconds[part] += (self._clock() - begun) * 1000.0

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
        self._size = picture.image.size
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
            self._todo = partial(self._compare, packer, rung, served, answer)
        elif self._plan.weigh:
            self._todo = partial(self._weigh, packer, anyway=True)
        self._weigh(packer)
        return served, answer

    @property
    def weight(self) -> int:
        """Bytes that the picture keeps in memory until :meth:`compare`; 0 if nothing is to do."""
        # Pillow pads a pixel to four; all scales of a ladder together are about one picture more.
        return 8 * self._size[0] * self._size[1] if self._todo else 0

    def compare(self) -> None:
        """Compare what the plan wants compared; nothing is raised."""
        todo, self._todo = self._todo, None
        try:
            if todo is not None:
                todo()
            self._ask_canary()
        except Exception as error:  # labels are a by-product; the caller has the answer
            self._faults.note("comparison", error)

    def _ask_canary(self) -> None:
        if self._plan.canary is not None:
            parcel = Parcel(REFERENCE, self._plan.canary.jpeg)
            told = self._send_aside(parcel, "canary-upload", ())
            self.outcome.canary = None if told is None else told[1].labels

    def _weigh(self, packer: Packer, *, anyway: bool = False) -> None:
        self.outcome.reference_at_least = packer.least_reference
        known = packer.reference_jpeg if anyway else packer.known_reference
        if known is not None:
            self.outcome.reference_wire_bytes = self._backend.wire_size(known)

    def _decide(self, picture: Picture, packer: Packer) -> int | None:
        """Return the index of the chosen rung, moved to one that the service accepts."""
        agent = self._plan.agent
        if agent is None:
            return None
        try:
            usable = packer.usable(agent.ladder)
            with self.timed("decide"):
                decision = self._decision(agent, picture, packer, usable)
                self._decided = self._clock()
            if not np.isfinite(decision.features).all():
                raise EngineError(f"The engine of agent {agent.id} gave features not finite.")
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
        with self.timed("encode"):
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
            return self._send(parcel, served=True)
        except BackendRejected as error:
            if parcel.as_is or parcel.rung.format == REFERENCE.format:
                raise
            self._faults.note("format", error)
            self.outcome.fallback = "format"
            return self._send(packer.reference(), served=True)

    def _send(
        self, parcel: Parcel, *, served: bool, pixels: object = None
    ) -> tuple[Parcel, Recognition]:
        """Upload, unless an upload of the same pixels was answered already.

        Returns:
            What was sent, which the host may have changed, and the answer.
        """
        pixels = parcel.pixels if pixels is None else pixels
        known = self._answers.get(pixels)
        if known is not None:
            return parcel, known
        sent = self._hooks.changed(self._faults, Upload(parcel.jpeg, parcel.rung, served))
        self.outcome.calls += 1
        with self.timed("upload"):
            answer = self._backend.recognize(sent.jpeg)
        part = None if parcel.as_is else shown(self._size, sent.rung)
        answer = answer.at(self._size, part)
        self.outcome.uploaded_wire_bytes += answer.wire_bytes
        self.outcome.model_version = answer.model_version
        self._answers[pixels] = answer
        return replace(parcel, jpeg=sent.jpeg), answer

    def _send_aside(
        self, parcel: Parcel, reason: str, pixels: object = None
    ) -> tuple[Parcel, Recognition] | None:
        try:
            return self._send(parcel, served=False, pixels=pixels)
        except Exception as error:  # see compare
            self._faults.log_once(reason, error)
            self.outcome.drops[reason] += 1
            return None

    def _compare(self, packer: Packer, rung: int, served: Parcel, answer: Recognition) -> None:
        match self._plan.task:
            case Task.COMPRESSED_AND_REFERENCE:
                with self.timed("encode"):
                    reference = packer.reference()
                truth = self._send_aside(reference, "reference-upload")
                if truth is not None:
                    self.outcome.truth = (truth[0].jpeg, truth[1].labels)
                    self._note(packer, rung, served, truth[1], answer)
            case Task.REFERENCE_AND_TRIAL:
                self._try(packer, rung, answer, "trial-upload")
            case Task.REFERENCE_AND_EXPLORED:
                self._explore(packer, answer)
        self._weigh(packer)

    def _try(self, packer: Packer, rung: int, truth: Recognition, reason: str) -> float | None:
        assert self._plan.agent is not None  # it has decided
        with self.timed("encode"):
            parcel = packer.pack(self._plan.agent.ladder[rung])
        tried = self._send_aside(parcel, reason)
        return None if tried is None else self._note(packer, rung, tried[0], truth, tried[1])

    def _explore(self, packer: Packer, truth: Recognition) -> None:
        """Try a random rung, then bisect: agreed, a cheaper one; disagreed, a dearer one."""
        assert self._plan.agent is not None  # it has decided
        left = packer.usable(self._plan.agent.ladder)
        place = int(self._plan.draw * len(left))
        for _ in range(self._explore_rungs):
            agreement = self._try(packer, left[place], truth, "explored-upload")
            if agreement is None:
                return
            left = left[:place] if agreement >= _AGREED else left[place + 1 :]
            if not left:
                return
            place = len(left) // 2

    def _note(
        self, packer: Packer, rung: int, parcel: Parcel, truth: Recognition, answer: Recognition
    ) -> float:
        compared = compare(truth.labels, answer.labels, self._min_score)
        agreement = float(getattr(compared, self._metric))
        ratio = len(parcel.jpeg) / len(packer.reference_jpeg)
        self.outcome.image = packer.key
        self.outcome.comparisons.append(Comparison(rung, agreement, ratio))
        return agreement


def _moved(rung: int, usable: list[int], ladder: Ladder) -> int:
    """Return a rung if it is usable, else the next dearer one of its kind, else a safe one."""
    dearer = [one for one in usable if one >= rung and ladder[one].kind == ladder[rung].kind]
    safe = [one for one in usable if ladder[one].pixels == REFERENCE.pixels]
    return next(iter(dearer or safe or usable[::-1]))
