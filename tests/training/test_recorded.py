"""Answers that are all known, given out as if they were bought."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.ladder import REFERENCE, Ladder, Rung
from training.labels.recorded import Recorded
from training.labels.table import AnswerTable

#: Rungs 1 and 2 decode to the same pixels, and rung 4 to the reference's.
LADDER: Ladder = (Rung(10), Rung(30), Rung(30, entropy="plain"), Rung(50), Rung(75), Rung(90))
TWINS, SAME = (1, 2), 4
COUNT = 7


@pytest.fixture
def table() -> AnswerTable:
    return known()


def known(count: int = COUNT) -> AnswerTable:
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 2, (count, len(LADDER))).astype(float)
    shown[:, TWINS[1]] = shown[:, TWINS[0]]
    shown[:, SAME] = 1.0
    sizes = rng.integers(1_000, 9_000, (count, len(LADDER)))
    return AnswerTable(
        ladder=LADDER,
        keys=np.array([f"key{row}" for row in range(count)], dtype=object),
        groups=np.array([f"photo{row}" for row in range(count)], dtype=object),
        reference_bytes=np.full(count, 10_000),
        reference_wire=np.full(count, 10_500),
        bytes=sizes,
        wire=sizes + 500,
        agreement={"any_hit": shown, "top1": 1.0 - shown},
        reference_score=np.full(count, 0.9),
        reference_label=np.full(count, "cat", dtype=object),
        calls=count * 5,
        from_ledger=3,
    )


def rungs(rung: int) -> np.ndarray:
    return np.full(COUNT, rung)


def test_before_anybody_asks_only_the_reference_is_known(table: AnswerTable) -> None:
    recorded = Recorded(table)
    got = recorded.table()
    for metric in ("any_hit", "top1"):
        unknown = np.isnan(got.agreement[metric])
        assert unknown.all(axis=0).tolist() == [rung != SAME for rung in range(len(LADDER))]
        np.testing.assert_array_equal(
            got.agreement[metric][:, SAME], table.agreement[metric][:, SAME]
        )
    assert (recorded.answers, got.calls, got.from_ledger) == (COUNT, COUNT, 0)
    np.testing.assert_array_equal(got.bytes, table.bytes)
    assert got.keys.tolist() == table.keys.tolist()


def test_an_answer_is_counted_once_however_often_it_is_asked_for(table: AnswerTable) -> None:
    recorded = Recorded(table)
    for _ in range(3):
        np.testing.assert_array_equal(
            recorded.observe("any_hit", rungs(0)), table.agreement["any_hit"][:, 0]
        )
    recorded.observe("top1", rungs(0))  # the same answer tells every metric
    recorded.ask(np.zeros((COUNT, 2), dtype=np.int64))
    assert recorded.answers == 2 * COUNT


def test_rungs_with_the_same_pixels_share_an_answer(table: AnswerTable) -> None:
    recorded = Recorded(table)
    recorded.observe("any_hit", rungs(TWINS[1]))
    assert recorded.answers == 2 * COUNT
    asked = ~np.isnan(recorded.table().agreement["any_hit"]).any(axis=0)
    assert np.flatnonzero(asked).tolist() == [*TWINS, SAME]
    recorded.ask(np.full((COUNT, 1), TWINS[0]))
    assert recorded.answers == 2 * COUNT


def test_the_references_pixels_cost_nothing(table: AnswerTable) -> None:
    recorded = Recorded(table)
    assert recorded.observe("any_hit", rungs(SAME)).tolist() == [1.0] * COUNT
    recorded.ask(np.full((COUNT, 1), SAME))
    assert recorded.answers == COUNT
    assert REFERENCE.pixels == LADDER[SAME].pixels


def test_each_picture_is_asked_about_rungs_of_its_own(table: AnswerTable) -> None:
    recorded, rows = Recorded(table), np.arange(COUNT)
    mine = np.array([0, 1, 3, 5, 0, 3, SAME])
    np.testing.assert_array_equal(
        recorded.observe("top1", mine), table.agreement["top1"][rows, mine]
    )
    asked = ~np.isnan(recorded.table().agreement["top1"])
    assert asked[rows, mine].all()
    assert asked.sum() == COUNT + 6 + 1  # the free column, six answers, one of them a twin's
    assert recorded.answers == COUNT + 6


def test_a_sample_knows_what_it_asked_about_and_nothing_else(table: AnswerTable) -> None:
    recorded = Recorded(table)
    recorded.sample(2, np.random.default_rng(0))
    got = recorded.table()
    known = ~np.isnan(got.agreement["any_hit"])
    np.testing.assert_array_equal(
        got.agreement["any_hit"][known], table.agreement["any_hit"][known]
    )
    distinct = np.delete(known, [TWINS[1], SAME], axis=1)
    assert (distinct.sum(axis=1) <= 2).all()
    assert recorded.answers == got.calls == COUNT + distinct.sum()


def test_what_is_recorded_does_not_change_what_it_is_read_from(table: AnswerTable) -> None:
    before = {metric: values.copy() for metric, values in table.agreement.items()}
    recorded = Recorded(table)
    recorded.sample(3, np.random.default_rng(0))
    recorded.table()
    for metric, values in before.items():
        np.testing.assert_array_equal(table.agreement[metric], values)


@given(
    asked=st.lists(st.lists(st.integers(0, len(LADDER) - 1), min_size=3, max_size=3), max_size=5)
)
@settings(max_examples=40)
def test_answers_are_the_distinct_pixels_that_were_asked_about(asked: list[list[int]]) -> None:
    recorded = Recorded(known(3))
    pixels: set[tuple[int, object]] = set()
    for one in asked:
        recorded.observe("any_hit", np.array(one))
        pixels |= {(row, LADDER[rung].pixels) for row, rung in enumerate(one)}
    bought = {one for one in pixels if one[1] != REFERENCE.pixels}
    assert recorded.answers == 3 + len(bought)
