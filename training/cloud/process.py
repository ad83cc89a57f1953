"""The local cloud in a process of its own, so that serving and learning do not share one GIL.

with CloudProcess("efficientnet-lite0", options=["--latency", "0.2"]) as cloud:
    backend = open_backend(cloud.specs["google"])
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from model_store.errors import AdaCompressError, EnvironmentMissing, UsageError

__all__ = ["CloudProcess"]

#: The first start of a model converts it, which imports torch.
_START_S = 180.0
_END_S = 5.0


class CloudProcess:
    """Runs ``python -m training cloud`` from entering the ``with`` block to leaving it.

    The child ends when its standard input closes, hence also when this process is killed.

    Args:
        model: one of ``training.cloud.zoo.MODELS``.
        port: of the loopback interface; 0 takes a free one.
        options: further ones of ``python -m training cloud``, such as ``["--faults", "0.05"]``.
        command: what is run; the model, the port and the options are appended.

    Attributes:
        url: the server's address, once entered.
        spec: what ``open_backend`` takes for the first dialect, once entered.
        specs: dialect -> what ``open_backend`` takes, once entered.
        model: the served model's version, once entered.
    """

    def __init__(
        self,
        model: str,
        port: int = 0,
        *,
        options: Sequence[str] = (),
        command: Sequence[str] = (sys.executable, "-m", "training", "cloud"),
    ) -> None:
        self.url = self.spec = self.model = ""
        self.specs: dict[str, str] = {}
        self._command = [*command, "--model", model, "--port", str(port), *options]
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> CloudProcess:
        # A file, not a pipe: nobody reads it while the child runs, and a full pipe would stop it.
        with tempfile.TemporaryFile() as errors:
            self._child = self._start(errors)
            try:
                ready = _ready_line(self._child)
                if ready is None:
                    raise self._failure(errors)
            except BaseException:
                self._end()
                raise
        self.url, self.model = ready["url"], ready["model"]
        self.spec, self.specs = ready["spec"], ready["specs"]
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end()

    def _start(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        here = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path},
            # Ctrl-C reaches this process alone, so that it can finish its last uploads.
            start_new_session=True,
        )

    def _failure(self, errors: IO[bytes]) -> AdaCompressError:
        """Return the child's own last sentence as an error of the same kind."""
        code = self._end()
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
        last = lines[-1].partition(": ")[2] or lines[-1] if lines else f"exit code {code}"
        if code == UsageError.exit_code:
            return UsageError(last)
        return EnvironmentMissing(f"The local cloud did not start: {last}")

    def _end(self) -> int:
        child, self._child = self._child, None
        if child is None:
            return 0
        code = _stop(child)
        assert child.stdout is not None  # opened as a pipe above
        child.stdout.close()  # only now: a reader that still waits for a line would block it
        return code


def _stop(child: subprocess.Popen[bytes]) -> int:
    """Ask by closing the child's stdin, then insist; return its exit code."""
    assert child.stdin is not None  # opened as a pipe above
    child.stdin.close()
    for insist in (child.terminate, child.kill):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_END_S)
        insist()
    return child.wait()


def _ready_line(child: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """Return the child's first line, or None if it ends or stays silent."""
    lines: list[bytes] = []
    stdout = child.stdout
    assert stdout is not None  # opened as a pipe above
    reader = threading.Thread(target=lambda: lines.append(stdout.readline()), daemon=True)
    reader.start()
    reader.join(_START_S)
    try:
        ready = json.loads(lines[0])
    except (IndexError, ValueError):
        return None
    return ready if isinstance(ready, dict) and ready.get("ready") else None
