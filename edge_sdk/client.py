"""The one door of the SDK: give a picture, get the service's labels for fewer bytes.

with EdgeClient(EdgeConfig(store="agents", backend="baidu://aip.baidubce.com")) as client:
    result = client.process("photo.jpg")
    print(result.labels, result.bytes)
"""

from __future__ import annotations

import ctypes
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np

from edge_sdk import lossless, opening, reading
from edge_sdk.aside import AsideRetrainer
from edge_sdk.backends.base import Recognition
from edge_sdk.behind import Behind, Worker
from edge_sdk.cache import AgentCache, Load
from edge_sdk.chronicle import OnStateChange, OnSwap
from edge_sdk.config import EdgeConfig
from edge_sdk.errand import Errand
from edge_sdk.errors import ClosedError
from edge_sdk.footprint import give_back
from edge_sdk.gate import FrameGate
from edge_sdk.hooks import Hooks, Upload
from edge_sdk.link import Link
from edge_sdk.loop import Loop
from edge_sdk.metrics import MetricsSink
from edge_sdk.outbox import Bounds, Outbox
from edge_sdk.parcel import Parcel
from edge_sdk.plan import Outcome, Plan
from edge_sdk.retrain import Retrainer
from edge_sdk.sender import Sender, growing_pause
from edge_sdk.stats import Result, Stats
from edge_sdk.tally import Tally
from edge_sdk.turns import Turns

__all__ = ["CLOSE_S", "EdgeClient", "Result", "Stats"]

#: Seconds that ``close`` waits by default.
CLOSE_S = 10.0


