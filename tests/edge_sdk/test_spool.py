"""Pictures on disk: nothing is lost, answered twice, or believed because a clock says so."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_sdk.spool import Spool
from model_store.errors import SchemaTooNew

WEEK = 7 * 24 * 3600.0


class Times:
    """A wall clock that can be set, and a monotonic one that cannot."""

    def __init__(self) -> None:
        self.wall, self.ticks = 1_000_000.0, 50.0

    def passed(self, seconds: float) -> None:
        self.wall += seconds
        self.ticks += seconds


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device" / "spool.sqlite"


def open_spool(path: Path, times: Times, max_age_s: float = WEEK) -> Spool:
    return Spool(path, max_age_s=max_age_s, clock=lambda: times.wall, ticks=lambda: times.ticks)


@pytest.fixture
def spool(path: Path, times: Times) -> Iterator[Spool]:
    with closing(open_spool(path, times)) as opened:
        yield opened


def test_an_answer_takes_its_pictures_place(spool: Spool) -> None:
    spool.put("a", b"one")
    spool.put("b", b"three")
    spool.put("a", b"another")
    assert spool.waiting() == [("a", 3), ("b", 5)]
    assert spool.image("a") == b"one"
    spool.settle("a", {"key": "a", "labels": []})
    spool.settle("a", {"key": "a", "labels": ["later"]})
    assert spool.waiting() == [("b", 5)]
    assert spool.image("a") is None
    assert spool.answer("a") == {"key": "a", "labels": []}
    assert spool.undelivered() == [{"key": "a", "labels": []}]
    spool.delivered("a")
    assert spool.undelivered() == []
    assert spool.answer("a") is not None
    spool.remove("b")
    assert spool.waiting() == []


def test_what_is_too_old_is_forgotten(spool: Spool, times: Times) -> None:
    spool.put("old", b"1")
    spool.settle("told", {"key": "told"})
    spool.delivered("told")
    spool.settle("untold", {"key": "untold"})
    times.passed(WEEK - 10)
    spool.put("new", b"2")
    assert spool.expire() == set()
    times.passed(20)
    assert spool.expire() == {"old"}
    assert spool.waiting() == [("new", 1)]
    assert spool.answer("told") is None
    assert spool.answer("untold") is not None


@pytest.mark.parametrize("jump", [-40 * 365 * 24 * 3600.0, 40 * 365 * 24 * 3600.0])
def test_a_clock_that_is_set_makes_nothing_older_or_younger(
    spool: Spool, times: Times, jump: float
) -> None:
    spool.put("a", b"1")
    times.wall += jump
    assert spool.expire() == set()
    times.passed(WEEK - 10)
    assert spool.expire() == set()
    times.passed(20)
    assert spool.expire() == {"a"}


def test_a_clock_that_was_set_back_while_nothing_ran_costs_nothing(
    path: Path, times: Times
) -> None:
    with closing(open_spool(path, times)) as spool:
        spool.put("a", b"1")
    times.wall -= 40 * 365 * 24 * 3600.0
    with closing(open_spool(path, times)) as spool:
        assert spool.expire() == set()
        assert spool.waiting() == [("a", 1)]


def test_a_file_belongs_to_one_at_a_time(spool: Spool, path: Path, times: Times) -> None:
    spool.put("a", b"1")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_spool(path, times)


@pytest.mark.parametrize("content", [b"not a spool at all", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_moved_aside(path: Path, times: Times, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with closing(open_spool(path, times)) as spool:
        assert spool.was_damaged
        spool.put("a", b"1")
        assert spool.waiting() == [("a", 1)]
    assert path.with_name("spool.sqlite.damaged").read_bytes() == content


def test_a_damaged_page_is_noticed(path: Path, times: Times) -> None:
    with closing(open_spool(path, times)) as spool:
        for number in range(50):
            spool.put(str(number), b"x" * 3000)
    content = bytearray(path.read_bytes())
    content[8192:40960] = b"\xff" * 32768
    path.write_bytes(content)
    with closing(open_spool(path, times)) as spool:
        assert spool.was_damaged


def test_a_file_of_a_later_version_is_refused(path: Path, times: Times) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(SchemaTooNew, match="version 9"):
        open_spool(path, times)
    assert path.exists()


KEYS = st.sampled_from("abc")


class SpoolModel(RuleBasedStateMachine):
    """A spool next to what it should hold; it may be closed and opened at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.times = Times()
        self.pictures: dict[str, bytes] = {}
        self.answers: dict[str, tuple[str, bool]] = {}
        self.spool = self.opened()

    def opened(self) -> Spool:
        return open_spool(Path(self.folder.name) / "spool.sqlite", self.times)

    @rule(key=KEYS, image=st.binary(max_size=20))
    def put(self, key: str, image: bytes) -> None:
        self.spool.put(key, image)
        self.pictures.setdefault(key, image)

    @rule(key=KEYS, text=st.text(max_size=5))
    def settle(self, key: str, text: str) -> None:
        self.spool.settle(key, {"key": text})
        self.pictures.pop(key, None)
        self.answers.setdefault(key, (text, False))

    @rule(key=KEYS)
    def delivered(self, key: str) -> None:
        self.spool.delivered(key)
        if key in self.answers:
            self.answers[key] = (self.answers[key][0], True)

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        self.spool.remove(key)
        self.pictures.pop(key, None)

    @rule(jump=st.floats(-1e9, 1e9))
    def set_clock(self, jump: float) -> None:
        self.times.wall += jump
        assert self.spool.expire() == set()

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = self.opened()

    @invariant()
    def same(self) -> None:
        assert dict(self.spool.waiting()) == {key: len(it) for key, it in self.pictures.items()}
        assert all(self.spool.image(key) == image for key, image in self.pictures.items())
        for key in "abc":
            text = self.answers.get(key, (None, False))[0]
            assert self.spool.answer(key) == (None if text is None else {"key": text})
        left = sorted(text for text, told in self.answers.values() if not told)
        assert sorted(one["key"] for one in self.spool.undelivered()) == left

    def teardown(self) -> None:
        self.spool.close()
        self.folder.cleanup()


SpoolModel.TestCase.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
TestSpoolModel = SpoolModel.TestCase


KILLED = """
import os, signal, sys
from edge_sdk.spool import Spool
spool = Spool(sys.argv[1], max_age_s=1e6)
for number in range(20):
    spool.put(str(number), b"x" * 500)
for number in range(0, 20, 2):
    spool.settle(str(number), {"key": str(number)})
spool.delivered("0")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing(path: Path, times: Times) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    with closing(Spool(path, max_age_s=1e6)) as spool:
        assert [key for key, _ in spool.waiting()] == [str(n) for n in range(1, 20, 2)]
        assert {answer["key"] for answer in spool.undelivered()} == {
            str(number) for number in range(2, 20, 2)
        }
