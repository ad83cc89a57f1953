from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.ladder import Rung
from training.measure.baselines import (
    best_fixed,
    chosen,
    fixed,
    fixed_points,
    gap_closed,
    lower_hull,
    oracle,
    oracle_size,
    random_rungs,
    size_at_agreement,
)

SIZES = (0.1, 0.2, 0.4, 0.9)


def answers(agreement: Any, sizes: Any = SIZES) -> Any:
    """What these functions read of an answer table; one view per photo."""
    agreement = np.asarray(agreement, dtype=float)
    n, rungs = agreement.shape
    return SimpleNamespace(
        ladder=tuple(Rung(quality=10 + index) for index in range(rungs)),
        keys=np.array([f"view{index}" for index in range(n)]),
        groups=np.array([f"photo{index}" for index in range(n)]),
        size_ratio=np.broadcast_to(np.asarray(sizes, dtype=float), (n, rungs)),
        agreement={"any_hit": agreement, "eq1": agreement},
    )


#: The first picture is easy, the third agrees at the safest rung only, the last not at the third.
TABLE = answers([[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1]])


def test_fixed_chooses_one_rung_for_all() -> None:
    assert fixed(TABLE, 2).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("target", "rung"), [(0.0, 0), (0.25, 0), (0.26, 1), (0.75, 1), (0.76, 3), (1.0, 3)]
)
def test_best_fixed_is_the_cheapest_that_meets_the_target(target: float, rung: int) -> None:
    assert best_fixed(TABLE, target) == rung


def test_best_fixed_goes_by_bytes_and_not_by_place_on_the_ladder() -> None:
    table = answers([[1, 1, 1]] * 3, sizes=(0.5, 0.3, 0.4))
    assert best_fixed(table, 0.9) == 1


def test_best_fixed_is_the_safest_rung_if_no_rung_meets_the_target() -> None:
    table = answers([[0, 1, 0], [0, 0, 0]], sizes=(0.1, 0.2, 0.3))
    assert best_fixed(table, 0.9) == 1


def test_best_fixed_must_pass_the_certificate_too() -> None:
    asked: list[float] = []

    def strict(agreement: np.ndarray, groups: np.ndarray) -> bool:
        asked.append(float(agreement.mean()))
        return bool(agreement.mean() > 0.9) and len(groups) == 4

    assert best_fixed(TABLE, 0.7, certificate=strict) == 3
    assert asked == [0.75, 1.0]


def test_oracle_takes_the_cheapest_agreeing_rung() -> None:
    assert oracle(TABLE).tolist() == [0, 1, 3, 1]


def test_oracle_takes_the_safest_rung_where_none_agrees() -> None:
    table = answers([[0, 0, 0], [0, 1, 1], [1, 0, 1]], sizes=(0.1, 0.2, 0.3))
    assert oracle(table).tolist() == [2, 1, 0]


def test_random_rungs_are_all_used_and_reproducible() -> None:
    table = answers(np.ones((400, 4)))
    first, again = (random_rungs(table, np.random.default_rng(5)) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert np.bincount(first, minlength=4).min() > 60


def test_fixed_points_end_with_the_reference() -> None:
    points = fixed_points(TABLE)
    expected = [[0.1, 0.25], [0.2, 0.75], [0.4, 0.5], [0.9, 1.0], [1.0, 1.0]]
    assert points.tolist() == pytest.approx(np.array(expected))


def test_hull_leaves_out_what_a_mixture_beats() -> None:
    points = np.array([[0.1, 0.2], [0.3, 0.5], [0.4, 0.4], [0.5, 0.9], [0.9, 0.9], [1.0, 1.0]])
    assert lower_hull(points).tolist() == [[0.1, 0.2], [0.5, 0.9], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("agreement", "size"), [(0.0, 0.1), (0.2, 0.1), (0.55, 0.3), (0.9, 0.5), (0.95, 0.75), (1, 1)]
)
def test_size_at_agreement_mixes_neighbours(agreement: float, size: float) -> None:
    points = np.array([[0.1, 0.2], [0.5, 0.9], [1.0, 1.0]])
    assert size_at_agreement(points, agreement) == pytest.approx(size)


places = st.tuples(st.floats(0.01, 2.0), st.integers(0, 1000).map(lambda share: share / 1000))


@given(st.lists(places, min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_no_mixture_of_two_rungs_is_cheaper(
    points: list[tuple[float, float]], share: float, pick: float
) -> None:
    array = np.array(points)
    one, two = array[int(pick * (len(array) - 1))], array[-1]
    size, agreement = share * one + (1 - share) * two
    assert size_at_agreement(array, float(agreement)) <= size + 1e-9


@given(st.lists(places, min_size=1, max_size=12))
def test_more_agreement_never_costs_less(points: list[tuple[float, float]]) -> None:
    sizes = [size_at_agreement(np.array(points), target) for target in np.linspace(0, 1, 21)]
    assert np.all(np.diff(sizes) >= -1e-12)


def test_oracle_size_gives_up_the_costliest_pictures_first() -> None:
    # To agree, the pictures cost 0.1, 0.2, 0.9 and 0.2; given up, each costs 0.1.
    assert oracle_size(TABLE, 1.0) == pytest.approx((0.1 + 0.2 + 0.9 + 0.2) / 4)
    assert oracle_size(TABLE, 0.75) == pytest.approx((0.1 + 0.2 + 0.1 + 0.2) / 4)
    assert oracle_size(TABLE, 0.875) == pytest.approx((0.1 + 0.2 + 0.5 + 0.2) / 4)
    assert oracle_size(TABLE, 0.0) == pytest.approx(0.1)


def test_oracle_size_follows_the_weights() -> None:
    assert oracle_size(TABLE, 1.0, weights=np.array([0, 0, 2, 2])) == pytest.approx(0.55)


def test_gap_closed_is_one_for_the_oracle_and_zero_for_a_rung_on_the_hull() -> None:
    assert gap_closed(TABLE, oracle(TABLE)) == pytest.approx(1.0)
    assert gap_closed(TABLE, fixed(TABLE, 1)) == pytest.approx(0.0)
    assert gap_closed(TABLE, fixed(TABLE, 2)) < 0


def test_gap_closed_is_not_a_number_where_there_is_no_gap() -> None:
    assert np.isnan(gap_closed(answers(np.ones((3, 4))), fixed(TABLE, 0)[:3]))


@given(st.integers(0, 2**32 - 1))
def test_no_policy_is_below_the_oracle_at_its_agreement(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = answers(rng.integers(0, 2, (9, 4)), sizes=rng.uniform(0.05, 1.0, (9, 4)))
    choices = random_rungs(table, rng)
    agreement = chosen(table.agreement["any_hit"], choices).mean()
    size = chosen(table.size_ratio, choices).mean()
    assert oracle_size(table, float(agreement)) <= size + 1e-12
