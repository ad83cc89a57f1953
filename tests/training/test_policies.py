"""What an agent may do: every policy is the device's own decision, for many pictures at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_sdk.climb import Look, climb
from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint, choose
from training.learn.policies import GRID, SAFEST, ByValue, Fixed, Policy, Probing, Static

COUNT, RUNGS = 12, 5


def scores(seed: int = 0, *, certain: bool = True) -> Scores:
    """Return predictions whose last rung is certain and dearest."""
    rng = np.random.default_rng(seed)
    agreement = np.sort(rng.beta(3.0, 1.0, (COUNT, RUNGS)), axis=1).astype(np.float32)
    if certain:
        agreement[:, -1] = 1.0
    size_ratio = np.sort(rng.uniform(0.05, 1.0, (COUNT, RUNGS)), axis=1).astype(np.float32)
    q_values = rng.normal(size=(COUNT, RUNGS)).astype(np.float32)
    return Scores(np.zeros((COUNT, 2), np.float32), q_values, agreement, size_ratio)


def probing(seed: int = 0, max_probes: int = 3) -> Probing:
    rng = np.random.default_rng(seed + 100)
    told = rng.beta(3.0, 1.0, (COUNT, RUNGS, RUNGS)).astype(np.float32)
    told[:, :, -1] = 1.0
    exact = np.sort(rng.uniform(0.05, 1.0, (COUNT, RUNGS)), axis=1)
    return Probing(scores(seed), told, exact, max_probes)


def every() -> list[Policy]:
    return [Static(scores()), probing(), Fixed((4, 2, 0), COUNT), ByValue(scores())]


@pytest.mark.parametrize("policy", every(), ids=lambda one: type(one).__name__)
def test_a_point_makes_a_device_do_what_was_tested(policy: Policy) -> None:
    for step in [*policy.steps][::7]:
        point = policy.point(step)
        chosen = policy.rungs(step)
        assert chosen.shape == (COUNT,)
        assert chosen.dtype.kind == "i"
        np.testing.assert_array_equal(policy.at(point), chosen)


def test_trade_offs_go_from_the_safest_to_the_cheapest() -> None:
    for policy in (Static(scores()), probing()):
        steps = [*policy.steps]
        assert steps[0] == SAFEST
        assert steps[1:] == list(GRID) == sorted(GRID, reverse=True)
    assert GRID[0] < SAFEST


@pytest.mark.parametrize("policy", [Static(scores()), probing()], ids=["static", "probing"])
def test_the_safest_step_sends_what_is_certain(policy: Policy) -> None:
    assert policy.rungs(SAFEST).tolist() == [RUNGS - 1] * COUNT
    assert policy.foreseen(SAFEST).mean() == 1.0


def test_the_static_policy_is_the_plain_decision() -> None:
    policy = Static(scores())
    for step in (0.1, 1.0, 20.0):
        point = OperatingPoint(trade_off=step)
        np.testing.assert_array_equal(policy.rungs(step), choose(policy.scores, point))
        assert policy.point(step) == point


@given(st.integers(0, 50), st.sampled_from([0.1, 0.7, 2.0, 9.0, 80.0]), st.integers(0, 4))
@settings(max_examples=40)
def test_the_probing_policy_is_the_climb(seed: int, step: float, most: int) -> None:
    policy = probing(seed, most)
    predicted = policy.scores
    assert predicted.agreement is not None
    assert predicted.size_ratio is not None
    expected = []
    for row in range(COUNT):
        looks = [Look(policy.predictions[row, k], policy.size_ratio[row, k]) for k in range(RUNGS)]
        known = predicted.agreement[row], predicted.size_ratio[row]
        expected.append(climb(*known, step, looks.__getitem__, most)[0])
    assert policy.rungs(step).tolist() == expected
    assert policy.point(step) == OperatingPoint(trade_off=step, max_probes=most)
    if most == 0:
        assert expected == Static(predicted).rungs(step).tolist()


def test_looks_that_tell_the_truth_save_bytes_and_keep_the_agreement() -> None:
    truth = np.sort(np.random.default_rng(0).random((COUNT, RUNGS)) > 0.5, axis=1).astype(float)
    truth[:, -1] = 1.0
    predicted = scores()
    assert predicted.size_ratio is not None
    exact = predicted.size_ratio.astype(np.float64)
    told = np.repeat(truth[:, None, :], RUNGS, axis=1).astype(np.float32)
    looking, rows = Probing(predicted, told, exact, RUNGS), np.arange(COUNT)

    def value(policy: Policy, step: float) -> NDArray[np.float64]:
        chosen = policy.rungs(step)
        return np.asarray(step * truth[rows, chosen] - exact[rows, chosen])

    for step in (0.5, 2.0, 10.0):
        assert (value(looking, step) >= value(Static(predicted), step) - 1e-6).all()
        assert looking.foreseen(step).mean() == pytest.approx(
            truth[rows, looking.rungs(step)].mean()
        )


def test_what_is_expected_is_what_is_predicted_of_the_choice() -> None:
    policy = Static(scores())
    assert policy.scores.agreement is not None
    for step in (0.2, 3.0):
        chosen = policy.rungs(step)
        expected = policy.scores.agreement[np.arange(COUNT), chosen].mean()
        assert policy.foreseen(step).mean() == pytest.approx(expected)


def test_one_picture_is_expected_to_do_what_the_look_at_it_told() -> None:
    predicted = Scores(
        np.zeros((1, 1), np.float32),
        np.zeros((1, 3), np.float32),
        np.array([[0.9, 0.9, 1.0]], np.float32),
        np.array([[0.1, 0.2, 0.9]], np.float32),
    )
    told = np.array([[[0.2, 0.7, 1.0], [0.1, 0.97, 1.0], [0.0, 0.0, 1.0]]], np.float32)
    policy = Probing(predicted, told, np.array([[0.1, 0.2, 0.9]]), 2)
    assert policy.rungs(2.0).tolist() == [1]
    assert policy.foreseen(2.0).mean() == pytest.approx(0.97)
    assert policy.foreseen(SAFEST).mean() == 1.0


def test_one_rung_is_sent_whatever_the_picture() -> None:
    policy = Fixed((4, 2, 0), COUNT)
    assert [policy.rungs(step)[0] for step in policy.steps] == [4, 2, 0]
    assert policy.rungs(1.0).tolist() == [2] * COUNT
    assert policy.point(1.0) == OperatingPoint(trade_off=None, rung=2)
    assert np.isnan(policy.foreseen(0.0)).all()


def test_q_values_decide_by_themselves_and_have_no_step() -> None:
    policy = ByValue(scores())
    assert [*policy.steps] == []
    best = policy.scores.q_values.argmax(axis=1)
    np.testing.assert_array_equal(policy.at(OperatingPoint(trade_off=None)), best)
    assert np.isnan(policy.foreseen(0.0)).all()
