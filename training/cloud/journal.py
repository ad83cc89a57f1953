"""What a local cloud was asked and what it billed: counters, and one JSON line per request.

A line is written and flushed before the last byte of its answer leaves. No line holds a key, a
query, a header, or a label: pictures are named by their SHA-256.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from model_store.errors import EnvironmentMissing

__all__ = ["Journal", "Line"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One request.

    Attributes:
        n: number of the request, from 1 in the order of arrival.
        time: of the arrival, in seconds since the epoch.
        dialect: whose request it is, or None.
        status: HTTP status, or None if nothing was sent.
        what: ``answer``, ``token``, ``health``, ``refused``, ``throttled``, ``fault:KIND``,
            ``abandoned`` (the client was gone), ``not_found`` or ``failed`` (an error of ours).
        billed: a whole answer was given to a client that was there.
        picture: hex SHA-256 of the uploaded file, or None.
        bytes: of the request's body.
        model: version of the model that looked, or None.
        request_id: 32 hexadecimal digits.
        milliseconds: from the request to the last byte.
    """

    n: int
    time: float
    dialect: str | None = None
    status: int | None = None
    what: str = "failed"
    billed: bool = False
    picture: str | None = None
    bytes: int = 0
    model: str | None = None
    request_id: str = ""
    milliseconds: float = 0.0


class Journal:
    """Counts and writes lines, from entering the ``with`` block to leaving it.

    Args:
        path: lines are appended to this file; None only counts.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards what follows
        self._open = contextlib.ExitStack()
        self._file: Any = None
        self._what: Counter[str] = Counter()
        self._billed = 0

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            EnvironmentMissing: it cannot be written.
        """
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered: a line is one write, and it is written when ``write`` returns.
                self._file = self._open.enter_context(self._path.open("ab", buffering=0))
            except OSError as error:
                raise self._unwritable(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._file = None
            self._open.close()

    @property
    def billed(self) -> int:
        """Answers billed so far."""
        with self._lock:
            return self._billed

    def write(self, line: Line) -> None:
        """Log one request and count it.

        Raises:
            EnvironmentMissing: it cannot be written; then it is not counted either.
        """
        text = json.dumps(asdict(line), separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(text)
                except OSError as error:
                    raise self._unwritable(error) from error
            self._what[line.what] += 1
            self._billed += line.billed

    def _unwritable(self, error: OSError) -> EnvironmentMissing:
        return EnvironmentMissing(
            f"The request log {str(self._path)!r} cannot be written: {error.strerror}. Give "
            "another file with --log FILE."
        )

    def counts(self) -> dict[str, int]:
        """Return ``requests``, ``billed``, and how many requests there were of each ``what``."""
        with self._lock:
            total = {"requests": self._what.total(), "billed": self._billed}
            return {**total, **dict(sorted(self._what.items()))}
