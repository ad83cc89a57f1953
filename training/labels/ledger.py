"""Every paid answer, kept: an answer in the ledger is never bought twice, whatever is killed when.

SQLite in write-ahead mode (``adacompress.ledger/2``). The key is what decides an answer: the
service and its model's version, the picture's pixels, and the pixels that a rung makes of them.
Entropy coding changes bytes, not pixels, so it is not in the key. Errors are never answers.

Nothing is written before a call is sent: vendors know no key by which a call could be taken up
again. A process killed between sending and committing loses that one answer; every other one was
committed before anybody used it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from edge_sdk.backends.base import Box, Label, Recognition
from edge_sdk.ladder import Rung
from model_store.errors import EnvironmentMissing, UsageError
from training.labels.schema import open_tables, pixels_text

__all__ = ["Bill", "Entry", "Holding", "Key", "Ledger", "picture_key"]

# The keys are the outer loop: each is one step down the unique index.
_GET = """
WITH wanted (place, service, model, picture, pixels) AS (VALUES {values})
SELECT place, labels, bought FROM wanted CROSS JOIN answers USING (service, model, picture, pixels)
"""
#: Keys that one statement asks for: each takes four of the 999 values that any SQLite allows.
_AT_ONCE = 240
_PUT = """
INSERT OR REPLACE INTO answers (service, model, picture, pixels, rung, labels, size, wire_bytes,
    request_id, price_usd, bought) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_HOLDINGS = """
SELECT service, model, COUNT(*), COUNT(DISTINCT picture), COUNT(DISTINCT pixels), MIN(bought),
    MAX(bought), SUM(wire_bytes), TOTAL(price_usd), COUNT(*) - COUNT(price_usd)
FROM answers GROUP BY service, model ORDER BY service, MIN(id)
"""
_BILLS = """
SELECT service, date(bought, 'unixepoch') AS day, COUNT(*), TOTAL(price_usd),
    COUNT(*) - COUNT(price_usd) FROM answers GROUP BY service, day ORDER BY service, day
"""
_PAGE = """
SELECT id, service, model, picture, rung, labels, size, wire_bytes, request_id, price_usd, bought
FROM answers WHERE id > ? ORDER BY id LIMIT 1000
"""


