"""An agent from elsewhere, before it is in the store: checked as far as that needs no disk.

Bundles (``bundle``) and remote stores (``remote``) both deliver one; ``Store.admit`` takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from model_store import signing
from model_store.errors import CorruptAgent, ManifestInvalid
from model_store.manifest import SCHEMA, FileEntry, Manifest, checked
from model_store.schema import parse_document

__all__ = ["MAX_BYTES", "MAX_FILES", "Incoming", "receive"]

#: All files of one agent; a fleet's agents have 20 MB.
MAX_BYTES = 2 << 30
#: Files of one agent; ours have four.
MAX_FILES = 1000


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A manifest that is valid by itself, and a way to its contents, which nobody vouches for yet.

    Attributes:
        manifest: what the agent says it is.
        signatures: that came with it, unchecked.
        source: yields the content of a file in blocks; whatever it yields is hashed.
        origin: where it comes from, for the history of aliases.
    """

    manifest: Manifest
    signatures: tuple[signing.Signature, ...]
    source: Callable[[FileEntry], Iterable[bytes]]
    origin: str

    def blocks(self, entry: FileEntry) -> Iterator[bytes]:
        """Yield the content of a file, and no more than was announced.

        Raises:
            CorruptAgent: the source yields more.
        """
        left = entry.size
        for block in self.source(entry):
            left -= len(block)
            if left < 0:
                raise CorruptAgent(
                    f"The file {entry.path} of agent {self.manifest.id} from {self.origin} has "
                    f"more than the {entry.size} bytes that its manifest says; nothing was kept."
                )
            yield block


def receive(
    name: str,
    manifest: bytes,
    signatures: bytes | None,
    source: Callable[[FileEntry], Iterable[bytes]],
    origin: str,
) -> Incoming:
    """Check the documents of agent ``name`` and return it, ready to be admitted.

    Raises:
        ManifestInvalid: a document is not of its form, or announces too much.
        SchemaTooNew: a document is of a later major version.
        CorruptAgent: the manifest is not that of agent ``name``.
    """
    document = parse_document(manifest, SCHEMA, f"The manifest of agent {name} from {origin}")
    read = checked(document, name)
    _check_amount(read)
    signed: tuple[signing.Signature, ...] = ()
    if signatures is not None:
        what = f"The signature of agent {name} from {origin}"
        signed = signing.from_json(parse_document(signatures, signing.SCHEMA, what))
    return Incoming(manifest=read, signatures=signed, source=source, origin=origin)


def _check_amount(manifest: Manifest) -> None:
    total = sum(entry.size for entry in manifest.files)
    if len(manifest.files) > MAX_FILES or total > MAX_BYTES:
        raise ManifestInvalid(
            f"Agent {manifest.id} announces {len(manifest.files)} files of {total} bytes; allowed "
            f"are {MAX_FILES} files of {MAX_BYTES} bytes in all."
        )
    sizes = {entry.sha256: entry.size for entry in manifest.files}
    for entry in manifest.files:
        if sizes[entry.sha256] != entry.size:
            raise ManifestInvalid(
                f"Agent {manifest.id} announces two sizes for the content {entry.sha256}."
            )
