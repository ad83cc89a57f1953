from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import UsageError
from training.measure.intervals import (
    Interval,
    bootstrap,
    bootstrap_difference,
    bootstrap_mean,
    resample,
    wilson,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_same_seed_gives_the_same_interval() -> None:
    values, groups = rng(1).random(40), np.arange(40) // 4
    assert bootstrap_mean(values, groups, rng=rng(7)) == bootstrap_mean(values, groups, rng=rng(7))


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(0, 2**32 - 1),
)
def test_interval_holds_its_mean_and_stays_within_the_values(
    values: list[float], views: int, seed: int
) -> None:
    groups = np.arange(len(values)) // views
    found = bootstrap_mean(values, groups, rng=rng(seed), draws=200)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert min(values) - 1e-9 <= found.lo <= found.hi <= max(values) + 1e-9


def test_views_of_one_photo_count_as_one_photo() -> None:
    photos = rng(2).integers(0, 2, 30).astype(float)
    alone = bootstrap_mean(photos, np.arange(30), rng=rng())
    copied = bootstrap_mean(np.repeat(photos, 4), np.repeat(np.arange(30), 4), rng=rng())
    naive = bootstrap_mean(np.repeat(photos, 4), np.arange(120), rng=rng())
    assert copied.lo == pytest.approx(alone.lo)
    assert copied.hi == pytest.approx(alone.hi)
    assert naive.hi - naive.lo < 0.6 * (copied.hi - copied.lo)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    source, hits, runs = rng(3), 0, 200
    groups = np.repeat(np.arange(60), 3)
    for _ in range(runs):
        values = np.repeat(source.normal(2.0, 1.0, 60), 3) + source.normal(0, 0.3, 180)
        found = bootstrap_mean(values, groups, rng=source, draws=300)
        hits += found.lo <= 2.0 <= found.hi
    assert 0.89 <= hits / runs <= 0.99


def test_paired_difference_is_narrower_than_the_parts() -> None:
    common = rng(4).random(50)
    groups = np.arange(50)
    difference = bootstrap_difference(common + 0.1, common, groups, rng=rng())
    part = bootstrap_mean(common, groups, rng=rng())
    assert difference.mean == pytest.approx(0.1)
    assert difference.hi - difference.lo < 1e-9 < part.hi - part.lo


def test_bootstrap_of_a_statistic_agrees_with_the_bootstrap_of_a_mean() -> None:
    values, groups = rng(5).random(24), np.arange(24) // 2

    def mean(weights: np.ndarray) -> tuple[float]:
        return (float(np.average(values, weights=weights)),)

    (found,) = bootstrap(mean, groups, rng=rng(), draws=100)
    expected = bootstrap_mean(values, groups, rng=rng(), draws=100)
    assert (found.mean, found.lo, found.hi) == pytest.approx(
        (expected.mean, expected.lo, expected.hi)
    )


def test_draws_without_a_figure_are_left_out() -> None:
    def sometimes(weights: np.ndarray) -> tuple[float]:
        return (float("nan") if weights[0] > 1 else 0.5,)

    (found,) = bootstrap(sometimes, ["a", "b", "c"], rng=rng(), draws=50)
    assert found == Interval(0.5, 0.5, 0.5)


def test_full_agreement_is_not_called_certain() -> None:
    (found,) = resample(np.repeat(np.arange(40), 5), rng()).proportions(np.ones((200, 1)))
    assert found.hi == 1.0
    assert found.lo == pytest.approx(wilson(1.0, 40).lo)
    assert 0.90 < found.lo < 0.93


def test_wilson_gives_the_textbook_values() -> None:
    found = wilson(0.9, 50)
    assert (found.lo, found.hi) == pytest.approx((0.7864, 0.9565), abs=1e-4)


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_wilson_stays_in_bounds_and_holds_the_share(share: float, n: int) -> None:
    found = wilson(share, n)
    assert 0 <= found.lo <= share <= found.hi <= 1


def test_no_pictures_is_said_in_words() -> None:
    with pytest.raises(UsageError, match="no pictures"):
        bootstrap_mean([], [], rng=rng())


def test_a_figure_that_is_not_finite_is_refused() -> None:
    with pytest.raises(UsageError, match="missing values"):
        bootstrap_mean([1.0, float("nan")], ["a", "b"], rng=rng())
