from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from training.learn.logistic import covariance, fit_linear, fit_logistic, log_loss

seeds = st.integers(0, 10_000)


def problem(seed: int) -> tuple[np.ndarray, ...]:
    """Design, probabilities, penalty and offset of a random regression."""
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(5, 80)), int(rng.integers(1, 6))
    design = rng.normal(size=(rows, columns))
    probability = expit(design @ rng.normal(size=columns))
    return design, probability, rng.uniform(0.1, 5.0, columns), rng.normal(0.0, 2.0, rows)


def objective(weights: np.ndarray, design: np.ndarray, *rest: np.ndarray) -> float:
    target, penalty, offset = rest
    return float(
        log_loss(offset + design @ weights, target).sum() + 0.5 * (penalty * weights**2).sum()
    )


# --- logistic ---------------------------------------------------------------------------------


@given(seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_it_finds_the_minimum(seed: int, soft: bool) -> None:
    design, probability, penalty, offset = problem(seed)
    hard = np.random.default_rng(seed).random(len(probability)) < probability
    target = probability if soft else hard.astype(float)
    found = fit_logistic(design, target, penalty, offset)
    slow = minimize(
        objective, np.zeros(design.shape[1]), (design, target, penalty, offset), tol=1e-10
    )
    assert found == pytest.approx(slow.x, abs=1e-3)
    assert objective(found, design, target, penalty, offset) <= slow.fun + 1e-6


@given(st.integers(1, 500), st.floats(0.01, 0.99))
def test_with_a_constant_alone_it_is_the_rate(count: int, rate: float) -> None:
    target = np.full(count, rate)
    (bias,) = fit_logistic(np.ones((count, 1)), target, np.array([1e-9]), np.zeros(count))
    assert expit(bias) == pytest.approx(rate, abs=1e-4)


def test_an_offset_that_explains_everything_leaves_nothing() -> None:
    design, _, penalty, offset = problem(3)
    assert fit_logistic(design, expit(offset), penalty, offset) == pytest.approx(0.0, abs=1e-9)


def test_an_offset_is_added_to_what_is_learnt() -> None:
    design, probability, _, _ = problem(5)
    known, tiny = np.full(len(design), 1.5), np.full(design.shape[1] + 1, 1e-8)
    constant = np.column_stack([design, np.ones(len(design))])
    target = 0.9 * probability + 0.05
    without = fit_logistic(constant, target, tiny, np.zeros(len(design)))
    less_bias = without - np.eye(len(without))[-1] * 1.5
    assert fit_logistic(constant, target, tiny, known) == pytest.approx(less_bias, abs=1e-3)


@pytest.mark.parametrize("gap", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("penalty", [1e-6, 1e-2, 100.0])
def test_separable_data_stays_finite(gap: float, penalty: float) -> None:
    side = np.repeat([-1.0, 1.0], 20)
    design = np.column_stack([side * gap, np.ones(40)])
    found = fit_logistic(design, (side > 0).astype(float), np.full(2, penalty), np.zeros(40))
    assert np.isfinite(found).all()
    assert found[0] > 0


@pytest.mark.parametrize("height", [40.0, 1e4])
def test_offsets_far_from_the_truth_stay_finite(height: float) -> None:
    design, target = np.ones((50, 1)), np.zeros(50)
    (found,) = fit_logistic(design, target, np.array([0.01]), np.full(50, height))
    assert np.isfinite(found)
    assert objective(np.array([found]), design, target, np.array([0.01]), np.full(50, height)) < (
        objective(np.zeros(1), design, target, np.array([0.01]), np.full(50, height))
    )


def test_a_stronger_penalty_gives_smaller_weights() -> None:
    design, probability, penalty, offset = problem(7)
    sizes = [
        float(np.abs(fit_logistic(design, probability, factor * penalty, offset)).sum())
        for factor in (0.1, 10.0, 1e6)
    ]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < 1e-3


def test_rows_may_be_repeated_instead_of_weighed() -> None:
    design, probability, penalty, offset = problem(11)
    once = fit_logistic(design, probability, penalty, offset)
    twice = fit_logistic(
        np.tile(design, (2, 1)), np.tile(probability, 2), 2 * penalty, np.tile(offset, 2)
    )
    assert twice == pytest.approx(once, abs=1e-4)


# --- linear -----------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_linear_is_the_closed_form_of_ridge(seed: int) -> None:
    design, target, penalty, offset = problem(seed)
    # Ridge is least squares with one row more for every penalised weight.
    stacked = np.vstack([design, np.diag(np.sqrt(penalty))])
    goal = np.concatenate([target - offset, np.zeros(len(penalty))])
    expected = np.linalg.lstsq(stacked, goal, rcond=None)[0]
    assert fit_linear(design, target, penalty, offset) == pytest.approx(expected, abs=1e-9)


def test_linear_finds_the_truth_behind_an_offset() -> None:
    design, _, penalty, offset = problem(2)
    truth = np.arange(1.0, design.shape[1] + 1.0)
    found = fit_linear(design, design @ truth + offset, 1e-9 * penalty, offset)
    assert found == pytest.approx(truth, abs=1e-6)


# --- what goes with them ----------------------------------------------------------------------


@given(st.floats(-700, 700), st.floats(0, 1))
def test_the_loss_is_the_cross_entropy_and_never_overflows(logit: float, target: float) -> None:
    loss = float(log_loss(np.array(logit), np.array(target)))
    expected = -target * log_expit(logit) - (1.0 - target) * log_expit(-logit)
    assert loss == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_covariance_is_the_inverse_curvature_at_the_minimum() -> None:
    design, probability, penalty, offset = problem(13)
    arguments = (design, probability, penalty, offset)
    best, step = fit_logistic(*arguments), 1e-4
    identity = np.eye(len(best)) * step
    hessian = np.array(
        [
            [
                (
                    objective(best + a + b, *arguments)
                    - objective(best + a - b, *arguments)
                    - objective(best - a + b, *arguments)
                    + objective(best - a - b, *arguments)
                )
                / (4 * step**2)
                for b in identity
            ]
            for a in identity
        ]
    )
    found = covariance(design, penalty, offset, best)
    assert found == pytest.approx(np.linalg.inv(hessian), rel=1e-2, abs=1e-5)


def test_the_covariance_is_how_far_estimates_stray() -> None:
    rng = np.random.default_rng(0)
    design, truth = rng.normal(size=(300, 2)), np.array([0.5, -1.0])
    penalty, offset = np.full(2, 1e-3), np.zeros(300)
    estimates = [
        fit_logistic(
            design, (rng.random(300) < expit(design @ truth)).astype(float), penalty, offset
        )
        for _ in range(300)
    ]
    expected = covariance(design, penalty, offset, truth)
    assert np.cov(np.transpose(estimates)) == pytest.approx(expected, rel=0.3, abs=0.005)


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (1, 1), (9000, 7), (40, 300)])
def test_any_shape_of_design_can_be_solved(rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    design, target = rng.normal(size=(rows, columns)), rng.random(rows)
    penalty, offset = np.full(columns, 2.0), np.zeros(rows)
    expected = np.linalg.solve(design.T @ design + 2.0 * np.eye(columns), design.T @ target)
    assert fit_linear(design, target, penalty, offset) == pytest.approx(expected, abs=1e-9)
    found = fit_logistic(design, target, penalty, offset)
    slope = design.T @ (target - expit(design @ found)) - penalty * found
    assert slope == pytest.approx(0.0, abs=1e-2)