class Key(NamedTuple):
    """What decides an answer.

    Attributes:
        service: the backend's name; without host and port if they say nothing.
        picture: SHA-256 of the decoded picture, see :func:`picture_key`.
        rung: the encoder setting; only what changes pixels counts.
        model: the version of the service's model, "" where nobody tells it.
    """

    service: str
    picture: str
    rung: Rung
    model: str = ""

    @property
    def row(self) -> tuple[str, str, str, str]:
        """The four columns that are unique."""
        return self.service, self.model, self.picture, pixels_text(self.rung)


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer as it is kept.

    Attributes:
        service, model, picture: as in :class:`Key`.
        rung: the rung that was sent; without its entropy coding if an old version bought it.
        labels: as they were bought.
        size: (width, height) of the upload that boxes refer to, None without boxes.
        wire_bytes: the request body's size.
        request_id: the service's own id of the request, or "".
        price_usd: what it cost, None where that is not known.
        bought: Unix time in seconds.
    """

    service: str
    model: str
    picture: str
    rung: dict[str, Any]
    labels: tuple[Label, ...]
    size: tuple[int, int] | None
    wire_bytes: int
    request_id: str
    price_usd: float | None
    bought: float


class Holding(NamedTuple):
    """What the ledger holds of one model of a service; ``unpriced`` answers are not in the cost."""

    service: str
    model: str
    answers: int
    pictures: int
    rungs: int
    first: float
    last: float
    wire_bytes: int
    cost_usd: float
    unpriced: int


class Bill(NamedTuple):
    """What one service cost on one day (UTC); ``unpriced`` answers are not in the cost."""

    service: str
    day: str
    answers: int
    cost_usd: float
    unpriced: int


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
        ttl_s: answers older than this are deleted now and never used; None keeps all of them.

    Raises:
        EnvironmentMissing: the file cannot be opened or written.
        UsageError: the file is something else than a ledger.
        SchemaTooNew: it was written by a later version.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, ttl_s: float | None = None
    ) -> None:
        self.path = path
        self._clock, self._ttl_s = clock, ttl_s
        self._lock = threading.Lock()  # guards _connection
        self._connection = _connect(path)
        if ttl_s is not None:
            try:
                self.prune(ttl_s)
            except BaseException:
                self.close()
                raise

    def get(self, key: Key) -> tuple[Label, ...] | None:
        """Return the labels that were bought for ``key``, or None."""
        return self.get_many((key,))[0]

    def get_many(self, keys: Sequence[Key]) -> list[tuple[Label, ...] | None]:
        """Return what :meth:`get` would for each key, in their order.

        What others buy meanwhile may or may not be among it.
        """
        oldest = -math.inf if self._ttl_s is None else self._clock() - self._ttl_s
        labels: list[tuple[Label, ...] | None] = [None] * len(keys)
        for begin in range(0, len(keys), _AT_ONCE):
            rows = [key.row for key in keys[begin : begin + _AT_ONCE]]
            query = _GET.format(values=", ".join(f"({n}, ?, ?, ?, ?)" for n in range(len(rows))))
            for place, text, bought in self._rows(query, *chain.from_iterable(rows)):
                labels[begin + place] = _labels(text) if bought >= oldest else None
        return labels

    def put(self, key: Key, answer: Recognition, price_usd: float | None = None) -> None:
        """Keep an answer; from now on it survives this process, however that ends.

        Raises:
            EnvironmentMissing: the disk is full, or the file can no longer be written.
        """
        boxed = any(label.box for label in answer.labels)
        values = (
            *key.row,
            json.dumps(key.rung.as_dict()),
            json.dumps([label if label.box else label[:2] for label in answer.labels]),
            json.dumps(answer.size) if boxed and answer.size else None,
            answer.wire_bytes,
            answer.request_id,
            price_usd,
            self._clock(),
        )
        with self._using():
            self._connection.execute(_PUT, values)

    def latest_version(self, service: str) -> str | None:
        """Return the model that gave the newest answer of ``service``, None if nobody told it."""
        query = "SELECT model FROM answers WHERE service = ? ORDER BY id DESC LIMIT 1"
        found = self._rows(query, service)
        return (found[0][0] or None) if found else None

    def holdings(self) -> list[Holding]:
        """Return what is held of every service and model."""
        return [Holding(*row) for row in self._rows(_HOLDINGS)]

    def bills(self) -> list[Bill]:
        """Return what every service cost, by day."""
        return [Bill(*row) for row in self._rows(_BILLS)]

    def entries(self) -> Iterator[Entry]:
        """Yield every answer in the order of buying; few are in memory at once."""
        last = 0
        while page := self._rows(_PAGE, last):
            yield from (_entry(*row) for _, *row in page)
            last = page[-1][0]

    def prune(
        self, older_than_s: float, service: str | None = None, *, dry_run: bool = False
    ) -> int:
        """Delete the answers that are older, so that they are really gone from the file.

        Args:
            older_than_s: seconds since the purchase.
            service: only this one's.
            dry_run: count them and delete nothing.

        Returns:
            How many they are.

        Raises:
            EnvironmentMissing: the file cannot be written, or another process holds on to it.
        """
        old = "bought < ? AND (? IS NULL OR service = ?)"
        which = (self._clock() - older_than_s, service, service)
        count = int(self._rows(f"SELECT COUNT(*) FROM answers WHERE {old}", *which)[0][0])
        if count and not dry_run:
            with self._using():
                count = self._connection.execute(f"DELETE FROM answers WHERE {old}", which).rowcount
                # Until here the pages live on in the write-ahead log.
                self._connection.execute("VACUUM")
                busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if busy:
                    raise sqlite3.OperationalError("another process is reading what was deleted")
        return count

    def __len__(self) -> int:
        return int(self._rows("SELECT COUNT(*) FROM answers")[0][0])

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        with self._lock:
            self._connection.close()

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._using():
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.OperationalError as error:
            raise EnvironmentMissing(
                f"The ledger {str(self.path)!r} cannot be read or written: {error}. Make room, or "
                "end what else uses it, and run again; what is in it is safe."
            ) from error
        except sqlite3.ProgrammingError:  # a closed ledger was used: nothing is wrong with the file
            raise
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"The ledger {str(self.path)!r} is damaged ({error}); restore a copy, or move it "
                "away to begin a new one."
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=30.0, check_same_thread=False, isolation_level=None
        )
        try:
            open_tables(connection, str(path))
        except BaseException:
            connection.close()
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
    return connection


def _labels(text: str) -> tuple[Label, ...]:
    """Read ``[name, score]`` and ``[name, score, [left, top, width, height]]``."""
    return tuple(
        Label(name, score, Box(*box[0]) if box else None) for name, score, *box in json.loads(text)
    )


def _entry(
    service: str, model: str, picture: str, rung: str, labels: str, size: str | None, *rest: Any
) -> Entry:
    upload = tuple(json.loads(size)) if size else None
    return Entry(service, model, picture, json.loads(rung), _labels(labels), upload, *rest)
