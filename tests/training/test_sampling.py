"""Which rungs are asked about: one of every part of the ladder, whatever the answers are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.labels.sampling import stratified


@given(
    pictures=st.integers(1, 30),
    rungs=st.integers(1, 40),
    calls=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_one_rung_of_each_part_in_range_and_rising(
    pictures: int, rungs: int, calls: int, seed: int
) -> None:
    asked = stratified(pictures, rungs, calls, np.random.default_rng(seed))
    assert asked.shape == (pictures, calls)
    assert asked.dtype == np.int64
    assert ((asked >= 0) & (asked < rungs)).all()
    assert (np.diff(asked, axis=1) >= 0).all()
    edges = np.linspace(0, rungs, calls + 1)
    for column, (low, high) in zip(asked.T, pairwise(edges), strict=True):
        assert ((column >= np.floor(low)) & (column < high)).all()


def test_with_as_many_calls_as_rungs_each_is_asked_once() -> None:
    asked = stratified(50, 7, 7, np.random.default_rng(0))
    assert asked.tolist() == [list(range(7))] * 50


def test_every_rung_is_as_likely_as_another() -> None:
    asked = stratified(20_000, 10, 3, np.random.default_rng(0))
    shares = np.bincount(asked.ravel(), minlength=10) / asked.size
    np.testing.assert_allclose(shares, 0.1, atol=0.01)


def test_no_calls_ask_about_nothing() -> None:
    assert stratified(4, 10, 0, np.random.default_rng(0)).shape == (4, 0)


def test_the_seed_decides() -> None:
    one, again, other = (
        stratified(9, 20, 3, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2)
    )
    assert one == again != other
