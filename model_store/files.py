"""The one atomic write of the product, and the one file hash.

A reader sees the old file or the new one, never half of either: write to a temporary name in the
same folder, fsync, rename over the target, fsync the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = [
    "read_json",
    "sha256_bytes",
    "sha256_file",
    "sync_folder",
    "to_json",
    "write_atomic",
    "write_atomic_from",
    "write_json",
]


def sha256_bytes(data: bytes) -> str:
    """Return the lower-case hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the lower-case hex SHA-256 of a file's content, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that no reader and no crash ever sees a part of it.

    Raises:
        OSError: the folder cannot be written; the old file is untouched.
    """
    write_atomic_from(path, [data])


def write_atomic_from(path: Path, blocks: Iterable[bytes]) -> None:
    """Replace ``path`` by what ``blocks`` yields, as :func:`write_atomic` does.

    Raises:
        OSError: the folder cannot be written; the old file is untouched, as it is by whatever
            ``blocks`` raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not ``tempfile``: its files are for the owner only, but a store's readers may be other users.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut, where the platform can."""
    with contextlib.suppress(OSError):  # some file systems and Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def to_json(document: Any) -> str:
    """Return ``document`` as stable JSON: sorted keys, two spaces, a newline at the end."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as JSON with :func:`write_atomic`."""
    write_atomic(path, to_json(document).encode())


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))
