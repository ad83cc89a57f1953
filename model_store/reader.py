"""The reading half of a store: no lock, because every write is a rename.

It never changes a file, so a device can use it on a folder that is mounted read-only.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from model_store import signing
from model_store.agent import StoredAgent
from model_store.aliases import Aliases, Step
from model_store.blobs import Blobs, Problem
from model_store.bundle import pack
from model_store.errors import (
    AgentNotFound,
    CorruptAgent,
    EnvironmentMissing,
    ManifestInvalid,
    SchemaTooNew,
    StoreError,
    Untrusted,
    UsageError,
)
from model_store.manifest import ID, SCHEMA, Manifest, checked
from model_store.schema import read_document
from model_store.signing import Trust

__all__ = ["StoreReader"]


class StoreReader:
    """What can be asked of a store.

    Args:
        root: the store's folder; one that does not exist is an empty store.
        trusted_keys: a file of public keys, see ``signing``; an agent that none of them has signed
            is refused whenever it is read. It belongs outside of the store.
    """

    def __init__(self, root: Path | str, *, trusted_keys: Path | str | None = None) -> None:
        self.root = Path(root)
        self._trust = None if trusted_keys is None else Trust.load(Path(trusted_keys))
        self._agents = self.root / "agents"
        self._blobs = Blobs(self.root / "blobs")
        self._aliases = Aliases(self.root / "aliases")

    def ids(self) -> tuple[str, ...]:
        """Return the ids of all agents, sorted."""
        try:
            names = [path.name for path in self._agents.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise EnvironmentMissing(
                f"The store {self.root} cannot be read ({error.strerror}); see who may read it."
            ) from error
        return tuple(sorted(filter(ID.fullmatch, names)))

    def aliases(self) -> dict[str, str]:
        """Return every readable alias and the id it points to, sorted by name."""
        pointers = {}
        for name in self.alias_names():
            with contextlib.suppress(StoreError):  # ``verify`` reports it
                pointers[name] = self._aliases.read(name)[-1].id
        return pointers

    def alias_names(self) -> tuple[str, ...]:
        """Return every alias, sorted, readable or not."""
        return self._aliases.names()

    def history(self, alias: str) -> tuple[Step, ...]:
        """Return the moves of an alias, oldest first; the last is where it points."""
        steps = self._aliases.read(alias)
        if not steps:
            raise AgentNotFound(alias, self._known())
        return steps

    def resolve(self, reference: str) -> str:
        """Return the id that an alias, an id, or the unique start of an id stands for.

        Raises:
            AgentNotFound: nothing has this name, or the alias points to an agent that is gone.
            UsageError: several ids start like this.
        """
        steps = self._aliases.read(reference)
        wanted = steps[-1].id if steps else reference
        with contextlib.suppress(OSError):  # listing them tells what is wrong
            if ID.fullmatch(wanted) and (self._agents / wanted).exists():
                return wanted  # without a list of all: a fleet's store has thousands
        ids = self.ids()
        found = [name for name in ids if wanted and name.startswith(wanted)]
        if len(found) > 1:
            raise UsageError(
                f"{reference!r} is the start of {len(found)} ids, {', '.join(found)}; "
                "give more of the one you mean."
            )
        if not found:
            raise AgentNotFound(wanted, self._known())
        return found[0]

    def manifest(self, reference: str) -> Manifest:
        """Return the manifest of an agent, checked against the agent's id.

        Raises:
            AgentNotFound: there is no such agent.
            ManifestInvalid: it is not valid ``adacompress.agent/1``.
            SchemaTooNew: it is of a later major version.
            CorruptAgent: it is missing, or was changed after it was published.
            Untrusted: there are trusted keys, and none of them has signed it.
        """
        return self._manifest(self.resolve(reference))

    def signatures(self, reference: str) -> tuple[signing.Signature, ...]:
        """Return the signatures of an agent, unchecked; empty if nobody has signed it."""
        return self._signatures(self.resolve(reference))

    def load(self, reference: str) -> StoredAgent:
        """Return an agent, whose files are verified as they are read."""
        return StoredAgent(self.manifest(reference), self._blobs)

    def pack(self, reference: str, path: Path | str) -> Manifest:
        """Write an agent into one file, see ``bundle``, and return its manifest."""
        agent = self.load(reference)
        pack(agent, self._signatures(agent.id), Path(path))
        return agent.manifest

    def verify(self, reference: str | None = None) -> dict[str, tuple[Problem, ...]]:
        """Read every file of one agent, or of all; return what is wrong with each.

        Without a reference, an alias that cannot be used is in the result too, under its name.
        """
        if reference is not None:
            name = self.resolve(reference)
            return {name: self._examine(name)[1]}
        report = {name: self._examine(name)[1] for name in self.ids()}
        for alias in self.alias_names():
            problem = self._alias_problem(alias)
            if problem is not None:
                report[alias] = (problem,)
        return report

    def _known(self) -> tuple[str, ...]:
        return (*self.aliases(), *self.ids())

    def _manifest(self, name: str) -> Manifest:
        manifest = self._unchecked(name)
        if self._trust is not None:
            try:
                self._trust.check(manifest, self._signatures(name))
            except (ManifestInvalid, SchemaTooNew) as error:
                raise Untrusted(f"Agent {name} is not trusted: {error}") from error
        return manifest

    def _unchecked(self, name: str) -> Manifest:
        """Return a manifest whoever signed it."""
        document = read_document(self._agents / name / "manifest.json", SCHEMA)
        if document is None:
            raise CorruptAgent(f"Agent {name} has no manifest.json; publish it again.")
        return checked(document, name)

    def _signatures(self, name: str) -> tuple[signing.Signature, ...]:
        document = read_document(self._agents / name / "signature.json", signing.SCHEMA)
        return () if document is None else signing.from_json(document)

    def _examine(
        self, name: str, *, trusting: bool = False
    ) -> tuple[StoredAgent | None, tuple[Problem, ...]]:
        """Return the agent if its manifest can be read, and everything that is wrong with it."""
        try:
            manifest = self._unchecked(name) if trusting else self._manifest(name)
            agent = StoredAgent(manifest, self._blobs)
            return agent, agent.problems()
        except SchemaTooNew as error:
            kind, actual = "too new", str(error)
        except Untrusted as error:
            kind, actual = "untrusted", str(error)
        except (ManifestInvalid, CorruptAgent) as error:
            gone = not (self._agents / name / "manifest.json").exists()
            kind, actual = "missing" if gone else "bad manifest", str(error)
        except EnvironmentMissing as error:
            kind, actual = "unreadable", str(error)
        return None, (Problem(path="manifest.json", kind=kind, expected=SCHEMA, actual=actual),)

    def _alias_problem(self, alias: str) -> Problem | None:
        try:
            target = self.history(alias)[-1].id
            if target in self.ids():
                return None
            actual = f"{target}, which is gone"
        except (StoreError, EnvironmentMissing) as error:
            actual = str(error)
        return Problem(path=alias, kind="bad alias", expected="an agent's id", actual=actual)
