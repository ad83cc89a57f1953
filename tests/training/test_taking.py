"""Some of the pictures, with all that belongs to them: tables, features, labelled pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.labels.recorded import Recorded
from training.labels.table import Rejected, concatenate
from training.learn.features import Features
from training.learn.labelled import Labelled
from training.photos import split_rows

MakeLabelled = Callable[..., Labelled]

ROWS = np.array([7, 2, 11])

BY_PICTURE = (
    "keys",
    "groups",
    "reference_bytes",
    "reference_wire",
    "bytes",
    "wire",
    "reference_score",
    "reference_label",
    "size_ratio",
    "wire_ratio",
)


# --- tables -----------------------------------------------------------------------------------


def test_a_table_takes_rows_of_everything_it_has(make_labelled: MakeLabelled) -> None:
    table = make_labelled(0, 12).table
    part = table.take(ROWS)
    assert len(part) == 3
    assert part.ladder == table.ladder
    for name in BY_PICTURE:
        np.testing.assert_array_equal(getattr(part, name), getattr(table, name)[ROWS])
    assert part.agreement.keys() == table.agreement.keys()
    for metric, values in table.agreement.items():
        np.testing.assert_array_equal(part.agreement[metric], values[ROWS])


def test_what_was_paid_and_refused_belongs_to_the_whole_table(make_labelled: MakeLabelled) -> None:
    refused = (Rejected(3, "photo", "too large", "BackendTooLarge"),)
    table = replace(make_labelled(0, 12).table, from_ledger=5, rejected=refused)
    part = table.take(ROWS)
    assert (part.calls, part.from_ledger, part.rejected) == (0, 0, ())
    both = concatenate([part, table])
    assert (both.calls, both.from_ledger, both.rejected) == (table.calls, 5, refused)


# --- features ---------------------------------------------------------------------------------


def features() -> Features:
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    rows = np.array([1, 2, 7, 9])
    inputs = np.zeros((4, 2, 2, 3), np.uint8) + rows[:, None, None, None].astype(np.uint8)
    return Features(values, inputs, rows)


def test_inputs_stay_with_the_views_they_came_from() -> None:
    part = features().take(ROWS)
    np.testing.assert_array_equal(part.values, features().values[ROWS])
    told = {int(row): int(one[0, 0, 0]) for row, one in zip(part.rows, part.inputs, strict=True)}
    assert told == {1: 2, 0: 7}


def test_views_without_inputs_have_none() -> None:
    part = features().take(np.array([0, 11]))
    assert part.inputs.shape == (0, 2, 2, 3)
    assert part.rows.shape == (0,)
    assert part.rows.dtype == np.int64


@given(rows=st.permutations(range(12)), count=st.integers(1, 12))
@settings(max_examples=30)
def test_every_input_that_is_kept_is_of_its_own_row(rows: list[int], count: int) -> None:
    taken = np.array(rows[:count])
    part = features().take(taken)
    np.testing.assert_array_equal(part.inputs[:, 0, 0, 0], taken[part.rows])
    assert set(taken[part.rows].tolist()) == set(taken.tolist()) & {1, 2, 7, 9}


# --- labelled pictures ------------------------------------------------------------------------


def test_labelled_pictures_are_taken_with_features_looks_and_answers(
    make_labelled: MakeLabelled,
) -> None:
    pictures = make_labelled(0, 12)
    looks = np.arange(12 * 10 * 2, dtype=np.float32).reshape(12, 10, 2)
    part = replace(pictures, looks=looks).take(ROWS)
    assert part.looks is not None
    np.testing.assert_array_equal(part.looks, looks[ROWS])
    np.testing.assert_array_equal(part.features.values, pictures.features.values[ROWS])
    np.testing.assert_array_equal(
        part.features.inputs[part.features.rows.argsort()], pictures.features.inputs[ROWS]
    )
    np.testing.assert_array_equal(part.table.keys, pictures.table.keys[ROWS])
    assert pictures.take(ROWS).looks is None


def test_what_was_asked_so_far_stays_known_and_nobody_can_ask_more(
    make_labelled: MakeLabelled,
) -> None:
    pictures = make_labelled(0, 12)
    asked = Recorded(pictures.table)
    asked.sample(3, np.random.default_rng(0))
    some = replace(pictures, table=asked.table(), answers=asked)
    part = some.take(ROWS)
    assert part.answers is None
    np.testing.assert_array_equal(
        part.table.agreement["any_hit"], some.table.agreement["any_hit"][ROWS]
    )
    assert np.isnan(part.table.agreement["any_hit"]).any()


# --- by photo ---------------------------------------------------------------------------------


@given(
    photos=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    shares=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_parts_have_as_many_photos_as_asked_for_and_share_none(
    photos: list[int], shares: list[int], seed: int
) -> None:
    groups = np.array([f"photo{photo}" for photo in photos], dtype=object)
    parts = split_rows(groups, shares, seed)
    assert len(parts) == len(shares)
    names = [set(groups[rows]) for rows in parts]
    assert all(not one & other for one, other in combinations(names, 2))
    left = len(set(photos))
    for count, rows, mine in zip(shares, parts, names, strict=True):
        assert len(mine) == min(count, left)
        left -= len(mine)
        assert (np.diff(rows) > 0).all()
        assert len(rows) == sum(name in mine for name in groups)  # all views of each photo


def test_the_seed_decides_who_is_in_which_part_and_the_order_of_rows_does_not() -> None:
    groups = np.array([f"photo{photo}" for photo in range(30)], dtype=object)
    names = [set(groups[split_rows(groups, (10, 20), seed)[0]]) for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
    turned = groups[::-1].copy()
    assert set(turned[split_rows(turned, (10, 20), 1)[0]]) == names[0]
