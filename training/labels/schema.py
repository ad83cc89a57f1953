"""The ledger's file: its table, and how a file of version 1 becomes one of version 2.

Version 1 wrote the service and its model in one text, no price, no boxes and of the rung only what
decides pixels. What it did not write is unknown in version 2, not invented.
"""

from __future__ import annotations

import json
import sqlite3

from edge_sdk.rung import WEBP, Rung
from model_store.errors import SchemaTooNew

__all__ = ["VERSION", "open_tables", "pixels_text"]

VERSION = 2

# Rows are numbered in the order of buying: a clock may be set back, a number may not.
_TABLE = """
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL, model TEXT NOT NULL, picture TEXT NOT NULL, pixels TEXT NOT NULL,
    rung TEXT NOT NULL, labels TEXT NOT NULL, size TEXT, wire_bytes INTEGER NOT NULL,
    request_id TEXT NOT NULL, price_usd REAL, bought REAL NOT NULL,
    UNIQUE (service, model, picture, pixels))
"""
_FROM_VERSION_1 = """
INSERT INTO answers (service, model, picture, pixels, rung, labels, wire_bytes, request_id, bought)
SELECT service_of(service), model_of(service), picture, pixels, rung_of(pixels), labels, wire_bytes,
    request_id, bought FROM answers_1 ORDER BY bought
"""


def open_tables(connection: sqlite3.Connection, path: str) -> None:
    """Make or migrate the table, in one transaction.

    Args:
        connection: in SQLite's own autocommit mode (``isolation_level=None``).
        path: for messages.

    Raises:
        SchemaTooNew: a later version wrote the file; it is not touched.
        sqlite3.DatabaseError: the file is no ledger; it is not touched.
    """
    tables = _tables(connection)
    if (version := _version(connection)) > VERSION:
        raise SchemaTooNew(
            f"The ledger {path!r} is of version {version}; this code reads up to {VERSION}. Update "
            "adacompress."
        )
    if tables - {"answers"} or (version and not tables):
        raise sqlite3.DatabaseError(f"a database with the tables {', '.join(sorted(tables))}")
    connection.execute("PRAGMA journal_mode = WAL")
    # A commit is written to the operating system before it returns, and what the system has it
    # keeps when this process is killed. Only a power cut may take the last commits with it, and
    # none of them by half; a sync per answer would guard against that too.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA secure_delete = ON")  # what is pruned is overwritten
    if version < VERSION:
        _bring_up_to_date(connection)


def pixels_text(rung: Rung) -> str:
    """Return the key's column for a rung: what of it decides the pixels."""
    parts = list(rung.pixels)
    if rung.has_pixels:  # 1 and 1.0 are one scale, but two texts
        parts[2 if rung.format == WEBP else 1] = float(rung.scale)
    return json.dumps(parts)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) < VERSION:  # another process may have been here first
            _make(connection, migrate="answers" in _tables(connection))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _make(connection: sqlite3.Connection, *, migrate: bool) -> None:
    if migrate:
        connection.execute("ALTER TABLE answers RENAME TO answers_1")
    connection.execute(_TABLE)
    if migrate:
        for name, function in (("service", _service), ("model", _model), ("rung", _rung)):
            connection.create_function(f"{name}_of", 1, function, deterministic=True)
        connection.execute(_FROM_VERSION_1)
        connection.execute("DROP TABLE answers_1")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in rows}


def _service(text: str) -> str:
    """``baidu/lite0@1`` was a service with its model, ``baidu://host`` one that tells none."""
    return text if "://" in text else text.partition("/")[0]


def _model(text: str) -> str:
    return "" if "://" in text else text.partition("/")[2]


def _rung(pixels: str) -> str:
    return json.dumps(
        dict(zip(("quality", "scale", "subsampling"), json.loads(pixels), strict=True))
    )
