"""The service's queue: jobs in one SQLite file, so that a killed service forgets none.

jobs = Jobs(folder)
jobs.put("3f…", body)              # the same name again changes nothing
job = jobs.take()                  # the oldest waiting one, or None
jobs.end(job.id, agent="night-0123456789ab")
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_store.files import write_atomic

__all__ = ["Job", "Jobs"]

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, agent TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '', created REAL NOT NULL, changed REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        id: its name, from its content.
        state: ``queued``, ``running``, ``done`` or ``failed``.
        agent: what came of it, or "".
        reason: why nothing came of it, or "".
    """

    id: str
    state: str
    agent: str
    reason: str

    @property
    def tag(self) -> str:
        """What changes whenever the job does."""
        return f'"{self.id[:8]}-{self.state}"'


class Jobs:
    """The queue. Safe to use from several threads.

    Args:
        folder: for the queue and the jobs' transitions; it is made.
        clock: Unix time in seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._clock = folder, clock
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(folder / "jobs.sqlite", check_same_thread=False)
        with self._connection:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(_TABLE)
            # What ran when the service was killed has to run again.
            self._connection.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def put(self, name: str, body: bytes) -> Job:
        """Queue a job, unless one of this name is known; a failed one is tried again."""
        known = self.get(name)
        if known is not None and known.state != "failed":
            return known
        write_atomic(self.body(name), body)
        now = self._clock()
        with self._lock, self._connection:
            self._connection.execute(
                "INSERT INTO jobs (id, state, created, changed) VALUES (?, 'queued', ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET state = 'queued', reason = '', changed = ? "
                "WHERE state = 'failed'",
                (name, now, now, now),
            )
        found = self.get(name)
        assert found is not None  # it was just put
        return found

    def body(self, name: str) -> Path:
        """Return where a job's transitions are."""
        return self._folder / name / "transitions.npz"

    def get(self, name: str) -> Job | None:
        """Return a job, or None if there is none of this name."""
        with self._lock:
            row = self._connection.execute(
                "SELECT id, state, agent, reason FROM jobs WHERE id = ?", (name,)
            ).fetchone()
        return None if row is None else Job(*row)

    def waiting(self) -> int:
        """Return how many jobs are queued."""
        with self._lock:
            sql = "SELECT COUNT(*) FROM jobs WHERE state = 'queued'"
            return int(self._connection.execute(sql).fetchone()[0])

    def take(self) -> Job | None:
        """Return the oldest queued job, which runs from now on, or None."""
        with self._lock, self._connection:
            row = self._connection.execute(
                "UPDATE jobs SET state = 'running', changed = ? WHERE id = (SELECT id FROM jobs "
                "WHERE state = 'queued' ORDER BY created, id LIMIT 1) "
                "RETURNING id, state, agent, reason",
                (self._clock(),),
            ).fetchone()
        return None if row is None else Job(*row)

    def end(self, name: str, *, agent: str = "", reason: str = "") -> None:
        """Say what came of a job; one that was given up meanwhile stays so."""
        with self._lock, self._connection:
            self._connection.execute(
                "UPDATE jobs SET state = ?, agent = ?, reason = ?, changed = ? "
                "WHERE id = ? AND state IN ('queued', 'running')",
                ("done" if agent else "failed", agent, reason, self._clock(), name),
            )
        if agent:
            with contextlib.suppress(OSError):  # transitions are not kept longer than needed
                self.body(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
