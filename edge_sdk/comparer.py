"""Compares rungs' answers with the reference's, once the caller has its own.

Labels are a by-product: what cannot be uploaded here is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_sdk.agreement import compare
from edge_sdk.backends.base import Backend, Recognition
from edge_sdk.courier import Courier
from edge_sdk.ladder import REFERENCE
from edge_sdk.parcel import Packer, Parcel
from edge_sdk.plan import Comparison, Outcome, Plan
from edge_sdk.states import Task

__all__ = ["Comparer"]

#: Any-hit and top-1 are 0 or 1; of the fractions, half the labels count as agreement here, where
#: it only decides which rung is worth exploring next.
_AGREED = 0.5


class Comparer:
    """Gets the labels that a plan wants of one picture.

    Args:
        plan: what the loop wants.
        outcome: takes the comparisons.
        courier: uploads.
        backend: tells what a request weighs.
        agreement: (metric, min_score) of the comparison.
        explore_rungs: rungs tried when exploring.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        plan: Plan,
        outcome: Outcome,
        courier: Courier,
        *,
        backend: Backend,
        agreement: tuple[str, float],
        explore_rungs: int,
        clock: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._outcome = outcome
        self._courier = courier
        self._backend = backend
        self._metric, self._min_score = agreement
        self._explore_rungs = explore_rungs
        self._clock = clock

    def compare(self, packer: Packer, rung: int, served: Parcel, answer: Recognition) -> None:
        """Compare what the plan wants compared, given what was served and its answer."""
        match self._plan.task:
            case Task.COMPRESSED_AND_REFERENCE:
                with self._outcome.timed("encode", self._clock):
                    reference = packer.reference()
                truth = self._courier.send_aside(reference, "reference-upload")
                if truth is not None:
                    self._outcome.truth = (truth[0].jpeg, truth[1].labels)
                    self._note(packer, rung, served, truth[1], answer)
            case Task.REFERENCE_AND_TRIAL:
                self._try(packer, rung, answer, "trial-upload")
            case Task.REFERENCE_AND_EXPLORED:
                self._explore(packer, answer)
        self.weigh(packer)

    def ask_canary(self) -> None:
        """Ask about the stored upload again that the plan names, if it names one."""
        if self._plan.canary is not None:
            parcel = Parcel(REFERENCE, self._plan.canary.jpeg)
            told = self._courier.send_aside(parcel, "canary-upload", ())
            self._outcome.canary = None if told is None else told[1].labels

    def weigh(self, packer: Packer, *, anyway: bool = False) -> None:
        """Find out what the reference weighs: if it was encoded by now, or ``anyway``."""
        self._outcome.reference_at_least = packer.least_reference
        known = packer.reference_jpeg if anyway else packer.known_reference
        if known is not None:
            self._outcome.reference_wire_bytes = self._backend.wire_size(known)

    def _try(self, packer: Packer, rung: int, truth: Recognition, reason: str) -> float | None:
        assert self._plan.agent is not None  # it has decided
        with self._outcome.timed("encode", self._clock):
            parcel = packer.pack(self._plan.agent.ladder[rung])
        tried = self._courier.send_aside(parcel, reason)
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
        self._outcome.image = packer.key
        self._outcome.comparisons.append(Comparison(rung, agreement, ratio))
        return agreement
