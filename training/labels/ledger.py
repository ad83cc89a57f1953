"""Every paid answer, kept: an answer in the ledger is never bought twice, whatever is killed when.

SQLite in write-ahead mode (``adacompress.ledger/1``). The key is what decides an answer: the
service with its model's version, the picture's pixels, and the pixels that a rung makes of them.
Entropy coding changes bytes, not pixels, so it is not in the key. Errors are never answers.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from edge_sdk.backends.base import Label, Recognition
from edge_sdk.ladder import Rung
from model_store.errors import EnvironmentMissing, SchemaTooNew, UsageError

__all__ = ["Key", "Ledger", "picture_key"]

_VERSION = 1
_TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS answers (
    service TEXT NOT NULL, picture TEXT NOT NULL, pixels TEXT NOT NULL,
    labels TEXT NOT NULL, wire_bytes INTEGER NOT NULL, request_id TEXT NOT NULL,
    bought REAL NOT NULL, PRIMARY KEY (service, picture, pixels)) WITHOUT ROWID;
"""


class Key(NamedTuple):
    """What decides an answer.

    Attributes:
        service: the service and its model's version, without host or port.
        picture: SHA-256 of the decoded picture, see :func:`picture_key`.
        rung: the encoder setting; only what changes pixels counts.
    """

    service: str
    picture: str
    rung: Rung

    @property
    def row(self) -> tuple[str, str, str]:
        """The three columns of the primary key."""
        return self.service, self.picture, json.dumps(self.rung.pixels)


def picture_key(image: Image.Image) -> str:
    """Return the hex SHA-256 over an RGB picture's size and pixels."""
    digest = hashlib.sha256(f"{image.width}x{image.height}/{image.mode}".encode())
    digest.update(np.asarray(image).tobytes())
    return digest.hexdigest()


class Ledger:
    """Answers on disk; safe to use from several threads and, through SQLite, processes.

    Args:
        path: the file; made if it is not there.
        clock: Unix time in seconds.

    Raises:
        EnvironmentMissing: the file cannot be opened or written.
        UsageError: the file is something else than a ledger.
        SchemaTooNew: it was written by a later version.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()  # guards _connection
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
            try:
                self._open_tables()
            except BaseException:
                self._connection.close()
                raise
        except (OSError, sqlite3.OperationalError) as error:
            raise EnvironmentMissing(
                f"The ledger {str(path)!r} cannot be opened: {error}. Give a folder that can be "
                "written."
            ) from error
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"{str(path)!r} is not a ledger ({error}); move it away, or give another folder."
            ) from error

    def get(self, key: Key) -> tuple[Label, ...] | None:
        """Return the labels that were bought for ``key``, or None."""
        query = "SELECT labels FROM answers WHERE service = ? AND picture = ? AND pixels = ?"
        with self._lock:
            row = self._connection.execute(query, key.row).fetchone()
        return None if row is None else tuple(Label(*label) for label in json.loads(row[0]))

    def put(self, key: Key, answer: Recognition) -> None:
        """Keep an answer; from now on it survives this process, however that ends.

        Raises:
            EnvironmentMissing: the disk is full, or the file can no longer be written.
        """
        labels = json.dumps([list(label) for label in answer.labels])
        values = (*key.row, labels, answer.wire_bytes, answer.request_id, self._clock())
        try:
            with self._lock, self._connection:
                self._connection.execute(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", values
                )
        except sqlite3.OperationalError as error:
            raise EnvironmentMissing(
                f"The ledger {str(self.path)!r} cannot be written: {error}. Make room and run "
                "again; what is in it is safe."
            ) from error

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        with self._lock:
            self._connection.close()

    def _open_tables(self) -> None:
        version = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
        if version > _VERSION:
            raise SchemaTooNew(
                f"The ledger {str(self.path)!r} is of version {version}; this code reads up to "
                f"{_VERSION}. Update adacompress."
            )
        self._connection.executescript(_TABLES)
        self._connection.execute(f"PRAGMA user_version = {_VERSION}")
        self._connection.commit()
