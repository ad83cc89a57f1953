"""Does the service's jobs, each in a child process with a limit on time and memory."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from edge_sdk.memory import Memory, Transition, Transitions
from edge_sdk.retrain import ChildProcessRetrainer, Retrainer, RetrainRequest
from edge_sdk.transit import unpack
from model_store.errors import AdaCompressError
from training.retrain import checked
from training.serve.jobs import Job, Jobs

__all__ = ["Workers"]

_LOOK_S = 0.2


class Workers:
    """Threads that take jobs and end them.

    Args:
        jobs: the queue.
        store: root folder of the service's store.
        count: jobs done at once.
        most: bytes that transitions may have unpacked.
        retrainer: makes what does one job.
    """

    def __init__(
        self,
        jobs: Jobs,
        store: Path,
        *,
        count: int = 1,
        most: int = 256 * 2**20,
        retrainer: Callable[[], Retrainer] = ChildProcessRetrainer,
    ) -> None:
        self._jobs, self._store, self._most = jobs, store, most
        self._retrainer = retrainer
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"retrain-{index}", daemon=True)
            for index in range(count)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that there is a new job."""
        self._wake.set()

    def stop(self) -> None:
        """Give up what runs, which runs again at the next start, and end the threads."""
        self._stopped.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            job = self._jobs.take()
            if job is None:
                self._wake.wait(_LOOK_S)
                self._wake.clear()
                continue
            try:
                self._do(job)
            except (AdaCompressError, OSError, ValueError, TypeError) as error:
                self._jobs.end(job.id, reason=str(error))

    def _do(self, job: Job) -> None:
        path = self._jobs.body(job.id)
        document, seen = unpack(path.read_bytes(), most=self._most)
        memory = path.with_name("memory.sqlite")
        _write(memory, seen)
        places = {"store": str(self._store), "memory": str(memory)}
        request = checked({**document, **places})
        with contextlib.closing(self._retrainer()) as retrainer:
            self._wait(job, retrainer, request)
        if (self._jobs.get(job.id) or job).state == "done":
            shutil.rmtree(path.parent, ignore_errors=True)

    def _wait(self, job: Job, retrainer: Retrainer, request: RetrainRequest) -> None:
        retrainer.start(request)
        while not self._stopped.wait(_LOOK_S):
            result = retrainer.poll()
            if result is not None:
                self._jobs.end(job.id, agent=result.agent or "", reason=result.reason)
                return
            if (self._jobs.get(job.id) or job).state != "running":
                return  # its device gave it up


def _write(path: Path, seen: Transitions) -> None:
    path.unlink(missing_ok=True)
    with contextlib.closing(Memory(path, max_transitions=max(1, len(seen)))) as memory:
        memory.append(
            Transition(
                features=seen.features[row],
                rung=int(seen.rungs[row]),
                reward=float(seen.rewards[row]),
                agreement=float(seen.agreements[row]),
                size_ratio=float(seen.size_ratios[row]),
                image=seen.images[row],
                palette=None if seen.palettes is None else seen.palettes[row],
            )
            for row in range(len(seen))
        )
