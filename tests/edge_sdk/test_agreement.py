"""The agreement metrics against hand-computed cases and their bounds."""

from __future__ import annotations

import doctest
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import agreement
from edge_sdk.agreement import METRICS, TOP, Agreement, compare, eq1
from edge_sdk.backends.base import Label

labels = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 1)), max_size=9)
scores = st.floats(0, 1)


def answer(names: str, score: float = 0.9) -> list[Label]:
    return [Label(name, score) for name in names]


def test_the_examples_of_the_module_run() -> None:
    assert doctest.testmod(agreement).failed == 0


@pytest.mark.parametrize(
    ("reference", "compressed", "any_hit", "share", "top1", "jaccard"),
    [
        ("abc", "abc", 1, 1, 1, 1),
        ("abc", "bca", 1, 1, 0, 1),
        ("abcd", "axyz", 1, 1 / 4, 1, 1 / 7),
        ("abcd", "bcxy", 0, 2 / 4, 0, 2 / 6),
        ("ab", "xy", 0, 0, 0, 0),
        ("a", "xyza", 1, 1, 0, 1 / 4),
        ("abcdef", "abcdef", 1, 5 / 6, 1, 1),  # the sixth is beyond the answer's best five
        ("f", "abcdef", 0, 0, 0, 1 / 6),
        ("abcdefgh", "a", 1, 1 / 8, 1, 1 / 8),
    ],
)
def test_hand_computed_cases(
    reference: str, compressed: str, any_hit: float, share: float, top1: float, jaccard: float
) -> None:
    got = compare(answer(reference), answer(compressed))
    assert astuple(got) == pytest.approx((any_hit, share, top1, jaccard))


@pytest.mark.parametrize(
    ("reference", "compressed", "k", "expected"),
    [
        (["a", "b", "c"], ["b", "a"], 1, 1.0),
        (["a", "b", "c"], ["b", "a"], 2, 1.0),
        (["a", "b", "c"], ["b", "a"], 3, 2 / 3),
        (["a"], ["1", "2", "3", "4", "5", "a"], 1, 0.0),
        (["a"], ["1", "2", "3", "4", "a"], 1, 1.0),
    ],
)
def test_equation_1(reference: list[str], compressed: list[str], k: int, expected: float) -> None:
    assert eq1(reference, compressed, k) == pytest.approx(expected)


def test_no_label_on_both_sides_is_agreement_on_one_side_it_is_not() -> None:
    assert compare([], []) == Agreement(1.0, 1.0, 1.0, 1.0)
    assert compare(answer("a"), []) == compare([], answer("a")) == Agreement(0.0, 0.0, 0.0, 0.0)


def test_labels_below_the_users_score_do_not_count() -> None:
    reference = [("cat", 0.9), ("dog", 0.5), ("fox", 0.1)]
    compressed = [("cat", 0.5), ("fox", 0.4)]
    assert compare(reference, compressed).eq1 == pytest.approx(2 / 3)
    assert compare(reference, compressed, min_score=0.4).eq1 == pytest.approx(1 / 2)
    assert compare(reference, compressed, min_score=0.5).eq1 == pytest.approx(1 / 2)  # 0.5 counts
    assert compare(reference, compressed, min_score=0.6).eq1 == 0.0
    assert compare(reference, compressed, min_score=0.95).eq1 == 1.0  # nothing left on both sides


def test_the_best_five_are_counted_among_labels_that_count() -> None:
    noisy = [*answer("uvwxy", score=0.1), *answer("a", score=0.9)]
    assert compare(answer("a"), noisy).any_hit == 0.0
    assert compare(answer("a"), noisy, min_score=0.2).any_hit == 1.0


@given(labels, labels, scores)
def test_every_metric_is_between_0_and_1(
    one: list[tuple[str, float]], other: list[tuple[str, float]], min_score: float
) -> None:
    got = compare(one, other, min_score)
    assert all(0.0 <= getattr(got, name) <= 1.0 for name in METRICS)


@given(labels, scores)
def test_an_answer_of_up_to_five_labels_agrees_with_itself(
    given_: list[tuple[str, float]], min_score: float
) -> None:
    short = given_[:TOP]
    assert compare(short, short, min_score) == Agreement(1.0, 1.0, 1.0, 1.0)


@given(labels, labels, scores)
def test_the_metrics_are_ordered(
    one: list[tuple[str, float]], other: list[tuple[str, float]], min_score: float
) -> None:
    got = compare(one, other, min_score)
    assert got.top1 <= got.any_hit
    assert got.any_hit <= len(one) * got.eq1 or not one
    assert compare(other, one, min_score).jaccard == pytest.approx(got.jaccard)
