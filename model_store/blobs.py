"""File contents by their SHA-256: ``sha256/<2 hex>/<hex>``, and what can be wrong with them.

Contents are written once and never changed; equal files of many agents are kept once.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import UsageError
from model_store.files import sha256_bytes, sha256_file, sync_folder
from model_store.manifest import FileEntry

__all__ = ["Blobs", "Problem", "stage"]

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with an agent or an alias.

    Attributes:
        path: the file as the agent names it, or ``manifest.json``, or the alias.
        kind: ``missing``, ``wrong size``, ``wrong hash`` or ``bad manifest`` are damage;
            ``unreadable``, ``too new``, ``unsafe``, ``untrusted`` and ``bad alias`` may be judged
            otherwise elsewhere, so nothing is moved for them.
        expected: what the manifest says.
        actual: what was found.
    """

    path: str
    kind: str
    expected: str
    actual: str

    @property
    def is_damage(self) -> bool:
        """Whether the agent can never be used again as it is."""
        return self.kind in ("missing", "wrong size", "wrong hash", "bad manifest")

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}, expected {self.expected}, actual {self.actual}"


class Blobs:
    """A folder of contents.

    Args:
        folder: where ``sha256/`` is or will be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sha256"

    def path(self, sha256: str) -> Path:
        """Return where the content with this hash is, or would be."""
        return self._folder / sha256[:2] / sha256

    def inspect(self, entry: FileEntry) -> Problem | None:
        """Return what is wrong with the content of ``entry``, without reading it into memory."""
        path = self.path(entry.sha256)
        try:
            size = path.stat().st_size
            return _compare(entry, size, sha256_file(path) if size == entry.size else "")
        except OSError as error:
            return _unreadable(entry, error)

    def read(self, entry: FileEntry) -> bytes | Problem:
        """Return the verified content of ``entry``, or what is wrong with it."""
        try:
            data = self.path(entry.sha256).read_bytes()
        except OSError as error:
            return _unreadable(entry, error)
        return _compare(entry, len(data), sha256_bytes(data)) or data

    def place(self, staged: Path, entry: FileEntry) -> None:
        """Move a staged file to its address, unless its content is there already and sound."""
        if self.inspect(entry) is None:
            return
        target = self.path(entry.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
        for folder in (target.parent, self._folder, self._folder.parent):
            sync_folder(folder)


def stage(content: bytes | Path | Iterable[bytes], target: Path) -> tuple[str, int]:
    """Copy ``content`` to the new file ``target``, down to the disk; return its hash and size.

    Args:
        content: bytes, a file, or blocks of bytes.
        target: in a folder of the writer.

    Raises:
        UsageError: ``content`` is a file that cannot be read.
        OSError: ``target`` cannot be written.
    """
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as file:
        for block in _blocks(content):
            file.write(block)
            digest.update(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size


def _blocks(content: bytes | Path | Iterable[bytes]) -> Iterable[bytes]:
    if isinstance(content, bytes):
        return [content]
    return _read(content) if isinstance(content, Path) else content


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise UsageError(
            f"The file {path} cannot be read ({error.strerror}), so nothing was published; "
            "name a file that exists."
        ) from error


def _compare(entry: FileEntry, size: int, sha256: str) -> Problem | None:
    if size != entry.size:
        kind, expected, actual = "wrong size", f"{entry.size} bytes", f"{size} bytes"
    elif sha256 != entry.sha256:
        kind, expected, actual = "wrong hash", entry.sha256, sha256
    else:
        return None
    return Problem(path=entry.path, kind=kind, expected=expected, actual=actual)


def _unreadable(entry: FileEntry, error: OSError) -> Problem:
    # Only a file that is not there is damage: a full file table or a permission can pass.
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
    return Problem(
        path=entry.path,
        kind="missing" if gone else "unreadable",
        expected=f"{entry.size} bytes with SHA-256 {entry.sha256}",
        actual="no file" if gone else str(error.strerror),
    )
