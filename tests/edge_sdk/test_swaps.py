"""Another agent in the middle of the traffic: no call fails, nothing of two agents is mixed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_sdk.client import EdgeClient, Result
from edge_sdk.errors import ClosedError, EngineError
from edge_sdk.estimator import LoopParameters
from edge_sdk.ladder import PAPER
from edge_sdk.states import State

NEVER = LoopParameters(p_0=0.0, p_min=1e-12)
SWAPS = 200
CALLERS = 4


@pytest.fixture
def device(device: Any) -> Any:
    """Two agents that share no rung: what one chose cannot be taken for the other's choice."""
    for name, ladder in (("odd", PAPER[1:8:2]), ("even", PAPER[0:8:2])):
        agent = device.agent(name, 15)
        quality = ladder[1].quality
        device.shelf.add(replace(agent, engine=type(agent.engine)(quality, ladder)))
    return device


def test_the_next_picture_is_decided_by_the_agent_that_was_named(device: Any) -> None:
    swaps: list[tuple[str, str, str]] = []
    config = device.config(loop=NEVER)
    client = device.client(config, on_swap=lambda *told: swaps.append(told))
    assert client.process(device.picture()).agent_id == "day"
    assert client.use("odd") == "odd"
    assert client.process(device.picture()).agent_id == "odd"
    assert client.use("odd") == "odd"  # once more is no swap
    assert swaps == [("day", "odd", "the host chose it")]
    assert client.stats().swaps == 1


def test_the_alias_is_taken_where_nothing_is_named(device: Any) -> None:
    client = device.client(device.config(loop=NEVER))
    device.shelf.current = "even"
    device.shelf.load = lambda name: device.shelf.load_healthy(name)[0]  # as a store knows aliases
    assert client.use() == "even"
    assert client.stats().agent_id == "even"


def test_an_agent_that_cannot_run_leaves_the_one_before(device: Any) -> None:
    def load(stored: Any) -> Any:
        if stored.id == "odd":
            raise EngineError("The graph cannot be loaded.")
        return device.shelf.build(stored)

    client = device.client(device.config(loop=NEVER), load=load)
    with pytest.raises(EngineError, match="cannot be loaded"):
        client.use("odd")
    assert client.process(device.picture()).agent_id == "day"


def test_a_device_without_an_agent_takes_its_first_one(device: Any) -> None:
    device.shelf.current = None
    client = device.client(device.config(loop=NEVER))
    assert client.process(device.picture()).fallback == "no-agent"
    client.use("odd")
    result = client.process(device.picture())
    assert (result.agent_id, result.fallback) == ("odd", None)


def test_a_running_retraining_is_given_up(device: Any) -> None:
    device.service.readable["day"] = {75}  # nothing cheaper can be read any more
    client = device.client(device.config(retrain_after=8))
    while client.stats().state is not State.RETRAINING or not device.trainer.requests:
        client.process(device.picture())
    client.use("odd")
    assert client.stats().state is State.INFERENCE
    assert client.process(device.picture()).agent_id == "odd"


def test_a_closed_client_takes_no_agent(device: Any) -> None:
    client = device.client()
    client.close()
    with pytest.raises(ClosedError):
        client.use("odd")


def test_swaps_under_load_fail_no_call_and_mix_no_two_agents(device: Any) -> None:
    client: EdgeClient = device.client(device.config(loop=NEVER))
    pictures = [device.picture() for _ in range(8)]
    done = threading.Event()

    def serve(caller: int) -> list[Result]:
        results = []
        while not done.is_set():
            results.append(client.process(pictures[(caller + len(results)) % len(pictures)]))
        return results

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(serve, caller) for caller in range(CALLERS)]
        try:
            for number in range(SWAPS):
                client.use(("odd", "even")[number % 2])
        finally:
            done.set()
        results = [result for caller in callers for result in caller.result()]
    chosen = {"day": PAPER[1], "odd": PAPER[3], "even": PAPER[2]}
    assert len(results) >= CALLERS
    assert all(result.fallback is None for result in results)
    assert all(result.rung == chosen[result.agent_id or ""] for result in results)
    assert client.stats().swaps == SWAPS
    assert np.unique([result.agent_id for result in results]).size >= 1
