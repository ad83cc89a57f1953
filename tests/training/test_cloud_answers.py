"""From a network's numbers to labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.backends.base import Box
from training.cloud.answers import objects

NAMES = ("cat", "dog", "tram")


def scores(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


# --- objects in it ----------------------------------------------------------------------------


def test_a_box_is_in_pixels_of_the_picture() -> None:
    (label,) = objects(NAMES, boxes((0.25, 0.5, 0.75, 1.0)), scores((0.0, 0.9, 0.0)), (640, 480))

    assert label.name == "dog"
    assert label.score == pytest.approx(0.9)
    assert label.box == Box(160.0, 240.0, 320.0, 240.0)


def test_an_object_seen_by_two_anchors_is_named_once() -> None:
    twice = boxes((0.1, 0.1, 0.5, 0.5), (0.12, 0.1, 0.5, 0.5), (0.6, 0.6, 0.9, 0.9))
    labels = objects(NAMES, twice, scores((0.6, 0, 0), (0.8, 0, 0), (0.7, 0, 0)), (100, 100))

    assert [(label.name, round(label.score, 2)) for label in labels] == [("cat", 0.8), ("cat", 0.7)]
    assert labels[0].box is not None
    assert labels[0].box.left == pytest.approx(12.0)


def test_two_classes_may_share_a_place() -> None:
    labels = objects(NAMES, boxes((0.1, 0.1, 0.5, 0.5)), scores((0.4, 0.0, 0.5)), (100, 100))

    assert [label.name for label in labels] == ["tram", "cat"]


def test_a_picture_of_nothing_known_has_no_labels() -> None:
    assert objects(NAMES, boxes((0.1, 0.1, 0.5, 0.5)), scores((0.2, 0.29, 0.1)), (9, 9)) == ()


def test_an_empty_box_hides_no_other() -> None:
    point = boxes((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5))

    assert len(objects(NAMES, point, scores((0.9, 0, 0), (0.8, 0, 0)), (9, 9))) == 2


def test_an_answer_holds_at_most_a_hundred_objects() -> None:
    row = boxes(*((i / 200, 0.0, i / 200 + 0.004, 1.0) for i in range(200)))
    sure = scores(*((0.31 + 0.003 * i, 0.0, 0.0) for i in range(200)))

    labels = objects(NAMES, row, sure, (100, 100))

    assert len(labels) == 100
    assert min(label.score for label in labels) > 0.6


@given(st.integers(0, 2**32 - 1))
def test_kept_boxes_of_a_class_do_not_overlap_much(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.random((30, 2), dtype=np.float32) * 0.5
    size = rng.random((30, 2), dtype=np.float32) * 0.5
    labels = objects(
        NAMES,
        np.concatenate([corner, corner + size], axis=1),
        rng.random((30, 3), dtype=np.float32),
        (1000, 1000),
    )

    assert [label.score for label in labels] == sorted((s.score for s in labels), reverse=True)
    for name in NAMES:
        found = [label.box for label in labels if label.name == name]
        for i, one in enumerate(found):
            assert all(_overlap(one, other) <= 0.61 for other in found[:i])


def _overlap(one: Box | None, other: Box | None) -> float:
    assert one is not None
    assert other is not None
    across = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    down = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    common = max(across, 0.0) * max(down, 0.0)
    return common / (one.width * one.height + other.width * other.height - common)
