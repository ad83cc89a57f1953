"""Agents at rest: a folder of immutable versions, contents by hash, and movable aliases.

    ROOT/agents/ID/manifest.json      a version; it appears by one rename and never changes
    ROOT/blobs/sha256/xx/HASH         contents, shared by versions
    ROOT/aliases/NAME.json            where a name points, and the way back
    ROOT/quarantine/ID/               a version that failed verification, kept for inspection
    ROOT/staging/, ROOT/.lock         of the one writer; whatever a killed writer left is swept

Readers take no lock. Not here: removing versions nobody needs, and moving them between stores.

    store = Store("agents")
    manifest = store.publish(draft, {"engine.onnx": ("engine", model)}, aliases=["current"])
    agent, given_up = store.load_healthy("current")
    agent.file("engine")
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from model_store.agent import StoredAgent, check_model
from model_store.aliases import Step, check_alias
from model_store.blobs import Problem, stage
from model_store.errors import CorruptAgent, EnvironmentMissing, StoreError
from model_store.files import sync_folder, write_json
from model_store.locking import exclusive
from model_store.manifest import Draft, FileEntry, Manifest
from model_store.reader import StoreReader
from model_store.schema import utc

__all__ = ["Store"]

_logger = logging.getLogger(__name__)


class Store(StoreReader):
    """A model store in a folder, with one writer at a time; the first write makes the folder.

    Args:
        root: the folder.
        clock: Unix time in seconds, for ``created`` and the histories.
        lock_timeout_s: how long a write waits for another writer.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        clock: Callable[[], float] = time.time,
        lock_timeout_s: float = 10.0,
    ) -> None:
        super().__init__(root)
        self._clock = clock
        self._lock_timeout_s = lock_timeout_s
        self._warned: set[str] = set()

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
            EnvironmentMissing: the store cannot be written.
        """
        sources = list(files.items())
        for path, (role, _) in sources:
            FileEntry(path=path, role=role, sha256="0" * 64, size=0)
        for alias in aliases:
            check_alias(alias)
        with self._writing(), self._staging() as staging:
            entries = []
            for number, (path, (role, content)) in enumerate(sources):
                sha256, size = stage(content, staging / str(number))
                check_model(draft, role, staging / str(number))
                entries.append(FileEntry(path=path, role=role, sha256=sha256, size=size))
            manifest = draft.complete(created=utc(self._clock()), files=entries)
            for number, entry in enumerate(entries):
                self._blobs.place(staging / str(number), entry)
            manifest = self._reveal(manifest, staging)
            for alias in aliases:
                self._point(alias, manifest.id, "published")
        return manifest

    def promote(self, reference: str, alias: str = "current", reason: str = "") -> str:
        """Point ``alias`` to an agent and return the agent's id."""
        check_alias(alias)
        with self._writing():
            name = self.resolve(reference)
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

    def _reveal(self, manifest: Manifest, staging: Path) -> Manifest:
        """Make a version visible whose contents are in place; return the one that is there."""
        folder = self._agents / manifest.id
        if folder.exists():
            agent, problems = self._examine(manifest.id)
            if agent and not problems:
                return agent.manifest
            self._quarantine(manifest.id)
        write_json(staging / "agent" / "manifest.json", manifest.to_json())
        self._agents.mkdir(exist_ok=True)
        (staging / "agent").rename(folder)
        sync_folder(self._agents)
        sync_folder(self.root)
        return manifest

    def _point(self, alias: str, name: str, reason: str) -> None:
        steps = self._aliases.read_or_forget(alias)
        if not steps or steps[-1].id != name:
            step = Step(id=name, at=utc(self._clock()), reason=reason)
            self._aliases.write(alias, (*steps, step))

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

    def _quarantine_if_damaged(self, name: str) -> None:
        # Looked at again: before we had the lock, another may have moved or repaired it.
        _, problems = self._examine(name)
        if (self._agents / name).exists() and any(problem.is_damage for problem in problems):
            self._quarantine(name)

    def _quarantine(self, name: str) -> None:
        """Move a version and its damaged contents out of the way, in place of an older such."""
        agent, _ = self._examine(name)
        target = self.root / "quarantine" / name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        (self._agents / name).rename(target)
        sync_folder(self._agents)
        for entry in agent.manifest.files if agent else ():
            problem = self._blobs.inspect(entry)
            if problem is not None and problem.is_damage and problem.kind != "missing":
                self._blobs.path(entry.sha256).rename(target / entry.sha256)
