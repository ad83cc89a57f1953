"""The climb: what is looked at, what is chosen, and that looking never hurts."""

from __future__ import annotations

import doctest
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edge_sdk import climb as module
from edge_sdk.climb import Look, climb
from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint, choose

FloatArray = NDArray[np.floating[Any]]

shares = st.floats(0, 1, width=32) | st.just(1.0)
sizes = st.floats(0.015625, 2, width=32)
trade_offs = st.floats(0.0, 100.0) | st.just(1e6)


class Case(NamedTuple):
    """What an engine predicted, and what probes would tell: rung by rung, of every rung."""

    agreement: FloatArray
    size_ratio: FloatArray
    looks: list[Look]
    trade_off: float
    max_probes: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 7))
    told = arrays(np.float32, count, elements=shares)
    return Case(
        draw(told),
        draw(arrays(np.float32, count, elements=sizes)),
        [Look(draw(told), draw(sizes)) for _ in range(count)],
        draw(trade_offs),
        draw(st.integers(0, 9)),
    )


def with_looks(
    agreement: FloatArray, size_ratio: FloatArray, looks: list[Look], trade_off: float, most: int
) -> tuple[int, tuple[int, ...]]:
    return climb(agreement, size_ratio, trade_off, looks.__getitem__, most)


def test_the_example_in_the_docstring_is_true() -> None:
    assert doctest.testmod(module).failed == 0


@given(cases())
def test_every_look_is_paid_once_and_none_too_many(case: Case) -> None:
    paid: list[int] = []

    def look(rung: int) -> Look:
        paid.append(rung)
        return case.looks[rung]

    rung, probed = climb(case.agreement, case.size_ratio, case.trade_off, look, case.max_probes)
    assert len(paid) <= case.max_probes
    assert tuple(paid) == probed
    assert len(set(paid)) == len(paid)
    assert 0 <= rung < len(case.agreement)


@given(cases(), st.data())
def test_an_unusable_rung_is_neither_chosen_nor_looked_at(case: Case, data: st.DataObject) -> None:
    rungs = st.integers(0, len(case.agreement) - 1)
    usable = data.draw(st.sets(rungs, min_size=1))
    rung, probed = climb(
        case.agreement,
        case.size_ratio,
        case.trade_off,
        case.looks.__getitem__,
        case.max_probes,
        usable,
    )
    assert {rung, *probed} <= usable


@given(cases())
def test_what_is_certain_is_never_looked_at(case: Case) -> None:
    _, probed = with_looks(
        case.agreement, case.size_ratio, case.looks, case.trade_off, case.max_probes
    )
    assert not [rung for rung in probed if case.agreement[rung] == 1.0]


def test_a_certain_rung_that_is_best_is_chosen_without_a_look() -> None:
    def look(rung: int) -> Look:
        raise AssertionError(f"looked at {rung}")

    best = climb(np.array([0.5, 0.9, 1.0]), np.array([0.3, 0.4, 0.5]), 10.0, look, 4)
    assert best == (2, ())
    # Of two certain ones the cheaper, whatever the agreement is worth.
    assert climb(np.array([0.2, 1.0, 1.0]), np.array([0.1, 0.6, 0.5]), 1e6, look, 4) == (2, ())


@given(cases())
def test_without_probes_it_is_the_plain_decision(case: Case) -> None:
    scores = Scores(
        features=np.zeros((1, 1), np.float32),
        q_values=np.zeros((1, len(case.agreement)), np.float32),
        agreement=case.agreement[None].astype(np.float32),
        size_ratio=case.size_ratio[None].astype(np.float32),
    )
    rung, probed = with_looks(case.agreement, case.size_ratio, case.looks, case.trade_off, 0)
    assert (rung, probed) == (choose(scores, OperatingPoint(trade_off=case.trade_off))[0], ())


@given(cases(), st.data())
def test_looks_that_tell_the_truth_never_lower_the_value(case: Case, data: st.DataObject) -> None:
    """Sizes may be predicted wrongly, all by the same factor: the first look sets that right."""
    truth = data.draw(arrays(np.float64, len(case.agreement), elements=shares))
    truth[case.agreement == 1.0] = 1.0  # those agree by construction
    true_size = data.draw(st.floats(0.5, 2.0)) * case.size_ratio.astype(np.float64)
    looks = [Look(truth, float(size)) for size in true_size]
    value = case.trade_off * truth - true_size

    def chosen(most: int) -> int:
        predicted = case.agreement.astype(np.float64), case.size_ratio.astype(np.float64)
        return with_looks(*predicted, looks, case.trade_off, most)[0]

    slack = 1e-9 * max(1.0, case.trade_off)
    assert value[chosen(case.max_probes)] >= value[chosen(0)] - slack


def test_a_good_look_ends_the_climb_and_a_bad_one_goes_on() -> None:
    agreement, size_ratio = np.array([0.9, 0.9, 0.9]), np.array([0.1, 0.2, 0.4])

    def told(*own: float) -> list[Look]:
        return [
            Look(np.array([own[0], 0.95, 0.99]), 0.1),
            Look(np.array([0.1, own[1], 0.99]), 0.2),
            Look(np.array([0.1, 0.3, own[2]]), 0.4),
        ]

    assert with_looks(agreement, size_ratio, told(0.99, 0, 0), 2.0, 3) == (0, (0,))
    assert with_looks(agreement, size_ratio, told(0.1, 0.97, 0), 2.0, 3) == (1, (0, 1))
    assert with_looks(agreement, size_ratio, told(0.1, 0.2, 0.99), 2.0, 3) == (2, (0, 1, 2))


def test_a_doubtful_rung_is_worth_a_look_but_not_the_upload() -> None:
    """With no look left, nobody gets the benefit of the doubt."""
    agreement, size_ratio = np.array([0.7, 0.7]), np.array([0.2, 0.4])
    looks = [Look(np.array([0.5, 0.62]), 0.2), Look(np.array([0.5, 0.9]), 0.4)]
    assert with_looks(agreement, size_ratio, looks, 1.0, 1) == (0, (0,))
    assert with_looks(agreement, size_ratio, looks, 1.0, 2) == (1, (0, 1))


def test_a_size_that_surprises_is_expected_of_the_others_too() -> None:
    """Rung 1 is four times as large as foreseen; so will rung 0 be, which is then no bargain."""
    agreement, size_ratio = np.array([0.5, 0.9]), np.array([0.1, 0.2])
    told = np.array([0.5, 0.95])
    assert with_looks(agreement, size_ratio, [Look(told, 0.1), Look(told, 0.8)], 1.0, 1) == (
        1,
        (1,),
    )
    assert with_looks(agreement, size_ratio, [Look(told, 0.4), Look(told, 0.8)], 1.0, 2)[0] == 1


def test_each_rung_believes_the_look_that_was_nearest_in_size() -> None:
    agreement, size_ratio = np.full(4, 0.9), np.array([0.1, 0.12, 0.5, 0.55])
    small = Look(np.array([0.2, 0.3, 0.99, 0.99]), 0.1)
    large = Look(np.array([0.99, 0.99, 0.5, 0.6]), 0.5)
    # Seen from rung 0 the large ones look fine; seen from rung 2 it is the small ones that do.
    looks = [small, small, large, large]
    assert with_looks(agreement, size_ratio, looks, 1.0, 2) == (1, (0, 2))


def test_what_a_look_raises_is_the_callers() -> None:
    def look(rung: int) -> Look:
        raise RuntimeError("the probe broke")

    with pytest.raises(RuntimeError, match="the probe broke"):
        climb(np.array([0.5]), np.array([0.5]), 1.0, look, 1)
