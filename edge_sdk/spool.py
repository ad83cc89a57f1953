"""Pictures that wait on disk for the link, and the answers that came: nothing is lost by a crash.

One SQLite file in write-ahead mode, synchronised at every commit. A picture and its answer are
never both there nor both missing: the answer replaces the picture in one transaction. An answer
whose delivery was not confirmed is delivered again after a restart, by the same key. What a power
cut may cost is one paid call per upload that was under way.

The file belongs to one process at a time. Ages are kept right when the clock is set while the
process runs; after a restart a negative age counts as none.

    spool = Spool(folder / "spool.sqlite")
    spool.put("door-17", jpeg)
    spool.settle("door-17", {"labels": [["cat", 0.9]]})
    spool.delivered("door-17")
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_store.errors import AdaCompressError, SchemaTooNew

__all__ = ["Spool"]

_VERSION = 1
#: A clock that moves by more than this against the monotonic one was set, in seconds.
_JUMP_S = 60.0
_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, since REAL NOT NULL, image BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, since REAL NOT NULL, document TEXT NOT NULL, delivered INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS undelivered ON answers (key) WHERE NOT delivered;
PRAGMA user_version = {_VERSION};
COMMIT;
"""


class Spool:
    """A durable set of pictures and answers by key; safe to use from several threads.

    Args:
        path: the file; its folder is made. A file that is no spool is moved aside, not deleted.
        max_age_s: pictures and answers older than that are forgotten.
        clock: seconds since the epoch, which may jump.
        ticks: seconds that only grow.

    Raises:
        SchemaTooNew: the file was written by a later version.
        sqlite3.Error, OSError: the file cannot be written, or another process has it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_age_s: float,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self._max_age_s = max_age_s
        self._clock, self._ticks = clock, ticks
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        #: Whether a file that was no spool had to be moved aside.
        self.was_damaged = False
        try:
            self._connection = _open(self.path)  # guarded by _lock
        except sqlite3.OperationalError:
            raise  # locked, read-only, disk full: not the file's fault
        except sqlite3.DatabaseError:
            self.was_damaged = True
            _move_aside(self.path)
            self._connection = _open(self.path)
        self._offset = clock() - ticks()  # guarded by _lock

    def put(self, key: str, image: bytes) -> None:
        """Keep a picture; one that is there already stays as it is."""
        with self._transaction() as (connection, now):
            connection.execute(
                "INSERT OR IGNORE INTO pictures (key, since, image) VALUES (?, ?, ?)",
                (key, now, image),
            )

    def waiting(self) -> list[tuple[str, int]]:
        """Return keys and sizes of all pictures, oldest first."""
        with self._lock:
            rows = self._connection.execute("SELECT key, LENGTH(image) FROM pictures ORDER BY id")
            return rows.fetchall()

    def image(self, key: str) -> bytes | None:
        """Return a picture, or None if it is not there."""
        with self._lock:
            query = "SELECT image FROM pictures WHERE key = ?"
            row = self._connection.execute(query, (key,)).fetchone()
            return None if row is None else bytes(row[0])

    def settle(self, key: str, document: dict[str, Any]) -> None:
        """Replace a picture by its answer, a JSON document; the first answer stays."""
        with self._transaction() as (connection, now):
            connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, 0)",
                (key, now, json.dumps(document)),
            )
            connection.execute("DELETE FROM pictures WHERE key = ?", (key,))

    def answer(self, key: str) -> dict[str, Any] | None:
        """Return the answer to a picture, or None if there is none."""
        with self._lock:
            query = "SELECT document FROM answers WHERE key = ?"
            row = self._connection.execute(query, (key,)).fetchone()
            return None if row is None else json.loads(row[0])

    def undelivered(self) -> list[dict[str, Any]]:
        """Return the answers whose delivery was not confirmed."""
        with self._lock:
            rows = self._connection.execute("SELECT document FROM answers WHERE NOT delivered")
            return [json.loads(document) for (document,) in rows]

    def delivered(self, key: str) -> None:
        """Confirm that an answer reached its host."""
        with self._transaction() as (connection, _):
            connection.execute("UPDATE answers SET delivered = 1 WHERE key = ?", (key,))

    def remove(self, key: str) -> None:
        """Forget a picture."""
        with self._transaction() as (connection, _):
            connection.execute("DELETE FROM pictures WHERE key = ?", (key,))

    def expire(self) -> set[str]:
        """Forget what is too old; return the keys of the pictures among it."""
        with self._transaction() as (connection, now):
            old = (now - self._max_age_s,)
            rows = connection.execute("SELECT key FROM pictures WHERE since < ?", old)
            keys = {key for (key,) in rows}
            connection.execute("DELETE FROM pictures WHERE since < ?", old)
            connection.execute("DELETE FROM answers WHERE since < ? AND delivered", old)
            return keys

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        """Yield the connection and the time, all or nothing; what was set is set right first."""
        with self._lock, self._connection:
            now = self._clock()
            jump = now - self._ticks() - self._offset
            if abs(jump) > _JUMP_S:
                for table in ("pictures", "answers"):
                    self._connection.execute(f"UPDATE {table} SET since = since + ?", (jump,))
                self._offset += jump
            yield self._connection, now


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0.0, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # until the process ends or closes
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise SchemaTooNew(
                f"The spool {str(path)!r} has version {version}; this code reads up to {_VERSION}. "
                "Upgrade, or give another folder."
            )
        connection.executescript(_TABLES)
        found = connection.execute("PRAGMA quick_check").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except (sqlite3.Error, AdaCompressError):
        connection.close()
        raise
    return connection


def _move_aside(path: Path) -> None:
    path.replace(path.with_name(f"{path.name}.damaged"))
    for suffix in ("-wal", "-shm"):  # they belong to the damaged file and would spoil the new one
        path.with_name(path.name + suffix).unlink(missing_ok=True)
