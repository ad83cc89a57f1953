"""What runs behind an answer: in order, bounded, never in the way."""

from __future__ import annotations

import threading

import pytest

from edge_sdk.behind import Inline, Worker


def worker(**choices: int) -> tuple[Worker, list[Exception]]:
    errors: list[Exception] = []
    return Worker(errors.append, **choices), errors


def held(made: Worker, **choices: int) -> threading.Event:
    """Occupy a worker until the returned event is set."""
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        release.wait()

    assert made.submit(hold, **choices)
    begun.wait()
    return release


def test_inline_runs_at_once() -> None:
    done: list[int] = []
    inline = Inline()
    assert inline.submit(lambda: done.append(1))
    assert done == [1]
    assert inline.flush()
    assert inline.close() == 0


def test_tasks_run_in_order_on_one_named_thread_that_starts_late() -> None:
    made, errors = worker()
    before = set(threading.enumerate())
    done: list[tuple[int, str]] = []
    for number in range(50):
        made.submit(lambda n=number: done.append((n, threading.current_thread().name)))  # type: ignore[misc]
        assert len(set(threading.enumerate()) - before) == 1
    assert made.flush()
    assert done == [(number, "adacompress-behind") for number in range(50)]
    assert made.close() == 0
    assert not errors
    assert set(threading.enumerate()) <= before


def test_what_finds_no_place_is_refused() -> None:
    made, _ = worker(most=2)
    release = held(made)
    done: list[str] = []
    assert made.submit(lambda: done.append("first"))
    assert made.submit(lambda: done.append("second"))
    assert not made.submit(lambda: done.append("third"))
    release.set()
    assert made.flush()
    assert done == ["first", "second"]
    made.close()


def test_pictures_are_bounded_by_their_bytes_and_a_single_large_one_is_taken() -> None:
    made, _ = worker(most_bytes=100)
    release = held(made, weight=500)
    assert made.submit(lambda: None, weight=80)
    assert not made.submit(lambda: None, weight=30)
    assert made.submit(lambda: None, weight=20)
    release.set()
    assert made.flush()
    assert made.submit(lambda: None, weight=100)
    made.close()


def test_a_task_that_raises_is_told_and_the_next_one_runs() -> None:
    made, errors = worker()
    done: list[int] = []
    made.submit(lambda: done.append(1 // 0))
    made.submit(lambda: done.append(2))
    assert made.flush()
    assert done == [2]
    assert [type(error) for error in errors] == [ZeroDivisionError]
    made.close()


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_a_task_that_hangs_ends_neither_flush_nor_close_late(timeout: float) -> None:
    made, _ = worker()
    release = held(made)
    made.submit(lambda: None)
    assert not made.flush(timeout)
    assert made.close(timeout) == 2
    assert not made.submit(lambda: None)
    release.set()
