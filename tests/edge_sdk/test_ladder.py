"""Rungs and ladders: what is allowed, how they are named, how they travel."""

from __future__ import annotations

import doctest
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import ladder
from edge_sdk.ladder import (
    ENTROPY_CODINGS,
    LADDERS,
    PAPER,
    REFERENCE,
    SUBSAMPLINGS,
    Ladder,
    Rung,
    ladder_from_dicts,
)
from model_store.errors import UsageError

FLAT = ((16,) * 64, (17,) * 64)

planes = st.lists(st.integers(1, 255), min_size=64, max_size=64).map(tuple)
tables = st.tuples(planes, planes)


def test_the_examples_of_the_module_run() -> None:
    assert doctest.testmod(ladder).failed == 0


def test_the_papers_ladder_is_its_ten_qualities_with_plain_huffman() -> None:
    assert [rung.quality for rung in PAPER] == list(range(5, 100, 10))
    assert {rung.entropy for rung in PAPER} == {"plain"}
    assert REFERENCE in PAPER


@pytest.mark.parametrize("rungs", LADDERS.values(), ids=LADDERS)
def test_names_and_pixels_are_unique_within_a_ladder(rungs: Ladder) -> None:
    assert len({rung.name for rung in rungs}) == len(rungs)
    assert len({rung.pixels for rung in rungs}) == len(rungs)


@pytest.mark.parametrize("rungs", LADDERS.values(), ids=LADDERS)
def test_the_references_answer_is_on_every_ladder(rungs: Ladder) -> None:
    assert REFERENCE.pixels in [rung.pixels for rung in rungs]


@pytest.mark.parametrize(
    ("rung", "name"),
    [
        (Rung(15, entropy="plain"), "q15-plain"),
        (Rung(25, scale=0.5), "q25@0.5"),
        (Rung(75), "q75"),
        (Rung(90, 0.75, "4:4:4", "progressive"), "q90@0.75-444-progressive"),
        (Rung(50, tables=FLAT), "q50-td8e1"),
        (Rung(50, 0.5, "4:4:4", "plain", FLAT), "q50@0.5-td8e1-444-plain"),
    ],
)
def test_names_are_short_and_say_what_is_special(rung: Rung, name: str) -> None:
    assert rung.name == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quality": 0}, "quality 0; allowed are whole numbers from 1 to 95"),
        ({"quality": 96}, "quality 96"),
        ({"quality": 15.5}, r"quality 15\.5"),
        ({"quality": "15"}, "quality '15'"),
        ({"scale": 0.0}, r"scale 0\.0; allowed is 0 < scale <= 1"),
        ({"scale": 1.5}, r"scale 1\.5"),
        ({"scale": float("nan")}, "scale nan"),
        ({"subsampling": "4:1:1"}, "subsampling '4:1:1'"),
        ({"entropy": "arithmetic"}, "entropy coding 'arithmetic'"),
        ({"tables": 3}, r"tables of \[\] steps; allowed are two, luma and chroma, of 64 whole"),
        ({"tables": [[16] * 64]}, r"tables of \[64\] steps"),
        ({"tables": [[16] * 64, [16] * 63]}, r"tables of \[64, 63\] steps"),
        ({"tables": [[16] * 64, [0] * 64]}, "among them 0; allowed .* from 1 to 255"),
        ({"tables": [[16] * 64, [256] * 64]}, "among them 256"),
        ({"tables": [[16] * 64, [1.5] * 64]}, r"among them 1\.5"),
        ({"tables": [[16] * 64, [True] * 64]}, "among them True"),
        ({"tables": ["a" * 64, [16] * 64]}, "among them 'a'"),
    ],
)
def test_what_no_encoder_can_do_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Rung(**{"quality": 50, **changes})


@given(
    st.lists(
        st.builds(
            Rung,
            quality=st.integers(1, 95),
            scale=st.floats(0, 1, exclude_min=True),
            subsampling=st.sampled_from(SUBSAMPLINGS),
            entropy=st.sampled_from(ENTROPY_CODINGS),
            tables=st.none() | tables,
        ),
        min_size=1,
    )
)
def test_a_ladder_survives_the_way_through_json(rungs: list[Rung]) -> None:
    written = json.dumps([rung.as_dict() for rung in rungs])
    read = ladder_from_dicts(json.loads(written))
    assert read == tuple(rungs)
    assert len({*read, *rungs}) == len(set(rungs))  # lists could not be hashed


def test_rungs_without_tables_are_written_as_before_there_were_any() -> None:
    old: dict[str, Any] = {"quality": 15, "scale": 0.5, "subsampling": "4:2:0", "entropy": "plain"}
    assert ladder_from_dicts([old]) == (Rung(15, 0.5, entropy="plain"),)
    assert Rung(**old).as_dict() == old
    assert Rung(**old).pixels == (15, 0.5, "4:2:0")


@pytest.mark.parametrize(
    "document",
    [
        [],
        [{}],
        [{"quality": 500}],
        [{"quality": 50, "colour": "red"}],
        [{"quality": None}],
        [{"quality": 50, "scale": "half"}],
        ["q50"],
        [3],
        3,
        {"quality": 50},
    ],
)
def test_what_is_no_ladder_is_refused(document: Any) -> None:
    with pytest.raises(UsageError):
        ladder_from_dicts(document)


def test_the_pixels_of_a_rung_do_not_depend_on_its_entropy_coding() -> None:
    assert len({Rung(50, entropy=entropy).pixels for entropy in ENTROPY_CODINGS}) == 1
    assert Rung(50).pixels != Rung(50, scale=0.5).pixels


@given(tables, tables, st.integers(1, 95))
def test_other_tables_are_other_pixels(one: Any, other: Any, quality: int) -> None:
    first, second = Rung(quality, tables=one), Rung(quality, tables=other)
    assert (first.pixels == second.pixels) == (one == other)
    assert first.pixels[:3] == Rung(quality).pixels
    assert first.pixels != Rung(quality).pixels


@given(tables, st.integers(1, 95))
def test_quality_scales_tables_and_50_leaves_them_alone(pair: Any, quality: int) -> None:
    assert Rung(50, tables=pair).scaled_tables == pair
    factor = 50 / quality if quality < 50 else 2 - quality / 50
    scaled = Rung(quality, tables=pair).scaled_tables
    assert scaled is not None
    for steps, given_steps in zip(scaled, pair, strict=True):
        for step, own in zip(steps, given_steps, strict=True):
            # libjpeg rounds the factor to whole percents first, then the step.
            assert abs(step - min(max(own * factor, 1), 255)) <= 0.5 + own / 100


def test_rungs_without_tables_leave_them_to_the_encoder() -> None:
    assert Rung(50).scaled_tables is None
