"""Where pictures are encoded: in the uploading threads, in a pool, or on a cluster.

    with open_executor("dask://10.0.0.1:8786") as opened:
        label_grid(pictures, FULL, labeller, executor=opened.executor, ahead=opened.ahead)

There is no engine of ours: a cluster is dask.distributed with its own ``Executor``. Its workers get
pictures' paths and a ladder, and return files; the ledger, the budget, the pace and the keys stay
with the process that labels. As the work is pure, a worker that dies costs nothing but its repeat.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from edge_sdk.backends.base import Capabilities
from edge_sdk.codec import Streams
from edge_sdk.errors import ImageError
from edge_sdk.ladder import Ladder
from model_store.errors import EnvironmentMissing, UsageError
from training.labels.prepare import Attempt, Picture, attempt

__all__ = ["Encoding", "OpenedExecutor", "WorkerFailed", "open_executor"]

#: Pictures begun and not finished, for each worker: enough that none waits for the next.
AHEAD = 4

#: How often a cluster tries what failed on a worker for a reason other than the picture.
RETRIES = 2


class WorkerFailed(EnvironmentMissing):
    """A worker of an executor died of a picture, or cannot do its part."""


class OpenedExecutor(NamedTuple):
    """An executor, and how many pictures may be begun and not finished; None for neither."""

    executor: Executor | None = None
    ahead: int | None = None


@contextmanager
def open_executor(spec: str, patience_s: float = 30.0) -> Iterator[OpenedExecutor]:
    """Open the executor that encodes pictures.

    Args:
        spec: ``threads`` for the uploading threads themselves, ``threads:N`` for N other ones,
            ``dask://HOST:PORT`` for the cluster of that scheduler.
        patience_s: seconds that a scheduler and its first worker have to answer.

    Raises:
        UsageError: the specification cannot be read.
        EnvironmentMissing: dask.distributed is not installed, or the cluster cannot be reached.
    """
    kind, _, rest = spec.partition(":")
    if spec == "threads":
        yield OpenedExecutor()
    elif kind == "threads" and rest.isdecimal() and int(rest) > 0:
        with ThreadPoolExecutor(int(rest), thread_name_prefix="encoding") as pool:
            yield OpenedExecutor(pool, AHEAD * int(rest))
    elif kind == "dask" and rest.startswith("//") and rest[2:].rpartition(":")[0]:
        with _cluster(rest[2:], patience_s) as opened:
            yield opened
    else:
        raise UsageError(
            f"The executor {spec!r} is unknown; allowed are threads, threads:N with N above 0, and "
            "dask://HOST:PORT of a scheduler."
        )


@contextmanager
def _cluster(address: str, patience_s: float) -> Iterator[OpenedExecutor]:
    with _client(address, patience_s) as client:
        threads = sum(client.nthreads().values())
        executor = client.get_executor(pure=False, retries=RETRIES)
        try:
            yield OpenedExecutor(executor, AHEAD * threads)
        finally:
            with suppress(Exception):  # dask's own kinds: the cluster is gone already
                executor.shutdown(wait=False)


def _client(address: str, patience_s: float) -> Any:
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise EnvironmentMissing(
            "A cluster needs dask.distributed, which is not installed; run "
            "`pip install 'adacompress[cluster]'`, here and where the workers run."
        ) from error
    try:
        client = distributed.Client(
            f"tcp://{address}", timeout=patience_s, set_as_default=False, name="adacompress"
        )
    except (OSError, ValueError) as error:
        raise EnvironmentMissing(
            f"There is no dask scheduler at {address} ({error}); start one with `dask scheduler`."
        ) from error
    try:
        client.wait_for_workers(1, timeout=patience_s)
    except TimeoutError as error:
        client.close()
        raise EnvironmentMissing(
            f"The cluster at {address} has no workers; start some with `dask worker {address}`."
        ) from error
    return client


class Encoding:
    """Hands pictures to an executor and takes their files back, until it is closed.

    Args:
        executor: None leaves the work to whoever takes the files.
        ladder: rungs to encode at.
        capabilities: what the service accepts.
        codec: of rungs of features; it cannot leave this process.
    """

    def __init__(
        self,
        executor: Executor | None,
        ladder: Ladder,
        capabilities: Capabilities,
        codec: Streams | None = None,
    ) -> None:
        self._executor, self._rest = executor, (ladder, capabilities, codec)
        self._pending: set[Future[Attempt]] = set()
        self._closed = False

    def begin(self, picture: Picture) -> Callable[[], Attempt]:
        """Begin a picture; the function that is returned waits for its files.

        The function raises ``WorkerFailed`` if there will be none, ``EnvironmentMissing`` if the
        worker does not see the picture that is here, ``CancelledError`` after ``close``.
        """
        here = partial(attempt, picture, *self._rest)
        if self._executor is None:
            return here
        future = self._executor.submit(attempt, picture, *self._rest)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return partial(self._take, future, picture.photo, here)

    def close(self) -> None:
        """Give up what is under way, so that nobody waits for it any more."""
        self._closed = True
        for future in list(self._pending):
            future.cancel()

    def _take(self, future: Future[Attempt], photo: str, here: Callable[[], Attempt]) -> Attempt:
        try:
            found = future.result()
        except (Exception, CancelledError) as error:
            if self._closed:
                raise CancelledError from error
            # Whatever it is: the executor's own trouble, or a worker without this code.
            raise WorkerFailed(
                f"A worker failed on {photo!r} ({type(error).__name__}: {error}). Workers need the "
                "same adacompress as here, and memory for a picture each."
            ) from error
        if isinstance(found, ImageError) and not isinstance(here(), ImageError):
            raise EnvironmentMissing(
                f"A worker cannot read what can be read here: {found} Every worker needs the "
                "pictures under the same path; share the folder, or use --executor threads."
            )
        return found
