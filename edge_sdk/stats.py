"""What a client tells about one picture, and about all of them so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_sdk.backends.base import Label
from edge_sdk.ladder import Rung
from edge_sdk.states import State

__all__ = ["Counters", "Result", "Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer to one picture, and what it took.

    Attributes:
        labels: the service's answer, best first.
        rung: the encoder setting that was served.
        as_is: the source file itself was sent, because it was no larger.
        bytes: size of the served JPEG file.
        wire_bytes: size of the request that carried it.
        uploaded_wire_bytes: all requests for this picture, the reference's included.
        calls: uploads tried for this picture.
        milliseconds: by part: load, decide, encode, upload.
        state: the loop's state when the picture arrived.
        agent_id: who decided or was to, or None.
        p_est: estimation probability after this picture.
        agreement: of the first comparison, or None if nothing was compared.
        fallback: why the reference was served although the state did not ask for it, or None:
            ``no-agent``, ``store``, ``engine``, or ``size`` (the service accepts no rung's sides).
    """

    labels: tuple[Label, ...]
    rung: Rung
    as_is: bool
    bytes: int
    wire_bytes: int
    uploaded_wire_bytes: int
    calls: int
    milliseconds: Mapping[str, float]
    state: State
    agent_id: str | None
    p_est: float
    agreement: float | None
    fallback: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of a client's counters.

    Attributes:
        images: pictures served.
        calls: uploads tried.
        bytes: served JPEG files.
        wire_bytes: the requests that carried them.
        uploaded_wire_bytes: all requests.
        fallbacks: pictures served at the reference out of need, by reason (see ``Result``).
        failures: by part: store, engine, memory, retrainer, comparison, hook.
        drops: comparisons given up because their upload failed, by reason.
        states: pictures by state.
        swaps: changes of the current agent.
        alarms: by cause: scenery, backend (another model), noise (answers vary).
        retrainings: retrainings started.
        state: the loop's state now.
        agent_id: the current agent, or None.
        p_est: estimation probability now.
        caution: factor on the current agent's certified trade-off, 1 while answers agree.
    """

    images: int
    calls: int
    bytes: int
    wire_bytes: int
    uploaded_wire_bytes: int
    fallbacks: Mapping[str, int]
    failures: Mapping[str, int]
    drops: Mapping[str, int]
    states: Mapping[str, int]
    swaps: int
    alarms: Mapping[str, int]
    retrainings: int
    state: State
    agent_id: str | None
    p_est: float
    caution: float


@dataclass(slots=True)
class Counters:
    """Adds results up. Not thread-safe: the client holds a lock."""

    images: int = 0
    calls: int = 0
    bytes: int = 0
    wire_bytes: int = 0
    uploaded_wire_bytes: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result, drops: Mapping[str, int]) -> None:
        """Count one served picture; its uploads are counted apart, for failed ones count too."""
        self.images += 1
        self.bytes += result.bytes
        self.wire_bytes += result.wire_bytes
        self.states[result.state.value] += 1
        self.drops.update(drops)
        if result.fallback:
            self.fallbacks[result.fallback] += 1
