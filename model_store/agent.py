"""An agent at hand: its manifest, and its files behind a hash check on every read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model_store.blobs import Blobs, Problem
from model_store.errors import CorruptAgent, UnsafeModel, UsageError
from model_store.manifest import Draft, FileEntry, Manifest
from model_store.onnx_safety import OnnxSummary, check, fits

__all__ = ["StoredAgent", "check_model", "is_model"]


def is_model(role: str) -> bool:
    """Whether a runtime will open files of this role: an engine, one of its variants, a probe."""
    return role in ("engine", "probe") or role.startswith("engine-")


def check_model(manifest: Draft, role: str, model: bytes | Path) -> OnnxSummary | None:
    """Check a file whose role says that a runtime will open it; None if none will.

    Raises:
        UnsafeModel: no session may be made of it, or it is not what the manifest says.
    """
    if not is_model(role):
        return None
    summary = check(model)
    if role != "probe":
        fits(summary, manifest.signature)
    return summary


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
            UnsafeModel: it is an engine or a probe that no session may be made of.
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
            UnsafeModel: it is an engine or a probe that no session may be made of.
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
        checked = map(self._problem, self.manifest.files)
        return tuple(problem for problem in checked if problem is not None)

    def _problem(self, entry: FileEntry) -> Problem | None:
        problem = self.blobs.inspect(entry)
        if problem is not None:
            return problem
        try:
            check_model(self.manifest, entry.role, self.blobs.path(entry.sha256))
        except UnsafeModel as error:
            expected = "an ONNX file that a session may be made of"
            return Problem(path=entry.path, kind="unsafe", expected=expected, actual=str(error))
        except UsageError as error:  # it went away in this moment
            return Problem(path=entry.path, kind="unreadable", expected="", actual=str(error))
        return None

    def _verified(self, entry: FileEntry) -> bytes:
        content = self.blobs.read(entry)
        if isinstance(content, Problem):
            raise CorruptAgent(
                f"Agent {self.id} cannot be used, {content}. Publish it again, or take the "
                f"previous one with 'python -m model_store rollback'."
            )
        check_model(self.manifest, entry.role, content)
        return content
