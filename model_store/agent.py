"""An agent at hand: its manifest, and its files behind a hash check on every read."""

from __future__ import annotations

from dataclasses import dataclass

from model_store.blobs import Blobs, Problem
from model_store.errors import CorruptAgent, UsageError
from model_store.manifest import FileEntry, Manifest

__all__ = ["StoredAgent"]


@dataclass(frozen=True)
class StoredAgent:
    """A manifest and the contents that it names.

    Attributes:
        manifest: what the agent is.
        blobs: where its contents are.
    """

    manifest: Manifest
    blobs: Blobs

    @property
    def id(self) -> str:
        """The agent's id."""
        return self.manifest.id

    def read(self, path: str) -> bytes:
        """Return the content of the file ``path``, verified.

        Raises:
            UsageError: the agent has no such file.
            CorruptAgent: the content is missing or is not what the manifest says.
        """
        found = [entry for entry in self.manifest.files if entry.path == path]
        if not found:
            names = ", ".join(entry.path for entry in self.manifest.files) or "none"
            raise UsageError(f"Agent {self.id} has no file {path!r}; its files are {names}.")
        return self._verified(found[0])

    def file(self, role: str) -> bytes:
        """Return the content of the one file with this role, verified.

        Raises:
            UsageError: none of the agent's files has this role, or several have.
            CorruptAgent: the content is missing or is not what the manifest says.
        """
        found = self.manifest.entries(role)
        if len(found) > 1:
            names = ", ".join(entry.path for entry in found)
            raise UsageError(f"Agent {self.id} has {names} as {role!r}; read one by its path.")
        if not found:
            roles = ", ".join(sorted({entry.role for entry in self.manifest.files})) or "none"
            raise UsageError(f"Agent {self.id} has no file as {role!r}; its roles are {roles}.")
        return self._verified(found[0])

    def problems(self) -> tuple[Problem, ...]:
        """Check every file and return what is wrong; empty is good."""
        checked = map(self.blobs.inspect, self.manifest.files)
        return tuple(problem for problem in checked if problem is not None)

    def _verified(self, entry: FileEntry) -> bytes:
        content = self.blobs.read(entry)
        if isinstance(content, Problem):
            raise CorruptAgent(
                f"Agent {self.id} cannot be used, {content}. Publish it again, or take the "
                f"previous one with 'python -m model_store rollback'."
            )
        return content
