"""Features that were computed before: one row per picture, encoding and prefix, in one file.

It is not the ledger: nothing in it was paid for, and whatever is wrong with it, features are
computed anew. A row of 1,287 features is 5 KB; 500 photos with the encodings of 18 rungs, 50 MB.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from edge_sdk.preprocess import spec_sha256

__all__ = ["FeatureCache", "identity"]

_log = logging.getLogger("training.features")

_TABLE = """
CREATE TABLE IF NOT EXISTS features (
    made_by TEXT NOT NULL, picture TEXT NOT NULL, encoding TEXT NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (made_by, picture, encoding)) WITHOUT ROWID
"""
_GET = "SELECT encoding, vector FROM features WHERE made_by = ? AND picture = ?"
_PUT = "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)"

Vector = NDArray[np.float32]


def identity(prefix: bytes, gpu: bool = False) -> str:
    """Return a name for what makes features: the prefix's ONNX file, the resize, the codec, where.

    A GPU adds in another order; what it rounds otherwise is not the CPU's.
    """
    digest = hashlib.sha256(prefix)
    digest.update(f"{spec_sha256()}/{PIL.__version__}{'/cuda' if gpu else ''}".encode())
    return digest.hexdigest()


class FeatureCache:
    """Vectors on disk; safe to use from several threads and processes.

    Args:
        path: the file; made if it is not there. One that cannot be used is reported once and done
            without.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = sqlite3.connect(
                path, timeout=30.0, check_same_thread=False, isolation_level=None
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = OFF")  # it can be made again
            self._connection.execute(_TABLE)
        except sqlite3.Error as error:
            self._give_up(error)

    def get(self, made_by: str, picture: str) -> dict[str, Vector]:
        """Return a picture's known vectors, float32 (D,), by encoding.

        Args:
            made_by: see :func:`identity`.
            picture: see ``training.labels.ledger.picture_key``.
        """
        return {name: np.frombuffer(v, np.float32) for name, v in self._do(_GET, made_by, picture)}

    def put(self, made_by: str, picture: str, vectors: Mapping[str, Vector]) -> None:
        """Keep a picture's vectors, float32 (D,), by encoding."""
        rows = [
            (made_by, picture, name, np.ascontiguousarray(vector, np.float32).tobytes())
            for name, vector in vectors.items()
        ]
        if rows:
            self._do(_PUT, *rows, many=True)

    def close(self) -> None:
        """Close the file; calling it twice is fine, and what follows finds nothing."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _do(self, statement: str, *values: Any, many: bool = False) -> Sequence[Any]:
        with self._lock:
            if self._connection is None:
                return ()
            try:
                if not many:
                    return self._connection.execute(statement, values).fetchall()
                with self._connection:  # one transaction
                    self._connection.execute("BEGIN")
                    self._connection.executemany(statement, values)
            except sqlite3.Error as error:
                self._give_up(error)
            return ()

    def _give_up(self, error: sqlite3.Error) -> None:
        _log.warning(
            "The features in %s cannot be kept or read (%s); they are computed anew. Delete the "
            "file, or make room.",
            self._path,
            error,
        )
        if self._connection is not None:
            self._connection.close()
            self._connection = None
