"""Stores elsewhere, through fsspec: the layout of a store is the protocol.

Any folder that is laid out as a store can be pulled from: behind a plain HTTP server, in a bucket,
on a share. Nothing is listed, so a server without listings will do; names are aliases and full ids.
What is pulled is verified before it is used and appears in the local store by one rename; contents
that are here already do not travel. Pushing writes contents first, then the manifest, then
aliases, each under a temporary name that is then renamed; there is no lock, so one pusher per
alias. Needs the extra ``remote``, and for other protocols their fsspec plug-in.

    pull("https://fleet.example/agents", "current", store, aliases=["current"])
    push(store, "current", "s3://bucket/agents", aliases=["current"])
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from model_store import signing
from model_store.aliases import SCHEMA as ALIAS
from model_store.aliases import Step, check_alias, is_alias, steps_from_json, steps_to_json
from model_store.errors import (
    AgentNotFound,
    BackendError,
    CorruptAgent,
    EnvironmentMissing,
    UsageError,
)
from model_store.files import to_json
from model_store.incoming import Incoming, receive
from model_store.manifest import ID, FileEntry, Manifest
from model_store.schema import MAX_BYTES, parse_document, utc

if TYPE_CHECKING:
    from model_store.reader import StoreReader
    from model_store.store import Store

__all__ = ["Remote", "pull", "push"]

_BLOCK = 1 << 20
#: Seconds to connect, between two pieces of an answer, and for one file in all.
_CONNECT_S, _SILENCE_S, _TOTAL_S = 10.0, 30.0, 1800.0


def pull(
    url: str,
    reference: str,
    store: Store,
    *,
    aliases: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Manifest:
    """Take an agent from a store elsewhere into ``store`` and point ``aliases`` to it.

    Args:
        url: of the store's folder, in any protocol that fsspec knows.
        reference: an alias there, or a full id.
        store: the local store.
        aliases: names that are moved to the agent here.
        options: for fsspec's file system, such as credentials.

    Raises:
        AgentNotFound: there is no such agent.
        CorruptAgent, ManifestInvalid, SchemaTooNew, UnsafeModel, Untrusted: it is refused, and why.
        BackendError: the way to the other store failed.
        EnvironmentMissing: the extra ``remote`` is not installed, or ``store`` cannot be written.
    """
    for alias in aliases:
        check_alias(alias)
    return store.admit(Remote(url, options).offer(reference), aliases=aliases)


def push(
    store: StoreReader,
    reference: str,
    url: str,
    *,
    aliases: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
) -> Manifest:
    """Copy an agent into a store elsewhere and point ``aliases`` there to it.

    Raises:
        CorruptAgent: a file of the agent is damaged.
        BackendError: the other store cannot be written.
        EnvironmentMissing: the extra ``remote`` is not installed.
    """
    for alias in aliases:
        check_alias(alias)
    agent, remote = store.load(reference), Remote(url, options)
    for entry in agent.manifest.files:
        if remote.size(_blob(entry.sha256)) != entry.size:
            remote.write(_blob(entry.sha256), agent.read(entry.path))
    signatures = store.signatures(agent.id)
    if signatures:
        remote.write_json(f"agents/{agent.id}/signature.json", signing.to_json(signatures))
    remote.write_json(f"agents/{agent.id}/manifest.json", agent.manifest.to_json())
    for alias in aliases:
        remote.point(alias, agent.id, utc(clock()))
    return agent.manifest


class Remote:
    """A store's folder behind fsspec.

    Args:
        url: of the folder.
        options: for fsspec's file system.

    Raises:
        EnvironmentMissing: the extra ``remote``, or a plug-in for the protocol, is not installed.
        UsageError: fsspec does not know the protocol.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.shown = _shown(url)
        self._http = url.partition("://")[0] in ("http", "https")
        try:
            import fsspec  # 100 ms, and an extra

            given = _http_options() if self._http else {}
            self._fs, path = fsspec.core.url_to_fs(url, **given | dict(options or {}))
            self._fs.invalidate_cache()  # somebody else may have written there
        except ImportError as error:
            raise EnvironmentMissing(
                f"The store {self.shown} needs a package that is not installed ({error}); run "
                "`pip install 'adacompress[remote]'`, and the protocol's fsspec plug-in."
            ) from error
        except ValueError as error:
            raise UsageError(f"The address {self.shown} cannot be used: {error}") from error
        self._path = str(path).rstrip("/")
        self._unlisted = f"what is at {self.shown}, not listed here: give an alias or a full id"

    def offer(self, reference: str) -> Incoming:
        """Return the agent that an alias or a full id stands for, its contents still there."""
        name = reference if ID.fullmatch(reference) else self._target(reference)
        manifest = self.read(f"agents/{name}/manifest.json")
        if manifest is None:
            raise AgentNotFound(reference, [self._unlisted])
        signatures = self.read(f"agents/{name}/signature.json")
        return receive(name, manifest, signatures, self._contents, self.shown)

    def read(self, path: str) -> bytes | None:
        """Return a small file, or None if there is none."""
        try:
            with self._talking(path), self._open(path) as file:
                data = b""
                while len(data) <= MAX_BYTES and (block := file.read(_BLOCK)):
                    data += block  # a stream gives what has come, not what was asked for
                return data
        except FileNotFoundError:
            return None

    def size(self, path: str) -> int | None:
        """Return the size of a file, or None if there is none."""
        try:
            with self._talking(path):
                return int(self._fs.info(self._at(path))["size"])
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Write a file that appears as a whole where the file system renames."""
        folder, _, name = self._at(path).rpartition("/")
        temporary = f"{folder}/.{name}.{secrets.token_hex(8)}"
        with self._talking(path, reading=False):
            self._fs.makedirs(folder, exist_ok=True)
            try:
                self._fs.pipe_file(temporary, data)
                self._fs.mv(temporary, f"{folder}/{name}")
            except BaseException:
                with contextlib.suppress(Exception):  # the first failure is the one to tell
                    self._fs.rm_file(temporary)
                raise

    def write_json(self, path: str, document: Mapping[str, Any]) -> None:
        """Write a JSON document."""
        self.write(path, to_json(document).encode())

    def point(self, alias: str, name: str, at: str) -> None:
        """Move an alias there; its history is kept."""
        steps = self._steps(alias)
        if not steps or steps[-1].id != name:
            moved = (*steps, Step(id=name, at=at, reason="pushed"))
            self.write_json(_alias(alias), steps_to_json(moved))

    def _target(self, alias: str) -> str:
        steps = self._steps(alias) if is_alias(alias) else ()
        if not steps:
            raise AgentNotFound(alias, [self._unlisted])
        return steps[-1].id

    def _steps(self, alias: str) -> tuple[Step, ...]:
        data = self.read(_alias(alias))
        what = f"The alias {alias!r} at {self.shown}"
        return () if data is None else steps_from_json(parse_document(data, ALIAS, what))

    def _contents(self, entry: FileEntry) -> Iterator[bytes]:
        try:
            with self._talking(entry.path), self._open(_blob(entry.sha256)) as file:
                while block := file.read(_BLOCK):
                    yield bytes(block)
        except FileNotFoundError as error:
            raise CorruptAgent(
                f"The content of {entry.path} is not at {self.shown}; nothing was kept. Push the "
                "agent there again."
            ) from error

    def _open(self, path: str) -> Any:
        # In one stream: ranges would need a server that has them, and a request per block. A size
        # that is given is not asked for, and asking calls every failure a file that is missing.
        whole: dict[str, Any] = {"block_size": 0, "size": 1} if self._http else {}
        return self._fs.open(self._at(path), "rb", **whole)

    def _at(self, path: str) -> str:
        return f"{self._path}/{path}"

    @contextlib.contextmanager
    def _talking(self, path: str, *, reading: bool = True) -> Iterator[None]:
        """Turn what file systems raise, each its own classes, into one error.

        That nothing is there is the reader's to judge, so it passes.
        """
        try:
            yield
        except Exception as error:
            if reading and isinstance(error, FileNotFoundError):
                raise
            raise BackendError(
                f"The store {self.shown} failed at {path} ({_reason(error)}); nothing was changed "
                "here. Look whether it can be reached and may be used, and try again."
            ) from error


def _blob(sha256: str) -> str:
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def _alias(alias: str) -> str:
    return f"aliases/{alias}.json"


def _shown(url: str) -> str:
    """Return an address without what may be a secret: a user, a password, a signed query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _reason(error: Exception) -> str:
    """Say what went wrong without the error's own text, which may hold the whole address."""
    told = [str(getattr(error, name, None) or "") for name in ("status", "strerror")]
    return " ".join([type(error).__name__, *filter(None, told)])


def _http_options() -> dict[str, Any]:
    import aiohttp  # comes with the extra; fsspec's own limit is for all of a file alone

    limits = aiohttp.ClientTimeout(
        total=_TOTAL_S, sock_connect=_CONNECT_S, sock_read=_SILENCE_S, connect=_CONNECT_S
    )
    return {"client_kwargs": {"timeout": limits}}
