"""Who vouches for an agent: Ed25519 signatures beside its manifest, and a file of trusted keys.

A signature covers what the id covers, which is everything but the id itself and the time of the
first publication, and so the full SHA-256 of every file. It is made of the canonical JSON, not of
the file's bytes. Needs the extra ``signing``; nothing here is imported without being asked for.

    make_key(Path("fleet.pem"))  # and fleet.pem.pub, a line for the file of trusted keys
    signature = sign(manifest, Path("fleet.pem"))
    Trust.load(Path("trusted.keys")).check(manifest, [signature])
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from model_store import schema
from model_store.errors import EnvironmentMissing, Untrusted, UsageError
from model_store.files import write_atomic
from model_store.manifest import Manifest, signed_content

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["SCHEMA", "Signature", "Trust", "from_json", "make_key", "sign", "to_json"]

SCHEMA = "adacompress.signature/1"

#: More than an agent has in good faith; what is checked is bounded by it.
MAX_SIGNATURES = 16

_KEY_LINE = re.compile(r"ed25519 ([0-9a-f]{64})(?:\s.*)?")
_DOCUMENT = schema.record(
    signatures=schema.array(
        schema.record(
            key=schema.matching(re.compile(r"[0-9a-f]{64}"), "a public key as 64 hex digits"),
            signature=schema.matching(re.compile(r"[0-9a-f]{128}"), "128 hex digits"),
        )
    )
)


@dataclass(frozen=True, order=True)
class Signature:
    """One key's signature.

    Attributes:
        key: the public key, 64 hex digits.
        signature: 128 hex digits.
    """

    key: str
    signature: str


def to_json(signatures: Iterable[Signature]) -> dict[str, Any]:
    """Return a JSON-ready document; the inverse is :func:`from_json`."""
    listed = [asdict(one) for one in sorted(set(signatures))[:MAX_SIGNATURES]]
    return {"schema": SCHEMA, "signatures": listed}


def from_json(document: Mapping[str, Any]) -> tuple[Signature, ...]:
    """Read the signatures of an agent.

    Raises:
        SchemaTooNew: the document is of a later major version.
        ManifestInvalid: it is not of its form.
    """
    schema.check_schema(document, SCHEMA)
    _DOCUMENT(document, "")
    listed = document["signatures"][:MAX_SIGNATURES]
    return tuple(Signature(key=one["key"], signature=one["signature"]) for one in listed)


def make_key(path: Path) -> str:
    """Write a new private key, for the owner's eyes only, and ``path``.pub; return the public key.

    Raises:
        UsageError: there is a file already.
        EnvironmentMissing: the extra ``signing`` is not installed, or the folder is not writable.
    """
    from cryptography.hazmat.primitives import serialization as form

    key = _algorithm().Ed25519PrivateKey.generate()
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = str(key.public_key().public_bytes_raw().hex())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        write_atomic(path.with_name(f"{path.name}.pub"), f"ed25519 {public} {path.stem}\n".encode())
    except FileExistsError as error:
        raise UsageError(
            f"The file {path} exists; a key is never overwritten, name another file."
        ) from error
    except OSError as error:
        raise EnvironmentMissing(
            f"The key {path} cannot be written ({error.strerror}); name a folder that this user "
            "may write."
        ) from error
    return public


def sign(manifest: Manifest, private_key: Path) -> Signature:
    """Sign an agent with the private key in a PEM file, as :func:`make_key` writes it.

    Raises:
        UsageError: the file holds no such key.
        EnvironmentMissing: the extra ``signing`` is not installed.
    """
    key = _private(private_key)
    return Signature(
        key=key.public_key().public_bytes_raw().hex(), signature=key.sign(_message(manifest)).hex()
    )


@dataclass(frozen=True)
class Trust:
    """The public keys whose agents are accepted.

    Attributes:
        keys: 64 hex digits each.
        path: the file that they come from.
    """

    keys: frozenset[str]
    path: Path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of trusted keys: lines ``ed25519 HEX NAME``, and comments after ``#``.

        Raises:
            UsageError: the file cannot be read, has a line of another form, or no key.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(f"The file of trusted keys {path} cannot be read: {error}.") from error
        wanted = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        found = [_KEY_LINE.fullmatch(line) for line in wanted]
        if not found or not all(found):
            raise UsageError(
                f"The file of trusted keys {path} has a line of another form, or none; allowed are "
                "lines such as 'ed25519 0123…ef NAME', which `python -m model_store keygen` writes "
                "into a .pub file."
            )
        return cls(frozenset(match[1] for match in found if match), path)

    def check(self, manifest: Manifest, signatures: Sequence[Signature]) -> None:
        """Accept an agent that one of the keys has signed.

        Raises:
            Untrusted: none of them has.
            EnvironmentMissing: the extra ``signing`` is not installed.
        """
        known = [one for one in signatures if one.key in self.keys]
        if any(_holds(one, _message(manifest)) for one in known):
            return
        if known:
            seen = f"its signature by {known[0].key[:12]}… is of another content"
        elif signatures:
            listed = ", ".join(f"{one.key[:12]}…" for one in signatures)
            seen = f"it is signed by {listed} alone"
        else:
            seen = "it is not signed"
        raise Untrusted(
            f"Agent {manifest.id} is not trusted: {seen}; allowed is a signature by one of the "
            f"{len(self.keys)} key(s) in {self.path}. Have it signed, or add its key."
        )


def _message(manifest: Manifest) -> bytes:
    # With the schema in front, so that no other document can pass for a manifest.
    return SCHEMA.encode() + b"\n" + signed_content(manifest.to_json())


def _holds(signature: Signature, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key = _algorithm().Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.key))
        key.verify(bytes.fromhex(signature.signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _private(path: Path) -> Ed25519PrivateKey:
    kind: type[Ed25519PrivateKey] = _algorithm().Ed25519PrivateKey
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"The private key {path} cannot be read: {error}.") from error
    if not isinstance(key, kind):
        raise UsageError(f"The private key {path} is no Ed25519 key; make one with `keygen`.")
    return key


def _algorithm() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise EnvironmentMissing(
            "Signatures need the package cryptography; run `pip install 'adacompress[signing]'`."
        ) from error
    return ed25519
