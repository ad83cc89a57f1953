"""What the loop wants for one picture, and what became of it. ``edge_sdk.errand`` does the rest."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edge_sdk.agent import Agent, Decision
from edge_sdk.backends.base import Label
from edge_sdk.canaries import Canary
from edge_sdk.states import State, Task

__all__ = ["Comparison", "Outcome", "Plan"]


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

    @contextlib.contextmanager
    def timed(self, part: str, clock: Callable[[], float]) -> Iterator[None]:
        """Add the time spent inside, by a clock of seconds, to ``part``."""
        begun = clock()
        try:
            yield
        finally:
            self.milliseconds[part] += (clock() - begun) * 1000.0
