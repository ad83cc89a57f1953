"""The client as a host has it: estimation and re-training run behind the answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edge_sdk.aside import AsideRetrainer
from edge_sdk.behind import Worker
from edge_sdk.client import EdgeClient
from edge_sdk.errors import ClosedError
from edge_sdk.ladder import PAPER, REFERENCE
from edge_sdk.memory import Memory
from edge_sdk.retrain import RetrainRequest, RetrainResult
from edge_sdk.states import State


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end, whatever happens: nobody is left waiting."""
    event = threading.Event()
    yield event
    event.set()


def hanging(device: Any, gate: threading.Event, quality: int = 75) -> threading.Event:
    """Let uploads of a quality wait for ``gate``; return an event that tells of the first."""
    recognize, reached = device.service.recognize, threading.Event()

    def slow(jpeg: bytes) -> Any:
        answer = recognize(jpeg)
        if device.service.qualities[-1] == quality:
            reached.set()
            gate.wait()
        return answer

    device.service.recognize = slow
    return reached


def test_an_answer_does_not_wait_for_its_estimation(device: Any, gate: threading.Event) -> None:
    client = device.client(behind=None)
    reached = hanging(device, gate)
    result = client.process(device.picture())
    assert (result.rung, result.state) == (PAPER[1], State.ESTIMATION)
    assert (result.calls, result.agreement) == (1, None)
    assert reached.wait(10)
    assert not client.flush(0.0)
    gate.set()
    assert client.flush()
    stats = client.stats()
    assert (stats.images, stats.calls) == (1, 2)
    assert stats.uploaded_wire_bytes > result.uploaded_wire_bytes


def test_estimations_that_find_no_place_are_dropped_and_counted(
    device: Any, gate: threading.Event
) -> None:
    dropped: list[str] = []
    client = device.client(
        behind=Worker(pytest.fail, most=2), on_drop=lambda reason, key: dropped.append(reason)
    )
    reached = hanging(device, gate)
    client.process(device.picture())
    assert reached.wait(10)
    for _ in range(5):
        assert client.process(device.picture()).labels
    assert dict(client.stats().drops) == {"behind": 3}
    assert dropped == ["behind"] * 3
    gate.set()
    assert client.flush()
    assert client.stats().calls == 6 + 3


def test_the_loop_goes_through_its_states_behind_the_answers(device: Any) -> None:
    device.service.readable["day"].remove(25)
    client = device.client(behind=None)

    def until(state: State, scenery: str) -> None:
        for _ in range(300):
            if client.stats().state is state:
                return
            client.process(device.picture(scenery))
            client.flush()
        raise AssertionError(client.stats())

    until(State.RETRAINING, "night")
    device.shelf.add(device.agent("night", quality=25, scenery="night"))
    while not device.trainer.requests:
        client.process(device.picture("night"))
        client.flush()
    device.trainer.result = RetrainResult("night")
    client._loop._lessons._retrainer._thread.join()  # it looks by the clock
    until(State.INFERENCE, "night")
    assert client.stats().agent_id == "night"
    assert not client.stats().failures


def test_a_picture_does_not_wait_for_a_loop_that_a_slow_disk_occupies(
    device: Any, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = threading.Event()

    def slow(self: Memory, transitions: Any) -> None:
        writing.set()
        gate.wait()

    monkeypatch.setattr(Memory, "append", slow)
    client = device.client(behind=None)
    client.process(device.picture())
    assert writing.wait(10)
    result = client.process(device.picture())
    assert (result.rung, result.fallback) == (REFERENCE, "busy")
    assert result.labels[0].name == "cat"
    assert client.stats().images == 2
    gate.set()
    assert client.flush(10)
    assert client.process(device.picture()).agent_id == "day"


class Hanging:
    """A retrainer of which one method never returns."""

    def __init__(self, method: str, gate: threading.Event) -> None:
        self.method, self.gate, self.reached = method, gate, threading.Event()

    def start(self, request: RetrainRequest) -> None:
        self._maybe("start")

    def poll(self) -> RetrainResult | None:
        self._maybe("poll")
        return None

    def close(self) -> None:
        self._maybe("close")

    def _maybe(self, method: str) -> None:
        if method == self.method:
            self.reached.set()
            self.gate.wait()


@pytest.mark.parametrize("method", ["start", "poll"])
def test_a_retrainer_that_hangs_delays_nobody(
    device: Any, gate: threading.Event, method: str
) -> None:
    retrainer = Hanging(method, gate)
    client = device.client(behind=None, retrainer=retrainer)
    for _ in range(300):
        result = client.process(device.picture("night"))
        client.flush()
        if retrainer.reached.is_set():
            break
    assert result.labels[0].name == "cat"
    for _ in range(3):
        assert client.process(device.picture("night")).fallback is None
    assert client.stats().state is State.RETRAINING
    gate.set()


def test_a_retrainer_that_does_not_close_is_left_alone(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_sdk.aside._CLOSE_S", 0.01)
    retrainer = Hanging("close", gate)
    AsideRetrainer(retrainer, pytest.fail).close()
    assert retrainer.reached.is_set()


def test_close_gives_up_what_hangs_and_counts_it(device: Any, gate: threading.Event) -> None:
    client = device.client(behind=None)
    reached = hanging(device, gate)
    client.process(device.picture())
    assert reached.wait(10)
    client.close(timeout=0.0)
    client.close()
    assert dict(client.stats().drops) == {"behind": 1}
    with pytest.raises(ClosedError):
        client.flush()


def test_close_finishes_what_was_paid_for_and_leaves_no_thread(device: Any) -> None:
    before = set(threading.enumerate())
    client: EdgeClient = device.client(behind=None)
    for _ in range(5):
        client.process(device.picture())
    client.close()
    assert client.stats().calls == 10
    assert set(threading.enumerate()) <= before
