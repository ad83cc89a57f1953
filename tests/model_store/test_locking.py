from __future__ import annotations

from pathlib import Path

import pytest

from model_store import EnvironmentMissing
from model_store.locking import exclusive

pytest.importorskip("fcntl")


def test_the_second_writer_gives_up_at_its_deadline(tmp_path: Path) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    path = tmp_path / ".lock"
    with (
        exclusive(path, timeout_s=5),
        pytest.raises(EnvironmentMissing, match=r"pid \d+.*for more than 5 s"),
        exclusive(path, timeout_s=5, clock=lambda: now[0], sleep=sleep),
    ):
        pass
    assert 5 <= now[0] < 6


def test_a_waiting_writer_gets_the_lock_when_it_is_given_back(tmp_path: Path) -> None:
    path, waits = tmp_path / ".lock", 0
    first = exclusive(path, timeout_s=0)
    first.__enter__()

    def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        first.__exit__(None, None, None)

    with exclusive(path, timeout_s=5, sleep=sleep):
        pass
    assert waits == 1


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / ".lock", timeout_s=0):
        raise ZeroDivisionError
    with exclusive(tmp_path / ".lock", timeout_s=0):
        pass
