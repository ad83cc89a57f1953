"""The local cloud's rate limit, with a clock that only the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.cloud.throttle import Bucket


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_seconds_worth_passes_at_once_and_then_the_rate() -> None:
    clock = Clock()
    bucket = Bucket(2.0, clock)

    assert [bucket.take() for _ in range(3)] == [True, True, False]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]


def test_a_rate_below_one_lets_single_uploads_pass() -> None:
    clock = Clock()
    bucket = Bucket(0.5, clock)

    assert [bucket.take(), bucket.take()] == [True, False]
    clock.now += 1.0
    assert not bucket.take()
    clock.now += 1.0
    assert bucket.take()


@given(st.floats(0.1, 50.0), st.lists(st.floats(0.0, 3.0, allow_subnormal=False), max_size=60))
def test_never_more_than_a_burst_and_the_rate_pass(rate: float, pauses: list[float]) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += bucket.take()

    assert passed <= max(1.0, rate) + rate * sum(pauses) + 1e-6
    assert passed == len(pauses) or passed >= 1 or not pauses


def test_a_pause_never_saves_up_more_than_a_burst() -> None:
    clock = Clock()
    bucket = Bucket(3.0, clock)
    clock.now += 1000.0

    assert sum(bucket.take() for _ in range(10)) == pytest.approx(3)
