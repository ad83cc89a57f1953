"""The retry policy: pace, circuit and quota, on a clock that only its own sleep advances."""

from __future__ import annotations

import contextlib
import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.backends.guard import Guard, HttpPolicy
from edge_sdk.errors import (
    BackendAuth,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendUnavailable,
)
from model_store.errors import BackendError, UsageError


class World:
    """Time, and a service that does what a list says, the last item for ever."""

    def __init__(self, *script: BackendError | str) -> None:
        self.now = 0.0
        self.script = list(script)
        self.left: list[float] = []  # when requests left

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def attempt(self, _deadline: float) -> str:
        self.left.append(self.now)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, BackendError):
            raise step
        return step

    def guard(self, **limits: Any) -> Guard:
        return Guard(
            "the service",
            HttpPolicy(**limits),
            clock=self.clock,
            sleep=self.sleep,
            jitter=lambda: 0.5,
        )


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def fails(guard: Guard, world: World, kind: type[BackendError], calls: int = 1) -> str:
    message = ""
    for _ in range(calls):
        with pytest.raises(kind) as caught:
            guard.call(world.attempt)
        message = str(caught.value)
    return message


def test_a_failure_that_passes_is_not_noticed_by_the_caller() -> None:
    world = World(BackendUnavailable("down"), "fine")

    assert world.guard().call(world.attempt) == "fine"
    assert world.left == [0.0, 0.25]


def test_the_last_error_says_how_often_was_tried_and_keeps_the_services_code() -> None:
    world = World(BackendUnavailable("down", code="282000", said="internal"))

    with pytest.raises(BackendUnavailable, match=r"down \(3 attempts were made\.\)") as caught:
        world.guard().call(world.attempt)
    assert (caught.value.code, caught.value.said) == ("282000", "internal")


@pytest.mark.parametrize("kind", [BackendUnavailable, BackendRejected])
def test_an_error_is_gone_with_its_last_user(kind: type[BackendError]) -> None:
    """In a ring with the call's frames it would keep a connection open until it is collected."""
    kept: list[weakref.ref[BaseException]] = []

    def fail(_deadline: float) -> None:
        error = kind("no")
        kept.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    gc.disable()
    try:
        with contextlib.suppress(kind):
            World().guard(backoff_s=0.0).call(fail)
        assert [one() for one in kept] == [None] * len(kept)
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [BackendAuth("no"), BackendRejected("no"), BackendQuota("no")])
def test_what_no_retry_can_cure_is_tried_once(error: BackendError) -> None:
    world = World(error)

    fails(world.guard(), world, type(error))
    assert len(world.left) == 1


def test_a_healthy_service_is_never_slowed_down() -> None:
    world = World("fine")
    guard = world.guard()
    for _ in range(1000):
        guard.call(world.attempt)

    assert world.now == 0.0


def test_an_allowed_rate_is_kept() -> None:
    world = World("fine")
    guard = world.guard(max_rate=4.0)
    for _ in range(9):
        guard.call(world.attempt)

    assert gaps(world.left) == [0.25] * 8


def test_throttling_halves_the_pace_once_a_second_and_peace_restores_it() -> None:
    world = World("fine")
    guard = world.guard()
    for _ in range(20):
        guard.call(world.attempt)  # twenty in one second
    world.script = [BackendThrottled("slow down"), BackendThrottled("slow down"), "fine"]
    guard.call(world.attempt)
    slowed = gaps(world.left)[-1]
    for _ in range(200):
        guard.call(world.attempt)

    assert slowed >= 1 / 10.5
    paused = gaps(world.left)[-200:]
    assert paused[-1] < paused[0]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(paused))


def test_a_pace_that_would_outlast_the_deadline_is_an_error_at_once() -> None:
    world = World("fine")
    guard = world.guard(max_rate=0.1, deadline_s=5.0)
    guard.call(world.attempt)

    assert "would hold this upload back for 10 s" in fails(guard, world, BackendThrottled)
    assert len(world.left) == 1


def test_a_service_that_keeps_failing_is_left_alone_for_a_while() -> None:
    world = World(BackendUnavailable("down"))
    guard = world.guard(attempts=1, circuit_failures=4)
    fails(guard, world, BackendUnavailable, calls=4)

    message = fails(guard, world, BackendUnavailable, calls=50)

    assert len(world.left) == 4
    assert "Nothing is sent to the service for another 30 s" in message
    assert "failed 4 times in a row" in message
    assert "down" in message


def test_after_the_pause_one_attempt_decides() -> None:
    world = World(BackendUnavailable("down"))
    guard = world.guard(attempts=1, circuit_failures=2)
    fails(guard, world, BackendUnavailable, calls=2)
    world.now += 30.0
    fails(guard, world, BackendUnavailable, calls=5)
    assert len(world.left) == 3

    world.now += 30.0
    world.script = ["fine"]
    assert [guard.call(world.attempt) for _ in range(3)] == ["fine"] * 3


def test_refusals_do_not_open_the_circuit() -> None:
    world = World(BackendRejected("no picture"))
    guard = world.guard(circuit_failures=2)

    fails(guard, world, BackendRejected, calls=10)
    assert len(world.left) == 10


def test_a_spent_quota_opens_the_circuit_at_once_and_keeps_its_code() -> None:
    world = World(BackendQuota("daily quota", code="17"))
    guard = world.guard()
    fails(guard, world, BackendQuota)

    with pytest.raises(BackendQuota, match="another 600 s") as caught:
        guard.call(world.attempt)
    assert caught.value.code == "17"
    assert len(world.left) == 1


def test_retries_share_a_quota_that_success_refills() -> None:
    world = World(BackendUnavailable("down"))
    guard = world.guard(circuit_failures=10**9)
    fails(guard, world, BackendUnavailable, calls=100)
    # 500 tokens, 5 a retry: 100 retries, then every call is tried once.
    assert len(world.left) == 200

    world.script = ["fine"]
    for _ in range(10):
        guard.call(world.attempt)
    world.script = [BackendUnavailable("down")]
    before = len(world.left)
    fails(guard, world, BackendUnavailable)
    assert len(world.left) - before == 3


@given(
    st.lists(st.sampled_from(["fine", "down", "slow", "bad"]), min_size=1, max_size=60),
    st.integers(1, 5),
)
def test_no_call_exceeds_its_attempts_or_its_deadline(script: list[str], attempts: int) -> None:
    errors: dict[str, BackendError] = {
        "down": BackendUnavailable("x"),
        "slow": BackendThrottled("x", retry_after_s=3.0),
        "bad": BackendRejected("x"),
    }
    world = World(*(errors.get(step, step) for step in script))
    guard = world.guard(attempts=attempts, deadline_s=20.0, circuit_failures=5)
    for _ in range(10):
        made, begun = len(world.left), world.now
        with contextlib.suppress(BackendError):
            guard.call(world.attempt)
        assert len(world.left) - made <= attempts
        assert world.now - begun <= 20.0


def test_threads_keep_the_rate_together() -> None:
    lock = threading.Lock()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        with lock:
            slept.append(seconds)

    guard = Guard("the service", HttpPolicy(max_rate=10.0), clock=lambda: 0.0, sleep=sleep)
    work: Callable[[], object] = lambda: guard.call(lambda _deadline: None)  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(slept) == pytest.approx([0.1 * turn for turn in range(1, 8)])


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_without_sense_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="requests a second"):
        HttpPolicy(max_rate=rate)
