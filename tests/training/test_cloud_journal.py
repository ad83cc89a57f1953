"""The local cloud's request log and counters."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_store.errors import EnvironmentMissing
from training.cloud.journal import Journal, Line


def line(n: int, what: str = "answer", *, billed: bool = False) -> Line:
    return Line(n=n, time=1.5, what=what, billed=billed)


def test_requests_are_counted_by_what_became_of_them() -> None:
    with Journal() as journal:
        journal.write(line(1, billed=True))
        journal.write(line(2, "refused"))
        journal.write(line(3, billed=True))

    assert journal.counts() == {"requests": 3, "billed": 2, "answer": 2, "refused": 1}
    assert journal.billed == 2


def test_nothing_is_counted_as_nothing() -> None:
    assert Journal().counts() == {"requests": 0, "billed": 0}


def test_a_line_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    with Journal(path) as journal:
        journal.write(line(1, billed=True))
        assert json.loads(path.read_text("utf-8")) == {
            "n": 1,
            "time": 1.5,
            "dialect": None,
            "status": None,
            "what": "answer",
            "billed": True,
            "picture": None,
            "bytes": 0,
            "model": None,
            "request_id": "",
            "milliseconds": 0.0,
        }


def test_a_second_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for n in (1, 2):
        with Journal(path) as journal:
            journal.write(line(n))

    assert [json.loads(text)["n"] for text in path.read_text("utf-8").splitlines()] == [1, 2]


def test_threads_do_not_tear_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Journal(path) as journal, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: journal.write(line(n, billed=True)), range(400)))

    lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    assert sorted(one["n"] for one in lines) == list(range(400))
    assert journal.billed == 400


def test_a_log_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EnvironmentMissing, match="Give another file with --log"):
        Journal(tmp_path / "file" / "log.jsonl").__enter__()
