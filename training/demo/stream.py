"""The device's day: a stream of pictures through ``EdgeClient``, scenery after scenery.

What the device sees is in its results. What only an observer can know, the true agreement of every
answer, is read out afterwards through the ledger and never shown to the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_sdk import EdgeClient, EdgeConfig, Result
from edge_sdk.agreement import compare
from edge_sdk.backends.base import Backend, Label
from edge_sdk.codec import encode
from edge_sdk.ladder import REFERENCE
from edge_sdk.retrain import Retrainer, RetrainRequest, RetrainResult
from edge_sdk.states import State
from training.measure.report import TIMELINE
from training.photos import View

__all__ = ["Happening", "Segment", "Stream", "WaitingRetrainer", "run_stream"]

#: Seconds between looks at a re-training child.
_LOOK_S = 0.05

Reference = Callable[[Any], Sequence[Label]]


@dataclass(frozen=True)
class Segment:
    """A part of the stream: a scenery's name and its pictures."""

    scenery: str
    views: Sequence[View]


@dataclass(frozen=True)
class Happening:
    """A change of state or agent, the picture it came with, and whether it is worth telling."""

    image: int
    what: str
    important: bool = True


@dataclass
class Stream:
    """What happened, one entry a picture."""

    sceneries: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    reference_wire_bytes: list[int] = field(default_factory=list)
    encode_ms: list[float] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)

    def timeline(self) -> dict[str, list[Any]]:
        """Return the columns of the report's timeline."""
        rows = [
            (
                index,
                scenery,
                result.state.value,
                result.p_est,
                accuracy,
                result.uploaded_wire_bytes,
                reference,
                result.rung.name,
                result.agent_id or "",
            )
            for index, (scenery, result, accuracy, reference) in enumerate(
                zip(
                    self.sceneries,
                    self.results,
                    self.accuracy,
                    self.reference_wire_bytes,
                    strict=True,
                )
            )
        ]
        return {name: [row[place] for row in rows] for place, name in enumerate(TIMELINE)}

    def median_ms(self) -> tuple[float, float]:
        """Return the median milliseconds of a decision and of encoding the reference."""
        decided = [result.milliseconds["decide"] for result in self.results]
        return float(np.median(decided)), float(np.median(self.encode_ms))


class WaitingRetrainer:
    """Another retrainer, but the stream waits for its result.

    A real device serves the reference meanwhile, for as many pictures as come by. How many would
    depend on this machine's speed; waiting makes the same seed give the same numbers.
    """

    def __init__(self, inner: Retrainer, sleep: Callable[[float], None] = time.sleep) -> None:
        self._inner, self._sleep = inner, sleep

    def start(self, request: RetrainRequest) -> None:
        """Start the other retrainer."""
        self._inner.start(request)

    def poll(self) -> RetrainResult | None:
        """Wait for the result; the loop asks only while one is to come."""
        while (result := self._inner.poll()) is None:
            self._sleep(_LOOK_S)
        return result

    def close(self) -> None:
        """Close the other retrainer."""
        self._inner.close()


def run_stream(
    config: EdgeConfig,
    retrainer: Retrainer,
    backend: Backend,
    segments: Sequence[Segment],
    *,
    reference: Reference,
    step: Callable[[int], object],
) -> Stream:
    """Send every picture of every segment through one client.

    Args:
        config: the device's.
        retrainer: the device's.
        backend: tells what the reference upload would have weighed; nothing is sent through it.
        segments: in order of time.
        reference: the service's labels for a picture's reference, for the read-out.
        step: called with 1 after every picture.
    """
    stream = Stream()

    def note(what: str, *, important: bool = True) -> None:
        stream.happenings.append(Happening(len(stream.results), what, important))

    def changed(old: State, new: State, reason: str) -> None:
        # To and fro between inference and estimation is every day's business.
        note(f"{new}: {reason}", important={old, new} != {State.INFERENCE, State.ESTIMATION})

    with EdgeClient(
        config,
        retrainer=retrainer,
        on_state_change=changed,
        on_swap=lambda _old, new, reason: note(f"agent {new}: {reason}"),
    ) as client:
        for scenery, view in _pictures(segments):
            image = view.open()
            result = client.process(image)
            begun = time.perf_counter()
            jpeg = encode(image, REFERENCE)
            stream.encode_ms.append(1000.0 * (time.perf_counter() - begun))
            agreed = compare(reference(image), result.labels, config.min_score)
            stream.sceneries.append(scenery)
            stream.results.append(result)
            stream.accuracy.append(float(getattr(agreed, config.metric)))
            stream.reference_wire_bytes.append(backend.wire_size(jpeg))
            step(1)
    return stream


def _pictures(segments: Sequence[Segment]) -> Iterator[tuple[str, View]]:
    for segment in segments:
        for view in segment.views:
            yield segment.scenery, view
