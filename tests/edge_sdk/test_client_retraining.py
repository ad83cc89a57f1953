"""The client while it has no agent that fits: exploring, retraining, trying."""

from __future__ import annotations

import itertools
from typing import Any

from edge_sdk.client import EdgeClient
from edge_sdk.retrain import RetrainResult
from edge_sdk.states import State


def retrain(device: Any, **choices: Any) -> EdgeClient:
    """Return a client that is collecting for a retraining, with the log of uploads empty."""
    client: EdgeClient = device.client(device.config(**choices))
    while client.stats().state is not State.RETRAINING:
        client.process(device.picture("night"))
    device.service.qualities.clear()
    return client


def test_a_failed_trial_collects_half_as_many_and_retrains_again(device: Any) -> None:
    client = retrain(device)
    device.shelf.add(device.agent("worse", quality=5))
    while not device.trainer.requests:
        client.process(device.picture("night"))
    device.trainer.result = RetrainResult("worse")
    for _ in range(3 + 8):
        client.process(device.picture("night"))
    assert len(device.trainer.requests) == 2
    assert [request.seed for request in device.trainer.requests] == [1, 2]
    assert client.stats().agent_id == "day"
    assert device.shelf.promoted == []


def test_exploration_is_spread_over_the_ladder(device: Any) -> None:
    client = retrain(device, retrain_after=200)
    for _ in range(150):
        client.process(device.picture("night"))
    explored = [quality for quality in device.service.qualities if quality != 75]
    assert set(explored) == {5, 15, 25, 35, 45, 55, 65}  # 85 and 95 are larger than the reference
    assert all(explored.count(quality) >= 5 for quality in set(explored))


def test_exploration_bisects_from_a_random_rung(device: Any) -> None:
    client = retrain(device, retrain_after=200, explore_rungs=3)
    for _ in range(20):
        device.service.qualities.clear()
        client.process(device.picture("night"))
        first, *tried = device.service.qualities
        assert first == 75
        for before, after in itertools.pairwise(tried):
            assert after < before if before >= 25 else after > before


def test_rungs_that_decode_to_the_reference_cost_no_second_call(device: Any) -> None:
    client = retrain(device, retrain_after=200)
    results = [client.process(device.picture("night")) for _ in range(60)]
    free = [one for one in results if one.calls == 1]
    assert free
    assert {one.agreement for one in free} == {1.0}
