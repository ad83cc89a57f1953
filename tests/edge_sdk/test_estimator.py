from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.estimator import TABLE_1, Estimator, LoopParameters, mean
from model_store.errors import UsageError

agreements = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=1, max_size=60)


def watch(values: list[float], parameters: LoopParameters = TABLE_1) -> Estimator:
    estimator = Estimator(parameters)
    for value in values:
        estimator = estimator.observe(value)
    return estimator


def test_defaults_are_table_1() -> None:
    assert (TABLE_1.n, TABLE_1.p_0, TABLE_1.omega, TABLE_1.A_0, TABLE_1.r_th) == (
        10,
        0.2,
        -3.0,
        0.8,
        0.45,
    )


@given(agreements)
def test_p_est_is_the_printed_sum_of_gradients_clipped_only_at_the_end(values: list[float]) -> None:
    means = [np.mean(values[max(0, step - TABLE_1.n) : step]) for step in range(1, len(values) + 1)]
    printed = TABLE_1.p_0 + TABLE_1.omega * sum(np.diff(means))
    expected = min(max(printed, TABLE_1.p_min), TABLE_1.p_max)
    assert watch(values).p_est == pytest.approx(expected)


@given(agreements)
def test_p_est_stays_within_its_bounds(values: list[float]) -> None:
    assert TABLE_1.p_min <= watch(values).p_est <= TABLE_1.p_max


def test_a_loss_hidden_by_the_ceiling_is_remembered() -> None:
    # Ā falls to 0 and climbs back to 0.1: the sum is still -0.9, far beyond the ceiling.
    fallen = watch([1.0] * 10 + [0.0] * 10 + [1.0])
    assert fallen.average == pytest.approx(0.1)
    assert fallen.p_est == TABLE_1.p_max


def test_before_the_window_is_full_the_mean_is_over_what_there_is() -> None:
    assert watch([1.0, 1.0, 0.0]).average == pytest.approx(2 / 3)


def test_only_a_full_window_can_fail() -> None:
    assert not watch([0.0] * 9).failing
    assert watch([0.0] * 10).failing


def test_eight_of_ten_is_not_below_the_threshold() -> None:
    assert not watch([1.0] * 8 + [0.0] * 2).failing
    assert watch([1.0] * 7 + [0.0] * 3).failing


def test_an_accepted_agent_starts_at_p_0_with_its_own_mean() -> None:
    started = Estimator.started(TABLE_1, [1.0] * 9 + [0.0])
    assert started.p_est == TABLE_1.p_0
    assert started.observe(1.0).p_est == pytest.approx(TABLE_1.p_0)  # a 1 leaves, a 1 comes


def test_the_mean_of_tenths_is_exact() -> None:
    assert mean([0.1] * 10) == 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("p_0", 1.5),
        ("A_0", -0.1),
        ("omega", float("nan")),
        ("r_th", float("inf")),
        ("p_min", 0.0),
        ("p_max", 1.1),
    ],
)
def test_impossible_parameters_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        replace(TABLE_1, **{field: value})
