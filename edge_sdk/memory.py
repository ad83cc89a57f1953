"""The memory buffer D: transitions on disk, for the retrainer. It holds features, never pictures.

SQLite in write-ahead mode, so that another process can read while the device writes, and a killed
process loses nothing that was logged. The columns are a wire format, ``adacompress.memory/1``:
``features`` and ``palette`` are little-endian float32, the others are what their names say.

    with contextlib.closing(Memory(folder / "memory.sqlite")) as memory:
        memory.append([Transition(features, rung=3, reward=0.7, agreement=1.0, ...)])
        memory.arrays().features.shape
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.errors import AdaCompressError, SchemaTooNew, UsageError

__all__ = ["MAX_TRANSITIONS", "Memory", "Transition", "Transitions", "read_transitions"]

#: Transitions kept, the oldest are dropped first: 10 MB at 1280 features.
MAX_TRANSITIONS = 2000

_VERSION = 1
_TABLES = f"""
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS transitions (
    id INTEGER PRIMARY KEY, features BLOB NOT NULL, rung INTEGER NOT NULL, reward REAL NOT NULL,
    agreement REAL NOT NULL, size_ratio REAL NOT NULL, image TEXT NOT NULL,
    palette BLOB NOT NULL DEFAULT x'');
CREATE TABLE IF NOT EXISTS space (name TEXT NOT NULL);
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_COLUMNS = "features, rung, reward, agreement, size_ratio, image, palette"
_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Transition:
    """One compared upload (φ, c, r, A) with its size ratio.

    Attributes:
        features: float32 (D,).
        rung: index into the agent's ladder.
        reward: r = α·A − Δs + β.
        agreement: A in [0, 1].
        size_ratio: Δs, compressed over reference bytes.
        image: key of the picture; transitions of one picture share it.
        palette: of the picture, see ``edge_sdk.palette``, or None.
    """

    features: NDArray[np.float32]
    rung: int
    reward: float
    agreement: float
    size_ratio: float
    image: str
    palette: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Transitions:
    """All transitions, oldest first, as arrays of length N.

    Attributes:
        features: float32 (N, D).
        rungs: int64 (N,).
        rewards: float64 (N,).
        agreements: float64 (N,).
        size_ratios: float64 (N,).
        images: keys of the pictures.
        palettes: float32 (N, B), or None if some picture has none.
    """

    features: NDArray[np.float32]
    rungs: NDArray[np.int64]
    rewards: NDArray[np.float64]
    agreements: NDArray[np.float64]
    size_ratios: NDArray[np.float64]
    images: tuple[str, ...]
    palettes: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.images)


