"""The learning curve, drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any, get_args

import pytest

pytest.importorskip("matplotlib")

from training.measure.learning_figure import learning_curve
from training.measure.style import Width

both_widths = pytest.mark.parametrize("width", get_args(Width))

WAYS = {
    "fixed_paper": "best mixture of the paper’s qualities",
    "fixed": "best mixture of the ladder’s rungs",
    "static": "one look, exact trade-off",
    "probing": "looks at candidates, exact trade-off",
    "oracle": "oracle",
}


def point(photos: int, *ways: str) -> dict[str, Any]:
    spread = {"mean": 0.3 + 5.0 / photos, "sd": 0.02}
    return {
        "photos": photos,
        "at_target": dict.fromkeys(ways or WAYS, spread),
        "policies": {"agent": {"size_ratio": spread, "agreement": {"mean": 0.96, "sd": 0.0}}},
    }


def texts(svg: str) -> list[str]:
    """Parse the figure, which proves that it is XML, and return its texts."""
    root = ET.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("}text")]


@both_widths
def test_it_names_the_target_the_photos_and_what_is_drawn(width: Width) -> None:
    found = texts(learning_curve([point(50), point(200)], target=0.95, width=width))
    assert "size ratio at agreement 0.95" in found
    assert "photos learnt from and certified on" in found
    assert {"50", "200", "our agent as certified", *WAYS.values()} <= set(found)


@both_widths
def test_one_number_of_photos_can_be_drawn(width: Width) -> None:
    assert "36" in texts(learning_curve([point(36)], target=0.9, width=width))


def test_a_way_that_was_not_always_there_is_left_out() -> None:
    some = [point(50, "fixed", "static"), point(200)]
    found = set(texts(learning_curve(some, target=0.95)))
    assert {WAYS["fixed"], WAYS["static"]} <= found
    assert not {WAYS["probing"], WAYS["oracle"], WAYS["fixed_paper"]} & found


def test_drawing_twice_gives_the_same_text_and_widths_can_share_a_page() -> None:
    points = [point(50), point(200)]
    wide, again = (learning_curve(points, target=0.95) for _ in range(2))
    assert wide == again
    narrow = learning_curve(points, target=0.95, width="narrow")
    assert 'id="learning-wide-' in wide
    assert 'id="learning-narrow-' in narrow
    assert "viewBox" in wide[: wide.index(">")]
