from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.ladder import FULL
from edge_sdk.routing import Pair, fits_beside
from edge_sdk.states import State


@pytest.fixture
def pair(device: Any) -> Pair:
    day = device.agent("day", quality=15, scenery="day")
    return Pair.of(day, device.agent("night", quality=25, scenery="night"))


def test_each_picture_goes_to_its_scenery_s_agent(device: Any, pair: Pair) -> None:
    for scenery, quality in [("day", 15), ("night", 25)] * 10:
        decision = pair.decide(device.picture(scenery))
        assert decision.agent == scenery
        assert pair.ladder[decision.rung].quality == quality


def test_what_is_remembered_is_of_the_current_agent(device: Any, pair: Pair) -> None:
    assert pair.id == "day"
    picture = device.picture("night")
    assert (
        pair.decide(picture).features == device.agent("x", quality=15).decide(picture).features
    ).all()


def test_agents_of_other_rungs_or_without_a_signature_do_not_fit(device: Any) -> None:
    day = device.agent("day", quality=15, scenery="day")
    night = device.agent("night", quality=25, scenery="night")
    assert fits_beside(day, night)
    assert not fits_beside(day, day)
    assert not fits_beside(day, replace(night, signature=None))
    engine = type(night.engine)(15, ladder=FULL)
    assert not fits_beside(day, replace(night, engine=engine))


def test_interleaved_sceneries_are_served_by_both_agents_without_a_label(device: Any) -> None:
    client = adapted(device)
    before = client.stats()
    for index in range(80):
        client.process(device.picture("day" if index % 2 else "night"))
    after = client.stats()
    assert after.swaps == before.swaps
    assert after.retrainings == 0
    assert set(device.service.qualities[-40:]) <= {15, 25, 75}
    assert {15, 25} <= set(device.service.qualities[-40:])


def test_the_agent_of_most_pictures_becomes_the_current_one(device: Any) -> None:
    client = adapted(device)
    device.service.qualities.clear()
    results = [client.process(device.picture("day")) for _ in range(30)]
    assert device.service.qualities[0] == 15  # at once
    assert client.stats().agent_id == "day"
    assert {result.state for result in results} <= {State.INFERENCE, State.ESTIMATION}
    assert sum(result.calls for result in results) <= 40


@pytest.mark.parametrize("centre", [80, 120, 160])
def test_a_third_scenery_is_noticed_whichever_of_the_two_is_nearer(
    device: Any, centre: int
) -> None:
    client = adapted(device)
    for _ in range(45):
        noise = device.rng.integers(-30, 31, (64, 96, 3))
        client.process(Image.fromarray((centre + noise).astype(np.uint8)))
    assert client.stats().alarms["scenery"] == 2


def adapted(device: Any) -> Any:
    """Return a client that went from day to night with a cached agent."""
    device.shelf.add(device.agent("night", quality=25, scenery="night"))
    client = device.client(device.config(monitor="betting"))
    for _ in range(40):
        client.process(device.picture("day"))
    while client.stats().agent_id == "day":
        client.process(device.picture("night"))
    return client