class Memory:
    """A bounded buffer of transitions in one file. Not thread-safe: its owner holds a lock.

    Args:
        path: the file; its folder is made. A file that is no memory is moved aside, not deleted:
            losing transitions costs labels, but must not stop a device.
        max_transitions: the oldest beyond this are dropped.

    Raises:
        SchemaTooNew: the file was written by a later version.
        sqlite3.Error, OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path, max_transitions: int = MAX_TRANSITIONS) -> None:
        if max_transitions < 1:
            raise UsageError(f"max_transitions is {max_transitions}; allowed is 1 or more.")
        self.path = Path(path)
        self._max = max_transitions
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = _open(self.path)
        except sqlite3.OperationalError:
            raise  # locked, read-only, disk full: not the file's fault
        except sqlite3.DatabaseError:
            _move_aside(self.path)
            self._connection = _open(self.path)

    def append(self, transitions: Iterable[Transition]) -> None:
        """Log transitions, all or none, and drop the oldest beyond the limit."""
        rows = [
            (
                np.asarray(one.features, dtype=_FLOAT32).tobytes(),
                one.rung,
                one.reward,
                one.agreement,
                one.size_ratio,
                one.image,
                b"" if one.palette is None else np.asarray(one.palette, dtype=_FLOAT32).tobytes(),
            )
            for one in transitions
        ]
        with self._connection:
            self._connection.executemany(
                f"INSERT INTO transitions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows
            )
            self._drop_all_but(self._max)

    def keep_last(self, count: int) -> None:
        """Forget all transitions but the newest ``count``."""
        with self._connection:
            self._drop_all_but(count)

    def flush(self) -> None:
        """Forget all transitions (section 3.5.4)."""
        self.keep_last(0)

    def use(self, space: str) -> None:
        """Say what features and rungs mean from now on; forget what was logged in another space.

        Args:
            space: names the features' origin and the ladder. Mixing two would train nonsense.
        """
        row = self._connection.execute("SELECT name FROM space").fetchone()
        if row is not None and row[0] == space:
            return
        with self._connection:
            self._connection.execute("DELETE FROM space")
            self._connection.execute("INSERT INTO space VALUES (?)", (space,))
            self._drop_all_but(0)

    def arrays(self) -> Transitions:
        """Return all transitions, oldest first."""
        return _arrays(self._connection)

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        self._connection.close()

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT COUNT(*) FROM transitions").fetchone()
        return int(count)

    def _drop_all_but(self, count: int) -> None:
        self._connection.execute(
            "DELETE FROM transitions WHERE id NOT IN "
            "(SELECT id FROM transitions ORDER BY id DESC LIMIT ?)",
            (count,),
        )


def read_transitions(path: str | Path) -> Transitions:
    """Read a memory that another process may be writing; nothing in it is changed.

    Raises:
        UsageError: there is no such file, or it is no memory.
        SchemaTooNew: it was written by a later version.
    """
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            _check_version(connection, path)
            return _arrays(connection)
    except sqlite3.Error as error:
        raise UsageError(f"The memory {str(path)!r} cannot be read: {error}.") from error


def _open(path: Path) -> sqlite3.Connection:
    # The owner's lock serialises the threads, so sqlite need not insist on one.
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        _check_version(connection, path)
        connection.executescript(_TABLES)
        if "palette" not in _columns(connection):
            connection.execute("ALTER TABLE transitions ADD palette BLOB NOT NULL DEFAULT x''")
        connection.execute(f"SELECT {_COLUMNS} FROM transitions LIMIT 1").fetchone()
    except (sqlite3.Error, AdaCompressError):
        connection.close()
        raise
    return connection


def _columns(connection: sqlite3.Connection) -> set[str]:
    return {str(row[1]) for row in connection.execute("PRAGMA table_info(transitions)")}


def _check_version(connection: sqlite3.Connection, path: str | Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise SchemaTooNew(
            f"The memory {str(path)!r} has version {version}; this code reads up to {_VERSION}. "
            "Upgrade, or give another folder."
        )


def _move_aside(path: Path) -> None:
    path.replace(path.with_name(f"{path.name}.damaged"))
    for suffix in ("-wal", "-shm"):  # they belong to the damaged file and would spoil the new one
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _arrays(connection: sqlite3.Connection) -> Transitions:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM transitions ORDER BY id").fetchall()
    blobs, rungs, rewards, agreements, ratios, images, colours = (
        zip(*rows, strict=True) if rows else ((),) * 7
    )
    features = [np.frombuffer(blob, dtype=_FLOAT32) for blob in blobs]
    return Transitions(
        features=np.stack(features) if features else np.zeros((0, 0), dtype=_FLOAT32),
        rungs=np.array(rungs, dtype=np.int64),
        rewards=np.array(rewards, dtype=np.float64),
        agreements=np.array(agreements, dtype=np.float64),
        size_ratios=np.array(ratios, dtype=np.float64),
        images=tuple(images),
        palettes=_stacked(colours),
    )


def _stacked(blobs: Sequence[bytes]) -> NDArray[np.float32] | None:
    if not blobs or not all(blobs) or len({len(blob) for blob in blobs}) > 1:
        return None
    return np.stack([np.frombuffer(blob, dtype=_FLOAT32) for blob in blobs])
