"""One picture's uploads: decide, encode, send, compare. No state outlives the picture.

Runs without the loop's lock, so that several pictures can be on their way at once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edge_sdk.agent import Agent, Decision
from edge_sdk.agreement import compare
from edge_sdk.backends.base import Backend, Label, Recognition
from edge_sdk.canaries import Canary
from edge_sdk.codec import Picture
from edge_sdk.errors import EngineError
from edge_sdk.faults import Faults
from edge_sdk.ladder import REFERENCE
from edge_sdk.parcel import Packer, Parcel
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
    """

    state: State
    task: Task
    agent: Agent | None
    draw: float = 0.0
    fallback: str = ""
    caution: float = 1.0
    lossless: bool = False
    canary: Canary | None = None


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
        model_version: what the service says about its model, or None.
        truth: the reference's upload and its answer, once both are there; else None.
        canary: the answer to the canary, or None.
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
    model_version: str | None = None
    truth: tuple[bytes, tuple[Label, ...]] | None = None
    canary: tuple[Label, ...] | None = None


class Errand:
    """Carries out a plan for one picture.

    Args:
        plan: what the loop wants.
        backend: where to.
        faults: takes what must not reach the caller.
        agreement: (metric, min_score) of the comparison.
        explore_rungs: rungs tried when exploring.
        clock: seconds that only grow.
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
    ) -> None:
        self.outcome = Outcome(fallback=plan.fallback)
        self._plan = plan
        self._backend = backend
        self._faults = faults
        self._metric, self._min_score = agreement
        self._explore_rungs = explore_rungs
        self._clock = clock
        self._answers: dict[object, Recognition] = {}
        self._size = (0, 0)  # of the picture, which the caller's boxes are in

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time spent inside to ``part``."""
        begun = self._clock()
        try:
            yield
        finally:
            self.outcome.milliseconds[part] += (self._clock() - begun) * 1000.0

    def run(self, picture: Picture) -> tuple[Parcel, Recognition]:
        """Serve the picture, then compare what the plan wants compared.

        Returns:
            The served upload and its answer.

        Raises:
            BackendError: the served upload failed. Every other failure is counted only.
        """
        packer = Packer(picture, self._backend.capabilities, lossless=self._plan.lossless)
        self._size = picture.image.size
        rung = self._decide(picture, packer)
        self._faults.check()  # strict: before anything is paid for
        served = self._serve(packer, rung)
        answer = self._send(served)
        if rung is not None:
            try:
                self._compare(packer, rung, served, answer)
            except Exception as error:  # labels are a by-product; the caller's answer is there
                self._faults.note("comparison", error)
        self._ask_canary()
        if packer.known_reference is not None:
            size = self._backend.wire_size(packer.known_reference)
            self.outcome.reference_wire_bytes = size
        return served, answer

    def _ask_canary(self) -> None:
        if self._plan.canary is not None:
            answer = self._send_aside(
                Parcel(REFERENCE, self._plan.canary.jpeg), "canary-upload", ()
            )
            self.outcome.canary = None if answer is None else answer.labels

    def _decide(self, picture: Picture, packer: Packer) -> int | None:
        """Return the index of the chosen rung, moved to one that the service accepts."""
        agent = self._plan.agent
        if agent is None:
            return None
        try:
            usable = packer.usable(agent.ladder)
            with self.timed("decide"):
                decision = agent.decide(
                    picture.image, packer.candidate, usable or None, self._plan.caution
                )
            if not np.isfinite(decision.features).all():
                raise EngineError(f"The engine of agent {agent.id} gave features not finite.")
            dearer = [index for index in usable if index >= decision.rung]
        except Exception as error:  # a broken engine or policy must not stop the host
            self._faults.note("engine", error)
            self.outcome.fallback = "engine"
            return None
        self.outcome.decision = decision
        if not usable:
            self.outcome.fallback = "size"
            return None
        return dearer[0] if dearer else usable[-1]

    def _serve(self, packer: Packer, rung: int | None) -> Parcel:
        agent, task = self._plan.agent, self._plan.task
        with self.timed("encode"):
            compressed = task in (Task.COMPRESSED, Task.COMPRESSED_AND_REFERENCE)
            if agent is None or rung is None or not compressed:
                return packer.reference()
            return packer.pack(agent.ladder[rung])

    def _send(self, parcel: Parcel, pixels: object = None) -> Recognition:
        """Upload, unless an upload of the same pixels was answered already."""
        pixels = parcel.pixels if pixels is None else pixels
        known = self._answers.get(pixels)
        if known is not None:
            return known
        self.outcome.calls += 1
        with self.timed("upload"):
            answer = self._backend.recognize(parcel.jpeg).at(self._size)
        self.outcome.uploaded_wire_bytes += answer.wire_bytes
        self.outcome.model_version = answer.model_version
        self._answers[pixels] = answer
        return answer

    def _send_aside(self, parcel: Parcel, reason: str, pixels: object = None) -> Recognition | None:
        try:
            return self._send(parcel, pixels)
        except Exception as error:  # see run: the caller's answer is there already
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
                    self.outcome.truth = (reference.jpeg, truth.labels)
                    self._note(packer, rung, served, truth, answer)
            case Task.REFERENCE_AND_TRIAL:
                self._try(packer, rung, answer, "trial-upload")
            case Task.REFERENCE_AND_EXPLORED:
                self._explore(packer, answer)

    def _try(self, packer: Packer, rung: int, truth: Recognition, reason: str) -> float | None:
        assert self._plan.agent is not None  # it has decided
        with self.timed("encode"):
            parcel = packer.pack(self._plan.agent.ladder[rung])
        answer = self._send_aside(parcel, reason)
        return None if answer is None else self._note(packer, rung, parcel, truth, answer)

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
