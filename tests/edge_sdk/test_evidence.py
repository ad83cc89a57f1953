from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.evidence import Betting, Evidence
from model_store.errors import UsageError


def answers_until_alarm(agreement: float, seed: int, most: int = 4000) -> int:
    rng, watch = np.random.default_rng(seed), Evidence()
    for count in range(1, most + 1):
        watch = watch.observe(float(rng.random() < agreement))
        if watch.failing:
            return count
    return most


def test_an_agent_just_as_good_as_promised_rings_no_alarm_in_a_thousand_answers() -> None:
    assert np.mean([answers_until_alarm(0.95, seed) for seed in range(20)]) >= 1000


@pytest.mark.parametrize(("agreement", "most"), [(0.8, 80), (0.5, 25), (0.0, 6)])
def test_the_worse_an_agent_is_the_sooner_it_is_noticed(agreement: float, most: int) -> None:
    assert np.mean([answers_until_alarm(agreement, seed) for seed in range(20)]) <= most


def test_a_long_good_time_does_not_lull_it() -> None:
    watch = Evidence()
    for _ in range(5000):
        watch = watch.observe(1.0)
    assert watch.stake == pytest.approx(Betting().calm, rel=1e-3)
    for _ in range(5):
        watch = watch.observe(0.0)
    assert watch.failing


@given(st.lists(st.floats(0.0, 1.0), max_size=60))
def test_no_stake_is_ever_lost_whole_and_the_share_stays_in_bounds(answers: list[float]) -> None:
    watch = Evidence()
    for answer in answers:
        watch = watch.observe(answer)
        assert watch.stake > 0.0
        assert Betting().share <= watch.p_est <= Betting().doubted
        assert 0.0 <= (watch.lately or 0.0) <= 1.0


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_bet_is_fair_at_the_target_whatever_was_seen(
    first: float, second: float, third: float
) -> None:
    before = Evidence().observe(first).observe(second).observe(third)
    right, wrong, target = before.observe(1.0), before.observe(0.0), before.parameters.target
    expected = target * right.stake + (1.0 - target) * wrong.stake
    assert expected == pytest.approx(before.stake + 1.0, rel=1e-9)


def test_a_miss_makes_it_look_more_often_and_hits_calm_it() -> None:
    calm = Evidence()
    for _ in range(30):
        calm = calm.observe(1.0)
    missed = calm.observe(0.0)
    assert calm.p_est == pytest.approx(Betting().share, rel=0.01)
    assert missed.p_est > 5 * calm.p_est
    for _ in range(30):
        missed = missed.observe(1.0)
    assert missed.p_est == pytest.approx(Betting().share, rel=0.05)


@pytest.mark.parametrize(
    ("agreements", "verdict"),
    [
        ([1.0] * 4, "open"),
        ([1.0] * 5, "passed"),
        ([0.0], "open"),
        ([0.0, 0.0], "failed"),
        ([1.0, 0.0, 1.0, 1.0], "open"),
        ([1.0, 0.0, *[1.0] * 8], "passed"),
        ([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], "open"),
        ([1.0, 0.0, 1.0, 1.0, 0.0, *[1.0] * 5], "failed"),
    ],
)
def test_a_cached_agent_is_judged_by_few_answers(agreements: list[float], verdict: str) -> None:
    assert Evidence().verdict(agreements) == verdict


@pytest.mark.parametrize(
    "choice",
    [
        {"target": 1.0},
        {"A_0": 0.95},
        {"poor": 0.97},
        {"delta": 0.0},
        {"level": 0.5},
        {"share": 0.0},
        {"share": 0.6},
        {"probation": 1.1},
        {"n": 0},
        {"most": 0},
    ],
)
def test_senseless_parameters_are_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="allowed"):
        Betting(**choice)
