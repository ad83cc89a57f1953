"""Agents at rest: a folder of immutable versions, contents by hash, and movable aliases.

    ROOT/agents/ID/manifest.json      a version; it appears by one rename and never changes
    ROOT/blobs/sha256/xx/HASH         contents, shared by versions
    ROOT/aliases/NAME.json            where a name points, and the way back
    ROOT/agents/ID/signature.json     who vouches for it, if anybody does
    ROOT/quarantine/ID/               a version that failed verification, kept for inspection
    ROOT/trash/SECONDS.ID/            a version that no alias needs, before it is removed
    ROOT/staging/, ROOT/.lock         of the one writer; whatever a killed writer left is swept

Readers take no lock.

    store = Store("agents")
    manifest = store.publish(draft, {"engine.onnx": ("engine", model)}, aliases=["current"])
    agent, given_up = store.load_healthy("current")
    agent.file("engine")
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from model_store import signing
from model_store.agent import StoredAgent, check_model
from model_store.aliases import check_alias
from model_store.blobs import Problem, stage
from model_store.bundle import open_bundle
from model_store.compat import OPSET
from model_store.errors import CorruptAgent, EnvironmentMissing, StoreError
from model_store.garbage import GRACE_S, KEEP, Garbage, survey, sweep
from model_store.incoming import Incoming
from model_store.manifest import Draft, FileEntry, Manifest
from model_store.schema import utc
from model_store.writer import StoreWriter

__all__ = ["Store"]

_logger = logging.getLogger(__name__)


class Store(StoreWriter):
    """A model store in a folder; for its arguments see ``StoreWriter``."""

    def publish(
        self,
        draft: Draft,
        files: Mapping[str, tuple[str, bytes | Path]],
        *,
        aliases: Sequence[str] = (),
    ) -> Manifest:
        """Add an agent, all of it or nothing, then point ``aliases`` to it.

        Publishing the same content again returns what is there, and repairs damaged files of it.

        Args:
            draft: what the agent is; of a manifest, only what a draft has counts.
            files: path within the agent to its role and its content, or the file to copy.
            aliases: names that are moved to the agent.

        Raises:
            ManifestInvalid: a path or a role cannot be used.
            UnsafeModel: an engine or a probe is an ONNX file that no session may be made of.
            UsageError: an alias cannot be used, or a file cannot be read.
            Untrusted: there are trusted keys, and none of them signs here.
            EnvironmentMissing: the store cannot be written.
        """
        sources = list(files.items())
        for path, (role, _) in sources:
            FileEntry(path=path, role=role, sha256="0" * 64, size=0)
        for alias in aliases:
            check_alias(alias)
        with self._writing(), self._staging() as staging:
            entries, opsets = [], []
            for number, (path, (role, content)) in enumerate(sources):
                sha256, size = stage(content, staging / str(number))
                summary = check_model(draft, role, staging / str(number))
                opsets += [summary.opset] if summary else []
                entries.append(FileEntry(path=path, role=role, sha256=sha256, size=size))
            if opsets:  # measured, for ``compat``
                versions = {**draft.versions, OPSET: str(max(opsets))}
                draft = replace(draft, versions=versions)
            manifest = draft.complete(created=utc(self._clock()), files=entries)
            signatures = self._signed(manifest)
            for number, entry in enumerate(entries):
                self._blobs.place(staging / str(number), entry)
            manifest = self._reveal(manifest, signatures, staging)
            for alias in aliases:
                self._point(alias, manifest.id, "published")
        return manifest

    def admit(self, incoming: Incoming, *, aliases: Sequence[str] = ()) -> Manifest:
        """Take an agent from elsewhere, all of it or nothing, then point ``aliases`` to it.

        Only contents that are not here are read from its source, and each is compared with its
        manifest before anything becomes visible.

        Raises:
            CorruptAgent: a content is not what the manifest says.
            UnsafeModel: an engine or a probe is one that no session may be made of.
            Untrusted: there are trusted keys, and none of them has signed it.
            UsageError: an alias cannot be used.
            EnvironmentMissing: the store cannot be written.
        """
        manifest = incoming.manifest
        for alias in aliases:
            check_alias(alias)
        if self._trust is not None:
            self._trust.check(manifest, incoming.signatures)
        with self._writing(), self._staging() as staging:
            contents = {entry.sha256: entry for entry in manifest.files}
            for sha256, entry in contents.items():
                if self._blobs.inspect(entry) is not None:
                    _fetch(incoming, entry, staging / sha256)
            for entry in manifest.files:
                staged = staging / entry.sha256
                check_model(
                    manifest,
                    entry.role,
                    staged if staged.exists() else self._blobs.path(entry.sha256),
                )
            for sha256, entry in contents.items():
                if (staging / sha256).exists():
                    self._blobs.place(staging / sha256, entry)
            manifest = self._reveal(manifest, incoming.signatures, staging)
            for alias in aliases:
                self._point(alias, manifest.id, f"from {incoming.origin}")
        return manifest

    def unpack(self, path: Path | str, *, aliases: Sequence[str] = ()) -> Manifest:
        """Take the agent of a bundle, see ``bundle``; a bundle that is refused changes nothing.

        Raises:
            UsageError: the file cannot be read, or an alias cannot be used.
            BundleInvalid, CorruptAgent, ManifestInvalid, SchemaTooNew, UnsafeModel, Untrusted: it
                is refused, and why.
            EnvironmentMissing: the store cannot be written.
        """
        return self.admit(open_bundle(Path(path)), aliases=aliases)

    def sign(self, reference: str, key: Path | str) -> signing.Signature:
        """Add a signature to an agent that is here, trusted or not, and return it."""
        with self._writing():
            name = self.resolve(reference)
            signature = signing.sign(self._unchecked(name), Path(key))
            self._add_signatures(name, (signature,))
        return signature

    def promote(self, reference: str, alias: str = "current", reason: str = "") -> str:
        """Point ``alias`` to an agent and return the agent's id."""
        check_alias(alias)
        with self._writing():
            name = self.resolve(reference)
            if self._trust is not None:
                self._manifest(name)
            self._point(alias, name, reason)
        return name

    def rollback(self, alias: str = "current") -> str:
        """Point ``alias`` to the agent that it pointed to before, and return that agent's id.

        Raises:
            AgentNotFound: there is no such alias.
            StoreError: no earlier agent of its history is in the store.
        """
        with self._writing():
            steps, ids = self.history(alias), self.ids()
            earlier = list(steps)
            while earlier and (earlier[-1].id == steps[-1].id or earlier[-1].id not in ids):
                earlier.pop()
            if not earlier:
                raise StoreError(
                    f"The alias {alias!r} has nothing to roll back to: no agent before "
                    f"{steps[-1].id} is in its history and in the store; promote one instead."
                )
            self._aliases.write(alias, earlier)
        _logger.info("rolled_back alias=%s from=%s to=%s", alias, steps[-1].id, earlier[-1].id)
        return earlier[-1].id

    def gc(self, *, keep: int = KEEP, grace_s: float = GRACE_S, dry_run: bool = False) -> Garbage:
        """Remove what no alias needs, see ``garbage``.

        Args:
            keep: steps of each alias's history whose agents stay.
            grace_s: how long new agents stay in any case, and retired ones can still be read.
            dry_run: only say what would be done; needs neither the lock nor a writable store.

        Raises:
            UsageError: ``keep`` or ``grace_s`` is too small.
            StoreError: an alias cannot be read, so nobody knows what it needs.
            EnvironmentMissing: the store cannot be written.
        """
        if dry_run:
            return self._survey(keep, grace_s)
        with self._writing(), self._staging():
            now = self._clock()
            garbage = survey(self, now=now, keep=keep, grace_s=grace_s)
            sweep(self.root, garbage, now=now, grace_s=grace_s)
        _logger.info(
            "collected retired=%d removed=%d freed_bytes=%d",
            *(len(garbage.retired), len(garbage.removed), garbage.freed_bytes),
        )
        return garbage

    def _survey(self, keep: int, grace_s: float) -> Garbage:
        try:
            return survey(self, now=self._clock(), keep=keep, grace_s=grace_s)
        except OSError as error:
            raise EnvironmentMissing(
                f"The store {self.root} cannot be read, or a writer is changing it "
                f"({error.strerror}); look again."
            ) from error

    def load_healthy(self, alias: str = "current") -> tuple[StoredAgent, tuple[str, ...]]:
        """Load what ``alias`` points to, or the latest agent of its history that is whole.

        Every file is verified first. A damaged agent is moved to the quarantine, and the alias
        back; in a store that cannot be written, both stay, and the previous agent is used.

        Returns:
            The agent, and the ids that were given up for it, newest first; empty is normal.

        Raises:
            AgentNotFound: there is no such alias.
            CorruptAgent: no agent of its history is whole.
        """
        given_up: dict[str, Problem] = {}
        for name in dict.fromkeys(step.id for step in reversed(self.history(alias))):
            agent, problems = self._examine(name)
            if agent and not problems:
                if given_up:
                    self._retire(alias, given_up)
                return agent, tuple(given_up)
            given_up[name] = problems[0]
        self._retire(alias, given_up)
        listed = "; ".join(f"{name}: {problem}" for name, problem in given_up.items())
        raise CorruptAgent(f"No agent of the alias {alias!r} is whole ({listed}); publish one.")

    def _retire(self, alias: str, given_up: Mapping[str, Problem]) -> None:
        """Quarantine what is damaged and move the alias back; the caller has an agent already."""
        for name, problem in given_up.items():
            if name not in self._warned:
                self._warned.add(name)
                _logger.warning("agent_given_up alias=%s id=%s problem=%s", alias, name, problem)
        try:
            with self._writing():
                for name in given_up:
                    self._quarantine_if_damaged(name)
                steps, ids = self._aliases.read(alias), self.ids()
                whole = list(steps)
                while whole and whole[-1].id not in ids:
                    whole.pop()
                if whole and len(whole) < len(steps):
                    self._aliases.write(alias, whole)
        except (EnvironmentMissing, StoreError) as error:
            _logger.info("quarantine_skipped alias=%s reason=%r", alias, str(error))


def _fetch(incoming: Incoming, entry: FileEntry, target: Path) -> None:
    """Copy a content from elsewhere into the staging folder and compare it with the manifest."""
    sha256, size = stage(incoming.blocks(entry), target)
    if (sha256, size) != (entry.sha256, entry.size):
        raise CorruptAgent(
            f"The file {entry.path} of agent {incoming.manifest.id} from {incoming.origin} is "
            f"damaged: expected {entry.size} bytes with SHA-256 {entry.sha256}, actual {size} "
            f"bytes with {sha256}; nothing was kept. Fetch it again."
        )
