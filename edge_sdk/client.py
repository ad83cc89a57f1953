"""The one door of the SDK: give a picture, get the service's labels for fewer bytes.

with EdgeClient(EdgeConfig(store="agents", backend="baidu://aip.baidubce.com")) as client:
    result = client.process("photo.jpg")
    print(result.labels, result.bytes)
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from edge_sdk import codec
from edge_sdk.backends.base import Backend
from edge_sdk.cache import AgentCache, Load
from edge_sdk.config import AgentStore, EdgeConfig
from edge_sdk.errand import Errand, Outcome, Plan
from edge_sdk.errors import ClosedError
from edge_sdk.faults import Faults
from edge_sdk.loop import Loop, OnStateChange, OnSwap
from edge_sdk.memory import Memory
from edge_sdk.retrain import ChildProcessRetrainer, Retrainer
from edge_sdk.stats import Counters, Result, Stats

if TYPE_CHECKING:
    from edge_sdk.backends.base import Recognition
    from edge_sdk.parcel import Parcel

__all__ = ["EdgeClient", "Result", "Stats"]


class EdgeClient:
    """Adaptive uploads to one service. Safe to use from several threads.

    Uploads happen in parallel; deciding what to do and learning from it takes one lock. Hooks are
    called under that lock, on the thread of :meth:`process`: keep them short. What they raise is
    counted and otherwise ignored.

    Args:
        config: see ``EdgeConfig``.
        retrainer: makes new agents; default is a child process where the package ``training`` is
            installed, else none.
        rng: default is ``numpy.random.default_rng(config.seed)``.
        clock: seconds that only grow, for ``Result.milliseconds``.
        load: builds an agent from what the store returns; default is ``edge_sdk.agent.load_agent``.
        on_state_change: called with the old state, the new one and the reason.
        on_swap: called with the old agent's id, the new one's and the reason.

    Raises:
        UsageError, EnvironmentMissing: the backend cannot be opened. An empty or broken store is
            no error: the client serves at the reference, and its stats say so.
    """

    def __init__(
        self,
        config: EdgeConfig,
        *,
        retrainer: Retrainer | None = None,
        rng: np.random.Generator | None = None,
        clock: Callable[[], float] = time.perf_counter,
        load: Load | None = None,
        on_state_change: OnStateChange | None = None,
        on_swap: OnSwap | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._faults = Faults(strict=config.strict)
        self._lock = threading.RLock()  # re-entrant: a hook may ask for stats
        self._closed = False  # guarded by _lock
        self._counters = Counters()  # guarded by _lock
        self._rng = rng or np.random.default_rng(config.seed)  # guarded by _lock
        self._backend, self._owns_backend = _open_backend(config.backend)
        store = _open_store(config.store)
        self._loop = Loop(  # guarded by _lock
            config,
            agents=AgentCache(store, load or _loader(config, store), config.alias, self._faults),
            memory=_open_memory(config, store, self._faults),
            retrainer=retrainer or _default_retrainer(),
            faults=self._faults,
            on_state_change=on_state_change,
            on_swap=on_swap,
        )
        try:
            self._faults.check()
        except Exception:
            self.close()
            raise

    def process(self, image: str | Path | bytes | Image.Image | np.ndarray[Any, Any]) -> Result:
        """Upload a picture as cheaply as the current agent dares, and return the labels.

        Raises:
            ImageError: the picture cannot be read.
            BackendError: the upload that was to answer failed; nothing else reaches the caller.
            ClosedError: the client is closed.
        """
        self._check_open()
        begun = self._clock()
        picture = codec.load(image)
        loaded = self._clock()
        with self._lock:
            self._check_open()
            plan = self._loop.begin(self._rng)
        errand = Errand(
            plan,
            backend=self._backend,
            faults=self._faults,
            agreement=(self._config.metric, self._config.min_score),
            explore_rungs=self._config.explore_rungs,
            clock=self._clock,
        )
        errand.outcome.milliseconds["load"] = (loaded - begun) * 1000.0
        try:
            served, answer = errand.run(picture)
        finally:
            with self._lock:
                self._counters.calls += errand.outcome.calls
                self._counters.uploaded_wire_bytes += errand.outcome.uploaded_wire_bytes
        result = self._finish(plan, errand.outcome, served, answer)
        self._faults.check()
        return result

    def stats(self) -> Stats:
        """Return a snapshot of the counters; also after ``close``."""
        with self._lock:
            counted, loop = self._counters, self._loop
            return Stats(
                images=counted.images,
                calls=counted.calls,
                bytes=counted.bytes,
                wire_bytes=counted.wire_bytes,
                uploaded_wire_bytes=counted.uploaded_wire_bytes,
                fallbacks=MappingProxyType(dict(counted.fallbacks)),
                failures=MappingProxyType(self._faults.counts()),
                drops=MappingProxyType(dict(counted.drops)),
                states=MappingProxyType(dict(counted.states)),
                swaps=loop.swaps,
                retrainings=loop.retrainings,
                state=loop.state.state,
                agent_id=loop.agent_id,
                p_est=loop.state.p_est,
                caution=loop.steering.caution,
            )

    def close(self) -> None:
        """End a running retraining, close the memory and what the client opened; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.close()
        if self._owns_backend:
            self._backend.close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        with self._lock:
            if self._closed:
                raise ClosedError("The client is closed; make a new EdgeClient.")

    def _finish(self, plan: Plan, outcome: Outcome, served: Parcel, answer: Recognition) -> Result:
        with self._lock:
            if not self._closed:  # closed meanwhile by another thread: the answer still counts
                self._loop.finish(plan, outcome)
            compared = outcome.comparisons
            result = Result(
                labels=answer.labels,
                rung=served.rung,
                as_is=served.as_is,
                bytes=len(served.jpeg),
                wire_bytes=answer.wire_bytes,
                uploaded_wire_bytes=outcome.uploaded_wire_bytes,
                calls=outcome.calls,
                milliseconds=outcome.milliseconds,
                state=plan.state,
                agent_id=plan.agent.id if plan.agent else None,
                p_est=self._loop.state.p_est,
                agreement=compared[0].agreement if compared else None,
                fallback=outcome.fallback or None,
            )
            self._counters.add(result, outcome.drops)
            return result


def _open_backend(backend: str | Backend) -> tuple[Backend, bool]:
    if not isinstance(backend, str):
        return backend, False
    from edge_sdk.backends import open_backend  # not needed by a host that brings its own service

    return open_backend(backend), True


def _open_store(store: str | Path | AgentStore) -> AgentStore:
    if not isinstance(store, str | Path):
        return store
    from model_store import Store  # see _open_backend

    return Store(store)


def _open_memory(config: EdgeConfig, store: AgentStore, faults: Faults) -> Memory | None:
    root = Path(store.root)
    folder = Path(config.folder) if config.folder else root.with_name(f"{root.name}-device")
    try:
        return Memory(folder / "memory.sqlite", config.max_transitions)
    except Exception as error:  # a full or read-only disk must not stop the host
        faults.note("memory", error)
        return None


def _default_retrainer() -> Retrainer | None:
    # A child that cannot even start would be noticed only after paying for its transitions.
    return ChildProcessRetrainer() if importlib.util.find_spec("training") else None


def _loader(config: EdgeConfig, store: AgentStore) -> Load:
    from edge_sdk.agent import load_agent

    return partial(
        load_agent,
        provider=config.provider,
        strict=config.strict,
        max_probes=config.max_probes,
        cache=Path(store.root) / "cache" / "tensorrt",
    )
