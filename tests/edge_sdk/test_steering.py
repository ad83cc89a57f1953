"""The trade-off between certificates: misses make careful, hits relax, never below the promise."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import steering
from edge_sdk.engine import Scores
from edge_sdk.estimator import LoopParameters
from edge_sdk.policy import OperatingPoint
from edge_sdk.steering import MOST, Steering
from model_store.errors import UsageError


def test_the_example_of_the_module_runs() -> None:
    assert doctest.testmod(steering).failed == 0


@given(st.lists(st.floats(0.0, 1.0)), st.floats(0.0, 5.0), st.floats(0.01, 0.99))
def test_caution_stays_between_the_certificate_and_its_limit(
    agreements: list[float], rate: float, target: float
) -> None:
    one = Steering(rate, target)
    for agreement in agreements:
        one.verified(agreement)
        assert 1.0 <= one.caution <= MOST


def test_without_a_rate_nothing_moves() -> None:
    one = Steering(0.0, 0.95)
    one.verified(0.0)
    assert one.caution == 1.0


def test_the_long_run_error_comes_to_the_target_when_the_world_gets_harder() -> None:
    """A policy whose error falls with caution as 0.4 / caution: certified at 1, wrong by now."""
    rng, one, errors = np.random.default_rng(0), Steering(0.5, 0.9), []
    for _ in range(4000):
        miss = float(rng.random() < 0.4 / one.caution)
        errors.append(miss)
        one.verified(1.0 - miss)
    assert np.mean(errors[500:]) == pytest.approx(0.1, abs=0.02)


class Doubter:
    """An engine that is half sure of the cheap rung: its choice follows the trade-off."""

    side, provider = 8, "fake"

    def __init__(self, ladder: Any) -> None:
        self.ladder = ladder

    def run(self, images: Any) -> Scores:
        size = np.array([[(rung.quality / 75) for rung in self.ladder]], dtype=np.float32)
        agreement = np.minimum(size, 1.0)
        features = images.reshape(1, -1, 3).mean(axis=1).astype(np.float32) / 255
        return Scores(features, agreement - size, agreement, size)


def test_a_device_gets_careful_after_a_miss_and_says_so(device: Any) -> None:
    current = device.shelf.agents["day"]
    engine = Doubter(current.engine.ladder)
    point = OperatingPoint(trade_off=0.9, target=0.95)
    device.shelf.agents["day"] = type(current)("day", engine, point, "day")
    device.service.readable = {"day": {75}, "night": {75}}
    client = device.client(device.config(loop=LoopParameters(p_0=1.0, p_min=1.0, A_0=0.0)))

    first = client.process(device.picture())
    second = client.process(device.picture())

    assert first.rung.quality == 5
    assert client.stats().caution > 1.0
    assert second.rung.quality >= 75


def test_a_steering_without_sense_is_refused(device: Any) -> None:
    with pytest.raises(UsageError, match="steering is -1"):
        device.config(steering=-1.0)
