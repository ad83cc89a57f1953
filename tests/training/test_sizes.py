from __future__ import annotations

import itertools
from typing import Any

import pytest
from PIL import Image

from model_store.errors import UsageError
from training.learn.sizes import SIZES, decision_ms, largest_within

COST = {"tiny": 1.0, "small": 2.0, "full": 5.0}


@pytest.mark.parametrize(
    ("budget", "name"), [(1.0, "tiny"), (1.9, "tiny"), (2.0, "small"), (99.0, "full")]
)
def test_the_largest_engine_within_the_budget_is_taken(budget: float, name: str) -> None:
    assert list(SIZES) == list(COST)
    assert largest_within(budget, COST.__getitem__) == name


def test_a_budget_below_every_engine_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match=r"0\.5 ms a decision, but the smallest .* takes 1\.0 ms"):
        largest_within(0.5, COST.__getitem__)


def test_a_decision_is_timed_after_one_that_warms_up(stand_in: Any, photo: Image.Image) -> None:
    ticks = itertools.chain([0.0, 100.0], itertools.count(100.0, 0.004))
    assert decision_ms(stand_in, photo, lambda: next(ticks)) == pytest.approx(4.0)
