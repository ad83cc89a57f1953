from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.memory import Memory, Transition, read_transitions
from model_store.errors import SchemaTooNew, UsageError


def transition(number: int, width: int = 3) -> Transition:
    return Transition(
        features=np.full(width, number, dtype=np.float32),
        rung=number % 5,
        reward=0.5 - number / 100,
        agreement=float(number % 2),
        size_ratio=number / 100,
        image=f"image-{number // 2}",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device" / "memory.sqlite"


@pytest.fixture
def memory(path: Path) -> Iterator[Memory]:
    with contextlib.closing(Memory(path, max_transitions=8)) as opened:
        yield opened


def test_what_is_logged_comes_back_as_arrays(memory: Memory) -> None:
    memory.append([transition(1), transition(2)])
    memory.append([transition(3)])
    arrays = memory.arrays()
    assert len(arrays) == len(memory) == 3
    assert arrays.features.tolist() == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    assert arrays.features.dtype == np.float32
    assert arrays.rungs.tolist() == [1, 2, 3]
    assert arrays.rewards.tolist() == [0.49, 0.48, 0.47]
    assert arrays.agreements.tolist() == [1.0, 0.0, 1.0]
    assert arrays.size_ratios.tolist() == [0.01, 0.02, 0.03]
    assert arrays.images == ("image-0", "image-1", "image-1")


def test_an_empty_memory_has_empty_arrays(memory: Memory) -> None:
    assert len(memory.arrays()) == 0
    assert memory.arrays().rewards.shape == (0,)


def test_the_oldest_are_dropped_beyond_the_limit(memory: Memory) -> None:
    for number in range(20):
        memory.append([transition(number)])
    assert memory.arrays().features[:, 0].tolist() == list(range(12, 20))


def test_keep_last_forgets_what_is_older(memory: Memory) -> None:
    memory.append([transition(number) for number in range(6)])
    memory.keep_last(2)
    assert memory.arrays().features[:, 0].tolist() == [4.0, 5.0]


def test_flush_forgets_everything_and_logging_goes_on(memory: Memory) -> None:
    memory.append([transition(1)])
    memory.flush()
    assert len(memory) == 0
    memory.append([transition(2)])
    assert memory.arrays().features[0, 0] == 2.0


def test_another_space_forgets_what_was_logged(memory: Memory) -> None:
    memory.use("3 q5 q15")
    memory.append([transition(1)])
    memory.use("3 q5 q15")
    assert len(memory) == 1
    memory.use("4 q5 q15")
    memory.append([transition(1, width=4)])
    assert memory.arrays().features.shape == (1, 4)


def test_it_survives_a_restart(path: Path) -> None:
    with contextlib.closing(Memory(path)) as first:
        first.use("space")
        first.append([transition(1)])
    with contextlib.closing(Memory(path)) as second:
        second.use("space")
        assert len(second) == 1


def test_it_survives_a_killed_process(path: Path) -> None:
    script = """
        import os, signal, sys
        import numpy as np
        from edge_sdk.memory import Memory, Transition
        memory = Memory(sys.argv[1])
        for n in range(3):
            memory.append([Transition(features=np.ones(3, np.float32), rung=n, reward=0.5,
                                      agreement=1.0, size_ratio=0.5, image="x")])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    root = Path(__file__).parents[2]
    assert subprocess.run(command, check=False, cwd=root).returncode == -signal.SIGKILL
    assert read_transitions(path).rungs.tolist() == [0, 1, 2]
    with contextlib.closing(Memory(path)) as again:
        assert len(again) == 3


def test_another_process_reads_while_this_one_writes(memory: Memory, path: Path) -> None:
    memory.append([transition(1)])
    assert len(read_transitions(path)) == 1
    memory.append([transition(2)])
    assert len(read_transitions(path)) == 2


def test_reading_changes_nothing(memory: Memory, path: Path) -> None:
    memory.append([transition(1)])
    read_transitions(path)
    assert len(memory) == 1


def test_a_damaged_file_is_moved_aside_and_logging_goes_on(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this was a database once" * 100)
    with contextlib.closing(Memory(path)) as memory:
        memory.append([transition(1)])
        assert len(memory) == 1
    assert path.with_name("memory.sqlite.damaged").exists()


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    Memory(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(SchemaTooNew, match="version 9"):
        Memory(path)
    with pytest.raises(SchemaTooNew, match="version 9"):
        read_transitions(path)


def test_reading_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.sqlite"):
        read_transitions(tmp_path / "nowhere.sqlite")


def test_a_limit_of_nothing_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="max_transitions is 0"):
        Memory(path, max_transitions=0)


def test_close_twice_is_fine(path: Path) -> None:
    memory = Memory(path)
    memory.close()
    memory.close()


def test_palettes_come_back_if_every_picture_has_one(memory: Memory) -> None:
    palette = np.full(24, 1 / 24, dtype=np.float32)
    memory.append([replace(transition(number), palette=palette) for number in (1, 2)])
    palettes = memory.arrays().palettes
    assert palettes is not None
    assert palettes.shape == (2, 24)
    memory.append([transition(3)])
    assert memory.arrays().palettes is None


def test_a_memory_from_before_palettes_goes_on(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        old.executescript(
            "CREATE TABLE transitions (id INTEGER PRIMARY KEY, features BLOB NOT NULL, rung INTEGER"
            " NOT NULL, reward REAL NOT NULL, agreement REAL NOT NULL, size_ratio REAL NOT NULL,"
            " image TEXT NOT NULL); PRAGMA user_version = 1;"
            "INSERT INTO transitions VALUES (1, x'0000803f', 2, 0.5, 1.0, 0.25, 'one');"
        )
    with contextlib.closing(Memory(path)) as opened:
        opened.append([transition(3, width=1)])
        assert opened.arrays().rungs.tolist() == [2, 3]
