"""One agent as one file: a ZIP archive that holds what its folder in a store would hold.

    agents/ID/manifest.json      first
    agents/ID/signature.json     if the agent is signed
    blobs/sha256/xx/HASH         its contents, by hash

ZIP, because everybody can open it: unzipped, a bundle is a store that can be read. Stored, because
weights do not compress, and what is not compressed cannot be a bomb. Only archives that are byte
for byte as :func:`pack` writes them are read: entry after entry from the front, nothing between
them, and the directory at the end must be the one that follows from them. So there is one way to
read a bundle, and links, absolute paths, duplicates, overlaps, comments, encryption and hidden
entries have no place in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from model_store.agent import StoredAgent, check_model, is_model
from model_store.errors import BundleInvalid, CorruptAgent, EnvironmentMissing, UsageError
from model_store.files import to_json, write_atomic_from
from model_store.incoming import Incoming, receive
from model_store.manifest import ID, FileEntry
from model_store.schema import MAX_BYTES as MAX_DOCUMENT
from model_store.signing import Signature
from model_store.signing import to_json as signatures_to_json

__all__ = ["open_bundle", "pack"]

_BLOCK = 1 << 20
#: ZIP's 32-bit fields; larger archives have another form, which is not read here.
_MAX_ARCHIVE = (1 << 32) - 2
_MAX_ENTRIES = 1002

# PKWARE's APPNOTE 6.3: local header, directory entry, end of directory. Version 2.0, stored, no
# flags, 1980-01-01, made on Unix, an ordinary file that everybody may read.
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _FLAGS, _STORED, _TIME, _DATE = 20, 0, 0, 0, 1 << 5 | 1
_MADE_BY, _MODE = 3 << 8 | _VERSION, 0o100644 << 16

_MANIFEST = re.compile(rf"agents/({ID.pattern})/manifest\.json")


@dataclass(frozen=True)
class _Entry:
    name: bytes
    crc: int
    size: int
    offset: int

    @property
    def start(self) -> int:
        return self.offset + _LOCAL.size + len(self.name)

    def local(self) -> bytes:
        kind = (_VERSION, _FLAGS, _STORED, _TIME, _DATE)
        sizes = (self.crc, self.size, self.size, len(self.name), 0)
        return _LOCAL.pack(b"PK\3\4", *kind, *sizes) + self.name

    def central(self) -> bytes:
        kind = (_MADE_BY, _VERSION, _FLAGS, _STORED, _TIME, _DATE)
        sizes = (self.crc, self.size, self.size, len(self.name), 0, 0, 0, 0)
        return _CENTRAL.pack(b"PK\1\2", *kind, *sizes, _MODE, self.offset) + self.name


def _directory(entries: Sequence[_Entry]) -> bytes:
    """Return what stands behind the entries."""
    listed = b"".join(entry.central() for entry in entries)
    end = entries[-1].start + entries[-1].size
    count = len(entries)
    return listed + _END.pack(b"PK\5\6", 0, 0, count, count, len(listed), end, 0)


def pack(agent: StoredAgent, signatures: Sequence[Signature], path: Path) -> None:
    """Write an agent into one file; the same agent makes the same bytes.

    Raises:
        CorruptAgent: a content is missing or is not what the manifest says.
        UnsafeModel: an engine is one that no session may be made of.
        EnvironmentMissing: the file cannot be written.
    """
    try:
        write_atomic_from(path, _archive(_parts(agent, signatures)))
    except OSError as error:
        raise EnvironmentMissing(
            f"The bundle {path} cannot be written ({error.strerror}); name a file in a folder that "
            "this user may write."
        ) from error


def _parts(agent: StoredAgent, signatures: Sequence[Signature]) -> Iterator[tuple[str, bytes]]:
    folder = f"agents/{agent.id}"
    yield f"{folder}/manifest.json", to_json(agent.manifest.to_json()).encode()
    if signatures:
        yield f"{folder}/signature.json", to_json(signatures_to_json(signatures)).encode()
    contents = {entry.sha256: entry.path for entry in agent.manifest.files}
    for sha256 in sorted(contents):
        yield _blob_name(sha256), agent.read(contents[sha256])


def _archive(parts: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    entries: list[_Entry] = []
    for name, content in parts:
        offset = entries[-1].start + entries[-1].size if entries else 0
        entries.append(_Entry(name.encode(), zlib.crc32(content), len(content), offset))
        if entries[-1].start + len(content) > _MAX_ARCHIVE:
            raise BundleInvalid(f"The agent is larger than {_MAX_ARCHIVE} bytes; copy its store.")
        yield entries[-1].local()
        yield content
    yield _directory(entries)


def _blob_name(sha256: str) -> str:
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def open_bundle(path: Path) -> Incoming:
    """Read a bundle from front to end, verify all of it, and write nothing.

    Raises:
        UsageError: the file cannot be read.
        BundleInvalid: it is not an archive as :func:`pack` writes it.
        CorruptAgent: a content is not what the manifest says.
        ManifestInvalid, SchemaTooNew, UnsafeModel: as when an agent is read from a store.
    """
    try:
        with path.open("rb") as file:
            incoming = _read(file, path)
    except OSError as error:
        raise UsageError(f"The bundle {path} cannot be read ({error.strerror}).") from error
    for entry in incoming.manifest.files:
        if is_model(entry.role):
            check_model(incoming.manifest, entry.role, b"".join(incoming.blocks(entry)))
    return incoming


def _read(file: BinaryIO, path: Path) -> Incoming:
    scan = _Scan(file, path.name)
    first = scan.entry()
    match = _MANIFEST.fullmatch(first.name.decode("ascii", "replace"))
    if match is None:
        raise scan.refusal(f"begins with {first.name!r}, not with agents/ID/manifest.json")
    manifest = scan.document(first)
    signatures = None
    if scan.next_name() == f"agents/{match[1]}/signature.json".encode():
        signatures = scan.document(scan.entry())
    places: dict[str, int] = {}

    def source(entry: FileEntry) -> Iterator[bytes]:
        with path.open("rb") as again:
            again.seek(places[entry.sha256])
            yield from _blocks(again, entry.size)

    incoming = receive(match[1], manifest, signatures, source, path.name)
    contents = {entry.sha256: entry for entry in incoming.manifest.files}
    for sha256 in sorted(contents):
        entry = scan.entry()
        if entry.name != _blob_name(sha256).encode():
            raise scan.refusal(f"has the entry {entry.name[:99]!r} where {sha256} is due")
        scan.content(entry, contents[sha256])
        places[sha256] = entry.start
    scan.end()
    return incoming


class _Scan:
    """Walks over an archive once, from front to end."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._entries: list[_Entry] = []
        self._size = os.fstat(file.fileno()).st_size
        if self._size > _MAX_ARCHIVE:
            raise self.refusal(f"has {self._size} bytes, more than {_MAX_ARCHIVE}")

    def refusal(self, what: str) -> BundleInvalid:
        return BundleInvalid(
            f"The bundle {self._name} {what}; nothing of it was used. Allowed is a file as "
            "`python -m model_store pack` writes it."
        )

    def next_name(self) -> bytes:
        """Return the name of the entry that follows, without moving."""
        position = self._file.tell()
        header = self._file.read(_LOCAL.size)
        length = _LOCAL.unpack(header)[9] if len(header) == _LOCAL.size else 0
        name = self._file.read(length)
        self._file.seek(position)
        return name

    def entry(self) -> _Entry:
        """Read the header of the next entry, which must be as we write it."""
        offset, name = self._file.tell(), self.next_name()
        header = self._file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
            raise self.refusal(f"has no entry at byte {offset}")
        entry = _Entry(
            name, crc=_LOCAL.unpack(header)[6], size=_LOCAL.unpack(header)[7], offset=offset
        )
        if entry.local() != header + name:
            raise self.refusal(
                f"has the entry {name[:99]!r} in another form (compressed, encrypted, with extras)"
            )
        if entry.start + entry.size > self._size or len(self._entries) >= _MAX_ENTRIES:
            raise self.refusal(f"ends within the entry {name[:99]!r}")
        self._entries.append(entry)
        self._file.seek(entry.start)
        return entry

    def document(self, entry: _Entry) -> bytes:
        """Read a small entry."""
        if entry.size > MAX_DOCUMENT:
            raise self.refusal(
                f"has {entry.size} bytes in {entry.name!r}, more than {MAX_DOCUMENT}"
            )
        data = self._file.read(entry.size)
        if zlib.crc32(data) != entry.crc:
            raise self.refusal(f"has another content in {entry.name!r} than its checksum says")
        return data

    def content(self, entry: _Entry, wanted: FileEntry) -> None:
        """Read over a content and compare it with the manifest."""
        digest, crc = hashlib.sha256(), 0
        for block in _blocks(self._file, entry.size):
            digest.update(block)
            crc = zlib.crc32(block, crc)
        if entry.size != wanted.size or digest.hexdigest() != wanted.sha256:
            raise CorruptAgent(
                f"The bundle {self._name} is damaged: {wanted.path} has {entry.size} bytes with "
                f"SHA-256 {digest.hexdigest()}, expected {wanted.size} bytes with {wanted.sha256}; "
                "nothing of it was used. Fetch it again."
            )
        if crc != entry.crc:
            raise self.refusal(f"has another checksum for {wanted.path} than its content")

    def end(self) -> None:
        """Check that nothing but the one possible directory follows."""
        wanted = _directory(self._entries)
        if self._file.read(len(wanted) + 1) != wanted:
            raise self.refusal(
                "has another directory than its entries make (links, further entries, comments)"
            )


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        block = file.read(min(size, _BLOCK))
        if not block:
            return
        size -= len(block)
        yield block
