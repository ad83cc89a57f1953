"""The client when something fails: only a failed upload reaches the caller."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.client import EdgeClient
from edge_sdk.config import EdgeConfig
from edge_sdk.engine import Scores
from edge_sdk.errors import BackendUnavailable, ImageError
from edge_sdk.estimator import LoopParameters
from edge_sdk.ladder import REFERENCE
from edge_sdk.memory import Memory, read_transitions
from edge_sdk.retrain import RetrainResult
from edge_sdk.states import State
from model_store.errors import AgentNotFound, UsageError

NEVER = LoopParameters(p_0=0.0, p_min=1e-12)


def until(client: EdgeClient, device: Any, state: State, scenery: str = "night") -> None:
    """Process pictures until the loop is in ``state``."""
    for _ in range(200):
        if client.stats().state is state:
            return
        client.process(device.picture(scenery))
    raise AssertionError(f"never in {state}: {client.stats()}")


# The service.


def test_a_failed_served_upload_reaches_the_caller_and_is_counted(device: Any) -> None:
    client = device.client(device.config(loop=NEVER))
    device.service.failing = {15}
    with pytest.raises(BackendUnavailable):
        client.process(device.picture())
    assert (client.stats().images, client.stats().calls) == (0, 1)
    device.service.failing = set()
    assert client.process(device.picture()).labels[0].name == "cat"


def test_a_failed_reference_upload_never_fails_an_estimation(
    device: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = device.client()
    device.service.failing = {75}
    results = [client.process(device.picture()) for _ in range(3)]
    assert {one.labels[0].name for one in results} == {"cat"}
    assert {one.agreement for one in results} == {None}
    assert dict(client.stats().drops) == {"reference-upload": 3}
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 1


def test_a_failed_trial_upload_never_fails_querying(device: Any) -> None:
    device.shelf.add(device.agent("night", quality=45, scenery="night"))
    client = device.client()
    for _ in range(20):
        client.process(device.picture("night"))
    assert client.stats().state is State.QUERYING
    device.service.failing = {45}
    assert client.process(device.picture("night")).labels[0].name == "cat"
    assert client.stats().drops["trial-upload"] == 1


def test_in_querying_a_failed_reference_upload_is_the_callers(device: Any) -> None:
    client = device.client()
    until(client, device, State.QUERYING)
    device.service.failing = {75}
    with pytest.raises(BackendUnavailable):
        client.process(device.picture("night"))


def test_a_failed_explored_upload_never_fails_retraining(device: Any) -> None:
    client = device.client()
    until(client, device, State.RETRAINING)
    device.service.failing = {5, 15, 25, 35, 45, 55, 65}
    for _ in range(10):
        assert client.process(device.picture("night")).labels[0].name == "cat"
    assert client.stats().drops["explored-upload"] > 0


def test_a_picture_that_cannot_be_read_is_the_callers(device: Any) -> None:
    client = device.client()
    with pytest.raises(ImageError):
        client.process(b"no picture")
    assert client.stats().calls == 0


# Store and engine.


@pytest.mark.parametrize(("broken", "reason"), [(False, "no-agent"), (True, "store")])
def test_an_empty_or_broken_store_serves_at_the_reference(
    device: Any, broken: bool, reason: str
) -> None:
    device.shelf.current, device.shelf.broken = None, broken
    client = device.client()
    result = client.process(device.picture())
    assert (result.rung, result.calls, result.fallback) == (REFERENCE, 1, reason)
    assert result.agent_id is None
    stats = client.stats()
    assert dict(stats.fallbacks) == {reason: 1}
    assert dict(stats.failures) == {"store": 1}
    assert stats.agent_id is None


def test_a_store_folder_that_is_not_there_serves_at_the_reference(device: Any) -> None:
    config = replace(
        device.config(), store=device.folder / "nothing", folder=None, cold_start=False
    )
    with EdgeClient(config) as client:
        assert client.process(device.picture()).fallback == "no-agent"
    assert (device.folder / "nothing-device" / "memory.sqlite").exists()
    assert not (device.folder / "nothing").exists()


def test_an_agent_that_cannot_be_built_serves_at_the_reference(device: Any) -> None:
    def load(stored: Any) -> Any:
        raise RuntimeError("no runtime")

    client = device.client(load=load)
    assert client.process(device.picture()).fallback == "engine"


def test_an_engine_that_breaks_falls_back_and_is_logged_once(
    device: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = device.client()
    device.shelf.agents["day"].engine.broken = True
    results = [client.process(device.picture()) for _ in range(3)]
    assert {(one.rung, one.calls, one.fallback) for one in results} == {(REFERENCE, 1, "engine")}
    assert dict(client.stats().fallbacks) == {"engine": 3}
    assert client.stats().failures["engine"] == 3
    assert len([one for one in caplog.records if "part=engine" in one.message]) == 1


@pytest.mark.parametrize(
    "scores",
    [
        Scores(np.full((1, 3), np.nan, np.float32), np.zeros((1, 10), np.float32)),
        Scores(np.zeros((1, 3), np.float32), np.zeros((0, 10), np.float32)),
    ],
)
def test_senseless_scores_fall_back(device: Any, scores: Scores) -> None:
    device.shelf.agents["day"].engine.run = lambda images: scores
    assert device.client().process(device.picture()).fallback == "engine"


def test_a_cached_agent_whose_engine_breaks_on_trial_is_passed_over(device: Any) -> None:
    night = device.shelf.add(device.agent("night", quality=45, scenery="night"))
    client = device.client()
    until(client, device, State.QUERYING)
    night.engine.broken = True
    until(client, device, State.RETRAINING)
    assert client.stats().agent_id == "day"


def test_a_cached_agent_that_cannot_be_loaded_is_passed_over(device: Any) -> None:
    device.shelf.add(device.agent("night", quality=45, scenery="night"))

    def load(stored: Any) -> Any:
        if stored.id == "night":
            raise RuntimeError("probe failed")
        return device.shelf.build(stored)

    client = device.client(load=load)
    until(client, device, State.RETRAINING)
    assert client.stats().failures["engine"] == 1


def test_a_store_that_breaks_later_only_ends_the_search_for_agents(device: Any) -> None:
    client = device.client()
    device.shelf.broken = True
    until(client, device, State.RETRAINING)
    assert client.stats().failures["store"] >= 1


# Memory, retrainer, hooks.


def test_a_memory_that_cannot_be_opened_does_not_stop_the_loop(device: Any) -> None:
    (device.folder / "memory.sqlite").mkdir()
    client = device.client()
    until(client, device, State.RETRAINING)
    assert client.process(device.picture("night")).calls == 1  # no use in buying labels
    assert client.stats().failures == {"memory": 1, "retrainer": 1}


def test_a_retrainer_that_fails_rests_at_one_call_a_picture_then_tries_again(device: Any) -> None:
    client = device.client()
    until(client, device, State.RETRAINING)
    while not device.trainer.requests:
        client.process(device.picture("night"))
    device.trainer.result = RetrainResult(None, "exit code 1: No module named training")
    rest = [client.process(device.picture("night")) for _ in range(1 + 15)]
    assert {one.calls for one in rest[1:]} == {1}
    assert {one.labels[0].name for one in rest} == {"cat"}
    assert client.stats().failures["retrainer"] == 1
    while len(device.trainer.requests) < 2:
        client.process(device.picture("night"))
    assert len(read_transitions(device.trainer.requests[1].memory)) >= 2 * 16


def test_after_a_failed_retraining_a_scenery_that_comes_back_is_recognised(device: Any) -> None:
    client = device.client()
    until(client, device, State.RETRAINING)
    while not device.trainer.requests:
        client.process(device.picture("night"))
    device.trainer.result = RetrainResult(None, "crashed")
    until(client, device, State.INFERENCE, scenery="day")
    assert client.stats().agent_id == "day"


@pytest.mark.parametrize("method", ["start", "poll"])
def test_a_retrainer_that_raises_is_counted(device: Any, method: str) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no process left")

    setattr(device.trainer, method, fail)
    client = device.client()
    for _ in range(60):
        assert client.process(device.picture("night")).labels
    assert client.stats().failures["retrainer"] >= 1


def test_a_hook_that_raises_is_counted(device: Any) -> None:
    def hook(*_: Any) -> None:
        raise ZeroDivisionError

    client = device.client(on_state_change=hook)
    client.process(device.picture())
    assert client.stats().failures["hook"] == 1


def test_a_disk_that_fills_up_is_counted(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Memory, transitions: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Memory, "append", full)
    client = device.client()
    assert client.process(device.picture()).agreement == 1.0
    assert client.stats().failures["memory"] == 1


# Strict.


def test_strict_raises_what_would_be_counted_before_anything_is_paid_for(device: Any) -> None:
    client = device.client(device.config(strict=True))
    device.shelf.agents["day"].engine.broken = True
    with pytest.raises(RuntimeError, match="the engine broke"):
        client.process(device.picture())
    assert device.service.qualities == []


def test_strict_does_not_begin_without_an_agent(device: Any) -> None:
    device.shelf.current = None
    with pytest.raises(AgentNotFound):
        device.client(device.config(strict=True))
    Memory(device.folder / "memory.sqlite").close()  # nothing was left open


def test_a_backend_nobody_knows_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nosuch"):
        EdgeClient(EdgeConfig(store=tmp_path, backend="nosuch://host"))
    assert list(tmp_path.iterdir()) == []
