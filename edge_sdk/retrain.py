"""The one door upward: ask somebody else for a new agent, and never wait for the answer.

``ChildProcessRetrainer`` runs ``python -m training retrain`` where that package is installed. This
module imports nothing of it; the two sides share the memory file and two JSON documents:

* the request, ``adacompress.retrain/1``, a file named by ``--request``;
* the result, one line on the child's stdout: ``{"agent": "night-0123456789ab"}``.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from model_store.files import write_json

__all__ = [
    "SCHEMA",
    "ChildProcessRetrainer",
    "RetrainRequest",
    "RetrainResult",
    "Retrainer",
]

SCHEMA = "adacompress.retrain/1"

#: Seconds a child may take; a retraining on a few hundred transitions takes seconds to minutes.
_DEADLINE_S = 3600.0
#: Seconds a child gets between being asked to end and being killed.
_GRACE_S = 2.0
_ERROR_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainRequest:
    """What a retrainer needs to know.

    Attributes:
        store: root folder of the store that the new agent is published to.
        parent: id of the agent whose engine made the features.
        memory: path of the transitions, see ``edge_sdk.memory.read_transitions``.
        scenery: name for the new scenery.
        alpha: weight of agreement in the reward.
        beta: offset of the reward.
        target_accuracy: agreement that the operating point has to promise.
        seed: of every random choice.
    """

    store: str
    parent: str
    memory: str
    scenery: str
    alpha: float
    beta: float
    target_accuracy: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Return the request document."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True, slots=True)
class RetrainResult:
    """How a retraining ended: with ``agent``, or without one for ``reason``."""

    agent: str | None
    reason: str = ""


class Retrainer(Protocol):
    """Makes new agents elsewhere. Called under the loop's lock, so no method may block."""

    def start(self, request: RetrainRequest) -> None:
        """Begin; what is still running from before is given up."""

    def poll(self) -> RetrainResult | None:
        """Return the result once, None before and after."""

    def close(self) -> None:
        """Give up what is running; calling it twice is fine."""


class ChildProcessRetrainer:
    """Retrains in a child process on this machine.

    The child's standard input is a pipe that never says anything: it ends when this process does,
    however that happens, which tells the child to end too. Output goes to files, because a full
    pipe would need somebody who reads it.

    Args:
        command: the child's command line; ``--request FILE`` is appended.
        deadline_s: seconds after which a child is given up.
        max_memory_mib: memory that the child may take; it is told by ``--max-memory``.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-m", "training", "retrain"),
        *,
        deadline_s: float = _DEADLINE_S,
        max_memory_mib: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limit = () if max_memory_mib is None else ("--max-memory", str(max_memory_mib))
        self._command = (*command, *limit)
        self._deadline_s = deadline_s
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._started = 0.0

    def start(self, request: RetrainRequest) -> None:
        """Write the request beside the memory and start the child.

        Raises:
            OSError: the request cannot be written, or the command cannot be run.
        """
        self.close()
        self._folder = Path(request.memory).parent
        file = self._folder / "retrain.json"
        write_json(file, request.to_json())
        with self._output("stdout", "wb") as stdout, self._output("stderr", "wb") as stderr:
            self._child = subprocess.Popen(
                [*self._command, "--request", str(file)],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
            )
        self._started = self._clock()

    def poll(self) -> RetrainResult | None:
        """Return the result once the child has ended, or was ended at its deadline."""
        if self._child is None:
            return None
        code = self._child.poll()
        if code is not None:
            self.close()
            return self._result(code)
        if self._clock() - self._started < self._deadline_s:
            return None
        self.close()
        return RetrainResult(None, f"the retrainer took more than {self._deadline_s:g} s")

    def close(self) -> None:
        """End the child: ask first, then kill. No orphan stays."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
        if child.stdin is not None:
            with contextlib.suppress(OSError):  # the reader is gone, and that is all we want
                child.stdin.close()
        child.wait()

    def _result(self, code: int) -> RetrainResult:
        if code != 0:
            said = self._last_line("stderr")[-_ERROR_CHARACTERS:] or "it said nothing"
            advice = ""
            if "No module named" in said:
                advice = "; install it with `pip install 'adacompress[train]'`"
            return RetrainResult(None, f"the retrainer ended with exit code {code}: {said}{advice}")
        line = self._last_line("stdout")
        try:
            agent = json.loads(line)["agent"]
        except (ValueError, TypeError, KeyError):
            agent = None
        if isinstance(agent, str) and agent:
            return RetrainResult(agent)
        return RetrainResult(
            None, f"the retrainer answered {line[:80]!r} instead of one line of JSON with 'agent'"
        )

    def _output(self, stream: str, mode: str) -> IO[Any]:
        return (self._folder / f"retrain.{stream}").open(mode)

    def _last_line(self, stream: str) -> str:
        with self._output(stream, "rb") as file:
            lines = file.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
