"""What a client tells about one picture, and about all of them so far."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edge_sdk.backends.base import Box, Label
from edge_sdk.ladder import Rung, ladder_from_dicts
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
        uploaded_wire_bytes: all requests for this picture up to now; those of an estimation that
            runs behind come later and are in the stats alone.
        calls: uploads tried for this picture, likewise.
        milliseconds: by part: load, decide, encode, upload.
        state: the loop's state when the picture arrived.
        agent_id: who decided or was to, or None.
        p_est: estimation probability after this picture.
        agreement: of the first comparison, or None if nothing was compared by now.
        skipped: what was spared: ``gate``, the upload (the last frame's answer is given, sizes are
            0); ``decision`` or ``looks``, because the link is faster; or None.
        fallback: why the reference was served although the state did not ask for it, or None:
            ``no-agent``, ``store``, ``engine``, ``size`` (the service accepts no rung's sides),
            ``format`` (the service refused a file that is no JPEG),
            ``busy`` (the loop was occupied, and the picture did not wait) or ``loop`` (it failed).
        key: the submitted picture's, or "".
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
    skipped: str | None = None
    key: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; the inverse is :meth:`from_dict`."""
        labels = [[one.name, one.score, one.box] for one in self.labels]
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        milliseconds = dict(self.milliseconds)
        return {
            **plain,
            "labels": labels,
            "rung": self.rung.as_dict(),
            "state": self.state.value,
            "milliseconds": milliseconds,
        }

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Result:
        """Read a result; unknown keys are ignored."""
        known = {name: mapping[name] for name in cls.__dataclass_fields__ if name in mapping}
        known["labels"] = tuple(
            Label(name, score, Box(*box) if box else None) for name, score, box in known["labels"]
        )
        known["rung"] = ladder_from_dicts([known["rung"]])[0]
        known["state"] = State(known["state"])
        return cls(**known)


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
        failures: by part: store, engine, memory, retrainer, loop, comparison, behind, spool,
            link, hook, metrics.
        drops: what was given up, by reason. Comparisons: ``reference-upload``, ``trial-upload``
            and ``explored-upload`` failed, ``behind`` found no place. Submitted pictures: see
            ``edge_sdk.outbox``.
        states: pictures by state.
        skips: pictures for which something was spared, by what (see ``Result``).
        swaps: changes of the current agent.
        alarms: by cause: scenery, backend (another model), noise (answers vary).
        retrainings: retrainings started.
        state: the loop's state now.
        agent_id: the current agent, or None.
        p_est: estimation probability now.
        caution: factor on the current agent's certified trade-off, 1 while answers agree.
        waiting: submitted pictures that are not answered yet.
        uplink: measured bytes a second, or None while too little was seen.
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
    skips: Mapping[str, int]
    swaps: int
    alarms: Mapping[str, int]
    retrainings: int
    state: State
    agent_id: str | None
    p_est: float
    caution: float
    waiting: int
    uplink: float | None


class Counters:
    """Adds up what happened; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = dict.fromkeys(
            ("images", "calls", "bytes", "wire_bytes", "uploaded_wire_bytes"), 0
        )
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("fallbacks", "drops", "states", "skips")
        }

    def uploaded(self, calls: int, wire_bytes: int) -> None:
        """Count uploads tried and what the answered ones weighed."""
        with self._lock:
            self._sums["calls"] += calls
            self._sums["uploaded_wire_bytes"] += wire_bytes

    def served(self, result: Result) -> None:
        """Count one served picture; its uploads are counted apart, for failed ones count too."""
        with self._lock:
            self._sums["images"] += 1
            self._sums["bytes"] += result.bytes
            self._sums["wire_bytes"] += result.wire_bytes
            self._counts["states"][result.state.value] += 1
            for name, reason in (("fallbacks", result.fallback), ("skips", result.skipped)):
                if reason:
                    self._counts[name][reason] += 1

    def dropped(self, reason: str) -> None:
        """Count something that was given up."""
        with self._lock:
            self._counts["drops"][reason] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return the fields of ``Stats`` that are counted here."""
        with self._lock:
            counts = {name: MappingProxyType(dict(count)) for name, count in self._counts.items()}
            return {**self._sums, **counts}
