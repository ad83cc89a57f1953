"""The loop as threads share it: one at a time, nobody waits long, its mistakes cost no answer.

plan = turns.plan()            # the reference's if something slow has the loop
turns.learn(plan, outcome)     # waits as long as it takes: no answer does
"""

from __future__ import annotations

import threading
import time

import numpy as np

from edge_sdk.agent import Agent
from edge_sdk.errors import ClosedError
from edge_sdk.faults import Faults
from edge_sdk.loop import Loop
from edge_sdk.plan import Outcome, Plan
from edge_sdk.states import Task

__all__ = ["Turns"]

#: Seconds that a picture waits for the loop before it is served at the reference.
_PATIENCE_S = 0.05


class Turns:
    """Takes the loop for one thread at a time, until it is ended.

    Args:
        loop: changed here alone from now on; its state and counters are read without a turn.
        rng: what the loop draws from; likewise.
        faults: takes the loop's mistakes.
        patient: pictures wait for their turn however long that takes.
    """

    def __init__(
        self, loop: Loop, rng: np.random.Generator, faults: Faults, *, patient: bool
    ) -> None:
        self._lock = threading.RLock()  # around the loop and the generator; a hook may come back
        self._loop = loop  # guarded by _lock
        self._rng = rng  # guarded by _lock
        self._ended = False  # guarded by _lock
        self._faults = faults
        self._patient = patient

    def plan(self) -> Plan:
        """Ask the loop what to do; serve the reference if it is occupied by something slow."""
        if not self._lock.acquire(timeout=-1 if self._patient else _PATIENCE_S):
            return Plan(self._loop.state.state, Task.REFERENCE, None, fallback="busy")
        try:
            return self._loop.begin(self._rng)
        except Exception as error:  # a mistake of the loop's must not cost an answer
            self._faults.note("loop", error)
            return Plan(self._loop.state.state, Task.REFERENCE, None, fallback="loop")
        finally:
            self._lock.release()

    def learn(self, plan: Plan, outcome: Outcome) -> None:
        """Tell the loop what became of a picture."""
        try:
            with self._lock:
                if not self._ended:
                    self._loop.finish(plan, outcome)
        except Exception as error:  # see plan
            self._faults.note("loop", error)

    def use(self, agent: Agent, reason: str) -> None:
        """Let the loop begin anew with an agent.

        Raises:
            ClosedError: it was ended.
        """
        with self._lock:
            if self._ended:
                raise ClosedError("The client is closed; make a new EdgeClient.")
            self._loop.use(agent, reason)

    def end(self, deadline: float) -> None:
        """Close the loop, unless something slow holds it beyond a time of ``time.monotonic``."""
        if not self._lock.acquire(timeout=max(_PATIENCE_S, deadline - time.monotonic())):
            error = TimeoutError("something slow still holds the loop; it was left alone")
            self._faults.note("behind", error)
            return
        try:
            self._ended = True
            self._loop.close()
        finally:
            self._lock.release()
