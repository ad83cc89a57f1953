"""The steps that every write of a store is made of; each leaves a store that is whole.

Not for callers: :class:`model_store.Store` puts them together.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from model_store import signing
from model_store.aliases import Step
from model_store.errors import EnvironmentMissing, ManifestInvalid
from model_store.files import sync_folder, write_json
from model_store.locking import exclusive
from model_store.manifest import Manifest
from model_store.reader import StoreReader
from model_store.schema import utc

__all__ = ["StoreWriter"]


class StoreWriter(StoreReader):
    """The one writer at a time; the first write makes the folder.

    Args:
        root: the folder.
        trusted_keys: a file of public keys; what none of them has signed is neither taken nor read.
        signing_key: a private key that signs what is published here.
        clock: Unix time in seconds, for ``created`` and the histories.
        lock_timeout_s: how long a write waits for another writer.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        trusted_keys: Path | str | None = None,
        signing_key: Path | str | None = None,
        clock: Callable[[], float] = time.time,
        lock_timeout_s: float = 10.0,
    ) -> None:
        super().__init__(root, trusted_keys=trusted_keys)
        self._signing_key = None if signing_key is None else Path(signing_key)
        self._clock = clock
        self._lock_timeout_s = lock_timeout_s
        self._warned: set[str] = set()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with exclusive(self.root / ".lock", timeout_s=self._lock_timeout_s):
                yield
        except OSError as error:
            raise EnvironmentMissing(
                f"The store {self.root} cannot be written ({error.strerror or error}); "
                "name a folder that this user may write."
            ) from error

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        staging = self.root / "staging"
        shutil.rmtree(staging, ignore_errors=True)  # of a writer that was killed: we hold the lock
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _signed(self, manifest: Manifest) -> tuple[signing.Signature, ...]:
        key = self._signing_key
        signatures = () if key is None else (signing.sign(manifest, key),)
        if self._trust is not None:
            self._trust.check(manifest, signatures)
        return signatures

    def _reveal(
        self, manifest: Manifest, signatures: Sequence[signing.Signature], staging: Path
    ) -> Manifest:
        """Make a version visible whose contents are in place; return the one that is there."""
        folder = self._agents / manifest.id
        if folder.exists():
            agent, problems = self._examine(manifest.id, trusting=True)
            if agent and not problems:
                self._add_signatures(manifest.id, signatures)
                os.utime(folder / "manifest.json")  # it arrived again: see garbage
                return agent.manifest
            self._quarantine(manifest.id)
        write_json(staging / "agent" / "manifest.json", manifest.to_json())
        if signatures:
            write_json(staging / "agent" / "signature.json", signing.to_json(signatures))
        self._agents.mkdir(exist_ok=True)
        (staging / "agent").rename(folder)
        sync_folder(self._agents)
        sync_folder(self.root)
        return manifest

    def _add_signatures(self, name: str, signatures: Sequence[signing.Signature]) -> None:
        there: tuple[signing.Signature, ...] = ()
        with contextlib.suppress(ManifestInvalid):  # damaged: what is known is written anew
            there = self._signatures(name)
        if not set(signatures) <= set(there):
            document = signing.to_json((*signatures, *there))
            write_json(self._agents / name / "signature.json", document)

    def _point(self, alias: str, name: str, reason: str) -> None:
        steps = self._aliases.read_or_forget(alias)
        if not steps or steps[-1].id != name:
            step = Step(id=name, at=utc(self._clock()), reason=reason)
            self._aliases.write(alias, (*steps, step))

    def _quarantine_if_damaged(self, name: str) -> None:
        # Looked at again: before we had the lock, another may have moved or repaired it.
        _, problems = self._examine(name)
        if (self._agents / name).exists() and any(problem.is_damage for problem in problems):
            self._quarantine(name)

    def _quarantine(self, name: str) -> None:
        """Move a version and its damaged contents out of the way, in place of an older such."""
        agent, _ = self._examine(name, trusting=True)
        target = self.root / "quarantine" / name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        (self._agents / name).rename(target)
        sync_folder(self._agents)
        for entry in agent.manifest.files if agent else ():
            problem = self._blobs.inspect(entry)
            if problem is not None and problem.is_damage and problem.kind != "missing":
                self._blobs.path(entry.sha256).rename(target / entry.sha256)
