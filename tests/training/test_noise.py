from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_sdk.agreement import METRICS
from training.measure.intervals import Interval
from training.measure.noise import NEIGHBOURS, Noise, measure_noise, sample


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def noise(flips: int, *, agent: float = 0.95, target: float = 0.9, pictures: int = 50) -> Noise:
    """A service that says something else about ``flips`` pictures at the lower neighbour."""
    agrees = np.ones((pictures, 2))
    agrees[:flips, 0] = 0.0
    table: Any = SimpleNamespace(
        groups=np.arange(pictures), agreement=dict.fromkeys(METRICS, agrees)
    )
    agreement = Interval(agent, agent - 0.02, min(1.0, agent + 0.02))
    return measure_noise(table, agreement=agreement, target=target, rng=rng())


def test_the_neighbours_are_one_step_from_the_reference() -> None:
    assert [(rung.quality, rung.entropy, rung.subsampling) for rung in NEIGHBOURS] == [
        (70, "plain", "4:2:0"),
        (80, "plain", "4:2:0"),
    ]


def test_the_floor_is_the_mean_over_pictures_and_both_neighbours() -> None:
    found = noise(10)
    assert found.pictures == 50
    floor = found.agreement["any_hit"]
    assert floor.mean == pytest.approx(0.9)
    assert 0.8 < floor.lo < 0.9 < floor.hi < 1.0
    assert "agrees with itself in 0.900" in found.sentence
    assert "50 pictures" in found.sentence
    assert found.as_dict()["qualities"] == [70, 80]


def test_a_service_that_never_wavers_is_not_certain_all_the_same() -> None:
    floor = noise(0).agreement["any_hit"]
    assert floor.mean == 1.0
    assert floor.lo < 0.95


def test_an_agent_is_only_blamed_for_what_is_below_the_floor() -> None:
    assert "0.950 cannot be told from that" in noise(5, agent=0.95).sentence
    assert "0.800 is 0.150 below it: so much is the encoding's doing" in (
        noise(5, agent=0.8).sentence
    )


def test_a_target_above_the_floor_is_said_to_be() -> None:
    above, below = noise(10, target=0.97), noise(10, target=0.9)
    assert above.target_above
    assert "The target of 0.97 is above this floor" in above.sentence
    assert not below.target_above
    assert "target" not in below.sentence


@pytest.mark.parametrize(("count", "size", "drawn"), [(200, 50, 50), (30, 50, 30), (5, 0, 0)])
def test_a_sample_has_no_picture_twice(count: int, size: int, drawn: int) -> None:
    rows = sample(count, size, rng())
    assert len(set(rows)) == len(rows) == drawn
    assert rows == sorted(rows)
    assert set(rows) <= set(range(count))
