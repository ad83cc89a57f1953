"""Rungs of other formats: what is allowed, how they are told apart, how they travel."""

from __future__ import annotations

import doctest
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import rung as module
from edge_sdk.ladder import FULL, REFERENCE, kinds_of, ladder_from_dicts, owned
from edge_sdk.rung import FORMATS, Rung
from edge_sdk.view import View
from model_store.errors import UsageError
from training.labels.schema import pixels_text

VIEW = View(side=224, resized=256, filter="bicubic")
CODEC = "0123456789abcdef"

views = st.none() | st.builds(
    lambda side, margin, squeezed, kind: View(
        side=side, resized=side + margin, squeezed=squeezed, filter=kind
    ),
    st.integers(1, 400),
    st.integers(0, 40),
    st.booleans(),
    st.sampled_from(["bilinear", "bicubic"]),
)
scales = st.sampled_from([1, 1.0, 0.75, 0.5, 1 / 3])
pictures = st.builds(
    Rung,
    quality=st.integers(1, 95),
    scale=scales,
    format=st.sampled_from(["jpeg", "webp"]),
    view=views,
)
streams = st.builds(
    Rung,
    format=st.just("features"),
    codec=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    rate=st.integers(0, 31),
)
rungs = pictures | streams


def test_the_examples_of_the_module_run() -> None:
    assert doctest.testmod(module).failed == 0


@given(rungs)
def test_a_rung_survives_the_way_through_json(rung: Rung) -> None:
    (read,) = ladder_from_dicts(json.loads(json.dumps([rung.as_dict()])))
    assert read == rung
    assert (read.name, read.pixels, read.kind) == (rung.name, rung.pixels, rung.kind)


@given(rungs, rungs)
def test_other_pixels_are_another_key_of_the_ledger_and_another_name(one: Rung, two: Rung) -> None:
    assert (one.pixels == two.pixels) == (pixels_text(one) == pixels_text(two))
    if one.has_pixels and two.has_pixels:  # a stream's name has four digits of its codec's id
        assert (one.name == two.name) == (one == two)


@given(st.integers(1, 95), scales, st.none() | st.just(VIEW))
def test_a_jpeg_rung_keeps_the_key_that_it_always_had(
    quality: int, scale: float, view: View | None
) -> None:
    rung = Rung(quality, scale, view=view)
    own = [quality, float(scale), "4:2:0"]
    seen = [] if view is None else ["^224of256c"]
    filtered = ["hamming"] if scale < 1.0 else []  # what it is scaled with since
    assert pixels_text(rung) == json.dumps([*own, *seen, *filtered])
    assert "format" not in rung.as_dict()
    assert set(rung.as_dict()) - {"view"} == {"quality", "scale", "subsampling", "entropy"}


@pytest.mark.parametrize(
    ("rung", "name"),
    [
        (Rung(40, view=View(side=224, resized=224)), "q40^224"),
        (Rung(40, 0.5, view=VIEW, entropy="plain"), "q40@0.5^224of256c-plain"),
        (Rung(format="webp", quality=30), "w30"),
        (Rung(format="webp", quality=30, scale=0.5), "w30@0.5"),
        (
            Rung(format="webp", quality=8, view=View(side=227, resized=256, squeezed=True)),
            "w8^227of256s",
        ),
        (Rung(format="features", codec=CODEC, rate=0), "f0-0123"),
    ],
)
def test_names_are_short_and_say_what_is_special(rung: Rung, name: str) -> None:
    assert rung.name == name


@pytest.mark.parametrize(
    ("given_fields", "words"),
    [
        ({"format": "avif", "quality": 30}, "format 'avif'; allowed: jpeg, webp, features"),
        ({"format": "webp"}, "quality 0; allowed are whole numbers from 1 to 95"),
        ({"format": "webp", "quality": 30, "entropy": "plain"}, "format webp has entropy 'plain'"),
        ({"format": "webp", "quality": 30, "subsampling": "4:4:4"}, "has subsampling '4:4:4'"),
        ({"format": "webp", "quality": 30, "tables": [[1] * 64] * 2}, "format webp has tables"),
        ({"format": "webp", "quality": 30, "codec": CODEC}, "format webp has codec"),
        ({"quality": 30, "rate": 1}, "format jpeg has rate 1, of which that format knows nothing"),
        ({"quality": 30, "view": 224}, "view 224; allowed is a View"),
        ({"quality": 30, "view": {"side": 224}}, "lacks resized"),
        ({"format": "features", "codec": CODEC, "rate": 1, "quality": 30}, "has quality 30"),
        ({"format": "features", "codec": CODEC, "rate": 1, "scale": 0.5}, r"has scale 0\.5"),
        ({"format": "features", "codec": CODEC, "rate": 1, "view": VIEW}, "has view View"),
        ({"format": "features", "codec": "xyz", "rate": 1}, "codec 'xyz'; allowed is a codec's id"),
        ({"format": "features", "rate": 1}, "codec None"),
        ({"format": "features", "codec": CODEC}, "rate None; allowed are 0 to 31"),
        ({"format": "features", "codec": CODEC, "rate": 32}, "rate 32"),
        ({"format": "features", "codec": CODEC, "rate": True}, "rate True"),
    ],
)
def test_what_makes_no_sense_is_refused(given_fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Rung(**given_fields)


def test_an_owners_candidates_are_of_every_format_that_has_pixels_and_hold_the_reference() -> None:
    for view in (None, VIEW):
        found = owned(view)
        assert {rung.format for rung in found} == set(FORMATS) - {"features"}
        assert {rung.view for rung in found} == {None, view}
        assert len({rung.name for rung in found}) == len(found)
        assert REFERENCE.pixels in [rung.pixels for rung in found]


def test_kinds_are_numbered_and_whole_frame_jpeg_comes_first() -> None:
    stream = Rung(format="features", codec=CODEC, rate=0)
    webp, crop = Rung(format="webp", quality=30), Rung(format="webp", quality=30, view=VIEW)
    assert kinds_of((stream, webp, crop, *FULL, webp)) == (1, 2, 3, *[0] * len(FULL), 2)
