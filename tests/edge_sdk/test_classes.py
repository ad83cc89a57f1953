"""A classifier's scores in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.classes import NAMES_KEY, TOP, best_classes, class_names
from edge_sdk.errors import EngineError

NAMES = ("cat", "dog", "tram")


def test_classes_come_best_first_with_their_probabilities() -> None:
    labels = best_classes(NAMES, np.log(np.array([0.2, 0.7, 0.1], dtype=np.float32)))

    assert [label.name for label in labels] == ["dog", "cat", "tram"]
    assert [label.score for label in labels] == pytest.approx([0.7, 0.2, 0.1])
    assert all(label.box is None for label in labels)


@given(st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=20))
def test_probabilities_are_probabilities(raw: list[float]) -> None:
    names = [str(i) for i in range(len(raw))]
    labels = best_classes(names, np.array(raw, dtype=np.float32))

    given_scores = [label.score for label in labels]
    assert len(labels) == min(TOP, len(raw))
    assert given_scores == sorted(given_scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in given_scores)
    assert sum(given_scores) <= 1.0 + 1e-9


def test_of_two_equal_classes_the_first_is_named_first() -> None:
    labels = best_classes(NAMES, np.zeros(3, dtype=np.float32))

    assert [label.name for label in labels] == list(NAMES)


def test_the_names_are_in_the_file() -> None:
    assert class_names({NAMES_KEY: '["cat", "dog"]'}) == ("cat", "dog")


@pytest.mark.parametrize("text", [None, "", "[", '{"cat": 1}', "[1, 2]", "[" * 100_000])
def test_a_file_without_names_is_refused(text: str | None) -> None:
    with pytest.raises(EngineError, match="does not name its classes"):
        class_names({} if text is None else {NAMES_KEY: text})