class EdgeClient:
    """Adaptive uploads to one service. Safe to use from several threads, and after a fork.

    An answer waits for nothing but its own upload: estimation, logging and re-training run behind
    it, on one thread that starts when it is first needed. What finds no place there is dropped and
    counted. In a forked child the client begins anew with counters at zero, without the memory and
    the spool, which stay its parent's; a service that was given opened is used there as it is.

    Args:
        config: see ``EdgeConfig``.
        retrainer: makes new agents; default is a child process where the package ``training`` is
            installed, else none.
        behind: runs what an answer does not wait for. ``Inline()`` runs it at once, so that the
            same pictures and seed give the same events, and results tell all calls.
        rng: default is ``numpy.random.default_rng(config.seed)``.
        clock: seconds that only grow, for ``Result.milliseconds``.
        load: builds an agent from what the store returns; default is ``assembly.load_agent``.
        pause: seconds between tries of a link that is down, from the failures in a row.
        metrics: where figures go, see ``edge_sdk.metrics``.
        before_upload, on_result, on_drop, on_state_change, on_swap: see ``edge_sdk.hooks.Hooks``.

    Raises:
        UsageError, EnvironmentMissing: the backend cannot be opened, or the package of the
            lossless pass is not there. An empty or broken store is no error: the client serves at
            the reference, and its stats say so.
    """

    def __init__(
        self,
        config: EdgeConfig,
        *,
        retrainer: Retrainer | None = None,
        behind: Behind | None = None,
        rng: np.random.Generator | None = None,
        clock: Callable[[], float] = time.perf_counter,
        load: Load | None = None,
        pause: Callable[[int], float] = growing_pause,
        metrics: MetricsSink | None = None,
        before_upload: Callable[[Upload], Upload | None] | None = None,
        on_result: Callable[[Result], object] | None = None,
        on_drop: Callable[[str, str], object] | None = None,
        on_state_change: OnStateChange | None = None,
        on_swap: OnSwap | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._given = _Given(retrainer, behind, rng, load, pause, metrics)
        self._hooks = Hooks(
            before_upload=before_upload,
            on_result=on_result,
            on_drop=on_drop,
            on_state_change=on_state_change,
            on_swap=on_swap,
        )
        self._closed = self._stale = False
        self._begin_life()
        _CLIENTS.add(self)
        try:
            self._faults.check()
        except Exception:
            self.close()
            raise

    def process(self, image: reading.Source) -> Result:
        """Upload a picture as cheaply as the current agent dares, and return the labels.

        Args:
            image: a path, an encoded file's bytes, a PIL image, or an array (see
                ``edge_sdk.reading.load``).

        Raises:
            ImageError: the picture cannot be read.
            BackendError: the upload that was to answer failed; nothing else reaches the caller.
            ClosedError: the client is closed.
        """
        self._check_open()
        result = self._process(image)
        self._tally.told(result)
        self._faults.check()
        return result

    def submit(
        self, image: reading.Source, key: str = "", *, timeout: float | None = None
    ) -> Future[Result]:
        """Queue a picture for the upload threads; arrays and images are copied first.

        With ``EdgeConfig.spool`` the picture is on disk when this returns, and is answered though
        the link fails or the process dies: then ``on_result`` is told after a restart. Answers
        are kept by key; a key that has one is not uploaded again.

        Args:
            image: see :meth:`process`.
            key: names the picture; default is a hash of its file where there is a spool.
            timeout: seconds to wait for a place in the queue at most, where it blocks.

        Returns:
            A future of what :meth:`process` returns or raises, or of ``DroppedError`` if the
            picture was given up; ``on_drop`` is told, too.

        Raises:
            ImageError: the image is none of these, or its file cannot be read.
            ClosedError: the client is closed.
        """
        self._check_open()
        return self._sender.submit(image, key, timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if that took longer than ``timeout`` seconds."""
        self._check_open()
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._sender.flush(timeout):
            return False
        return self._behind.flush(None if deadline is None else deadline - time.monotonic())

    def use(self, name: str | None = None) -> str:
        """Go on with another agent, such as one that was pulled or promoted meanwhile.

        It is loaded and probed here, while pictures flow; then one assignment swaps it in. The
        loop begins anew with it, and a retraining that runs is given up.

        Args:
            name: id or alias; None for the configured alias.

        Returns:
            The agent's id.

        Raises:
            AgentNotFound, CorruptAgent: the store has no such agent, or it is damaged.
            EngineError: its engine cannot be run here. The agent before goes on.
            ClosedError: the client is closed.
        """
        self._check_open()
        agent = self._loop.fresh(name)
        self._turns.use(agent, "the host chose it")
        return agent.id

    def stats(self) -> Stats:
        """Return a snapshot of the counters; also after ``close``."""
        loop = self._loop
        return Stats(
            **self._tally.counters.snapshot(),
            failures=MappingProxyType(self._faults.counts()),
            swaps=loop.swaps,
            alarms=MappingProxyType(dict(loop.alarms)),
            retrainings=loop.retrainings,
            state=loop.state.state,
            agent_id=loop.agent_id,
            p_est=loop.state.p_est,
            caution=loop.steering.caution,
            waiting=self._sender.waiting,
            uplink=self._link.uplink,
        )

    def close(self, timeout: float = CLOSE_S) -> None:
        """Finish what is on its way, end a re-training, close what the client opened; idempotent.

        Args:
            timeout: seconds to wait at most; what is not done by then is given up and counted.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
        deadline = time.monotonic() + timeout
        self._sender.close(timeout)
        for _ in range(self._behind.close(max(0.0, deadline - time.monotonic()))):
            self._tally.dropped("behind")
        self._turns.end(deadline)
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

    def _begin_life(self) -> None:
        """Make everything that a forked child must not share with its parent."""
        config, given, child = self._config, self._given, self._stale
        self._closing = threading.Lock()
        self._tally = Tally(self._hooks, given.metrics, strict=config.strict)
        self._faults = self._tally.faults
        self._link = Link()
        self._gate = None if config.gate is None else FrameGate(config.gate)
        self._recode = lossless.open_pass() if config.lossless_pass else None
        self._backend, self._owns_backend = opening.open_backend(config.backend)
        self._behind = given.behind or Worker(partial(self._faults.note, "behind"))
        if child and not self._behind.inline:  # its thread stayed with the parent
            self._behind = Worker(partial(self._faults.note, "behind"))
        store = opening.open_store(config, self._faults)
        self._sender = Sender(
            Outbox(
                Bounds(config.queue_images, config.queue_bytes),
                Bounds(math.inf, config.spool_bytes),
                config.queue_full,
            ),
            None if child else opening.open_spool(config, store, self._faults),
            serve=self._process,
            on_result=self._tally.told,
            on_drop=self._tally.dropped,
            faults=self._faults,
            threads=config.upload_threads,
            pause=given.pause,
        )
        retrainer = given.retrainer or opening.default_retrainer()
        if retrainer is not None and not self._behind.inline:
            retrainer = AsideRetrainer(retrainer, partial(self._faults.note, "retrainer"))
        load = opening.on_service(
            given.load or opening.loader(config, store), self._backend.capabilities
        )
        self._loop = Loop(  # changed by turns; its counters are read at any time
            config,
            agents=AgentCache(store, load, config.alias, self._faults),
            memory=None if child else opening.open_memory(config, store, self._faults),
            retrainer=retrainer,
            faults=self._faults,
            on_state_change=self._hooks.on_state_change,
            on_swap=self._tally.swapped,
        )
        rng = given.rng or np.random.default_rng(config.seed)
        self._turns = Turns(self._loop, rng, self._faults, patient=self._behind.inline)
        self._stale = False
        give_back()  # building an engine leaves a lot
        self._sender.take_over()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("The client is closed; make a new EdgeClient.")
        if self._stale:
            with self._closing:
                if self._stale:
                    self._begin_life()

    def _process(self, image: reading.Source, key: str = "") -> Result:
        begun = self._clock()
        picture = reading.load(image)
        loaded = self._clock()
        plan = self._turns.plan()
        errand = Errand(
            plan,
            backend=self._backend,
            faults=self._faults,
            agreement=(self._config.metric, self._config.min_score),
            explore_rungs=self._config.explore_rungs,
            clock=self._clock,
            hooks=self._hooks,
            link=self._link,
            link_aware=self._config.link_aware,
            gate=self._gate,
            recode=self._recode,
        )
        outcome = errand.outcome
        outcome.milliseconds["load"] = (loaded - begun) * 1000.0
        try:
            served, answer = errand.serve(picture)
        finally:
            self._tally.uploaded(outcome)
        if self._behind.inline:  # the result tells of everything
            self._learn(plan, errand)
        result = self._result(plan, outcome, served, answer, key)
        if not self._behind.inline and plan.agent is not None:
            learn = partial(self._learn, plan, errand)
            if not self._behind.submit(learn, weight=errand.weight):
                self._tally.dropped("behind", key)
        self._tally.served(result, self._sender.waiting, self._link.uplink)
        return result

    def _result(
        self, plan: Plan, outcome: Outcome, served: Parcel, answer: Recognition, key: str
    ) -> Result:
        compared = outcome.comparisons
        return Result(
            labels=answer.labels,
            rung=served.rung,
            as_is=served.as_is,
            bytes=len(served.jpeg),
            wire_bytes=answer.wire_bytes,
            uploaded_wire_bytes=outcome.uploaded_wire_bytes,
            calls=outcome.calls,
            milliseconds=dict(outcome.milliseconds),
            state=plan.state,
            agent_id=_who(plan, outcome),
            p_est=self._loop.state.p_est,
            agreement=compared[0].agreement if compared else None,
            fallback=outcome.fallback or None,
            skipped=outcome.skipped or None,
            key=key,
        )

    def _learn(self, plan: Plan, errand: Errand) -> None:
        """Compare and tell the loop; runs behind."""
        outcome = errand.outcome
        calls, wire_bytes = outcome.calls, outcome.uploaded_wire_bytes
        errand.compare()
        self._tally.uploaded(outcome, calls, wire_bytes)
        for reason in outcome.drops.elements():
            self._tally.dropped(reason)
        self._turns.learn(plan, outcome)


@dataclass(frozen=True)
class _Given:
    """What the caller brought; a forked child makes its own of the rest."""

    retrainer: Retrainer | None
    behind: Behind | None
    rng: np.random.Generator | None
    load: Load | None
    pause: Callable[[int], float]
    metrics: MetricsSink | None


def _who(plan: Plan, outcome: Outcome) -> str | None:
    """Return the id of the agent that decided, or of the one that was to."""
    decided = outcome.decision.agent if outcome.decision else ""
    return decided or (plan.agent.id if plan.agent else None)


#: Clients of this process, so that a forked child knows which to begin anew.
_CLIENTS: weakref.WeakSet[EdgeClient] = weakref.WeakSet()


def _forked() -> None:
    for client in _CLIENTS:
        # An SQLite file that is closed here would be checkpointed under its owner's feet, and
        # garbage collection closes: one reference too many keeps it open to the end.
        for part in (client._loop, client._sender):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(part))
        client._stale, client._closing = True, threading.Lock()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_forked)
