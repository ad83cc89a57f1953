"""The device's day: a stream of pictures through ``EdgeClient``, scenery after scenery.

What the device sees is in its results. What only an observer can know, the true agreement of every
answer, is read out afterwards through the ledger and never shown to the device.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from edge_sdk import EdgeClient, EdgeConfig, Result
from edge_sdk.agreement import compare
from edge_sdk.backends.base import Backend, Label
from edge_sdk.behind import Inline
from edge_sdk.codec import encode
from edge_sdk.ladder import REFERENCE
from edge_sdk.retrain import Retrainer, RetrainRequest, RetrainResult
from edge_sdk.states import State
from training.measure.report import TIMELINE
from training.photos import View

__all__ = ["Happening", "Segment", "Stream", "WaitingRetrainer", "run_stream"]

#: Seconds between looks at a re-training child.
_LOOK_S = 0.05

#: Pictures opened before their turn.
AHEAD = 4

Reference = Callable[[Image.Image], Sequence[Label]]


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

    client = EdgeClient(
        config,
        retrainer=retrainer,
        behind=Inline(),  # the same seed, the same events
        on_state_change=changed,
        on_swap=lambda _old, new, reason: note(f"agent {new}: {reason}"),
    )
    # The observer opens pictures and reads answers out on a thread of its own, beside the device.
    with client, ThreadPoolExecutor(1, thread_name_prefix="observer") as observer:
        answers = []
        for scenery, image in _opened(segments, observer):
            result = client.process(image)
            answers.append(observer.submit(reference, image))
            begun = time.perf_counter()
            jpeg = encode(image, REFERENCE)
            stream.encode_ms.append(1000.0 * (time.perf_counter() - begun))
            stream.sceneries.append(scenery)
            stream.results.append(result)
            stream.reference_wire_bytes.append(backend.wire_size(jpeg))
            step(1)
        for answer, result in zip(answers, stream.results, strict=True):
            agreed = compare(answer.result(), result.labels, config.min_score)
            stream.accuracy.append(float(getattr(agreed, config.metric)))
    return stream


def _opened(
    segments: Sequence[Segment], observer: ThreadPoolExecutor
) -> Iterator[tuple[str, Image.Image]]:
    """Yield (scenery, picture), opened a few pictures ahead."""
    ahead: deque[tuple[str, Future[Image.Image]]] = deque()
    for segment in segments:
        for view in segment.views:
            ahead.append((segment.scenery, observer.submit(view.open)))
            if len(ahead) > AHEAD:
                scenery, opened = ahead.popleft()
                yield scenery, opened.result()
    for scenery, opened in ahead:
        yield scenery, opened.result()
