"""What the loop did and why, in words: told to the log and to the host, and counted.

chronicle.changed(before, State.QUERYING, cause, alarm="scenery")
chronicle.swapped(old, new, "fits scenery 'night'")
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from edge_sdk.agent import Agent
from edge_sdk.events import Arrived, Changed, Compared, Event, Strayed
from edge_sdk.evidence import Betting
from edge_sdk.faults import Faults
from edge_sdk.states import LoopState, State

__all__ = ["Chronicle", "OnStateChange", "OnSwap"]

_log = logging.getLogger("edge_sdk")

OnStateChange = Callable[[State, State, str], None]
OnSwap = Callable[[str, str, str], None]


class Chronicle:
    """Tells and counts. Not thread-safe: the loop holds a lock.

    Args:
        faults: takes what the host's calls raise.
        on_state_change: called with the old state, the new one and the reason.
        on_swap: called with the old agent's id, the new one's and the reason.
    """

    def __init__(
        self,
        faults: Faults,
        on_state_change: OnStateChange | None = None,
        on_swap: OnSwap | None = None,
    ) -> None:
        self._faults = faults
        self._on_state_change = on_state_change
        self._on_swap = on_swap
        self.swaps = 0
        #: Alarms by cause: scenery, backend, noise.
        self.alarms: Counter[str] = Counter()

    def changed(self, before: LoopState, new: State, cause: Event, alarm: str = "") -> None:
        """Tell of a change of the state; ``alarm`` names the cause of one that rang."""
        reason = _reason(before, cause)
        if alarm:
            self.alarms[alarm] += 1
            reason = f"{reason}; cause: {alarm}"
        drawn = isinstance(cause, Arrived) and new is not State.QUERYING
        level = logging.DEBUG if drawn else logging.INFO
        _log.log(level, "state old=%s new=%s reason=%r", before.state, new, reason)
        self.tell(before.state, new, reason)

    def tell(self, old: State, new: State, reason: str) -> None:
        """Tell the host alone of a change of the state."""
        if self._on_state_change is not None:
            self._faults.guarded("hook", self._on_state_change, old, new, reason)

    def swapped(self, old: Agent | None, new: Agent, reason: str) -> None:
        """Tell of a new current agent."""
        self.swaps += 1
        _log.info("swapped old=%s new=%s", old.id if old else None, new.id)
        if self._on_swap is not None:
            self._faults.guarded("hook", self._on_swap, old.id if old else "", new.id, reason)


def _reason(before: LoopState, cause: Event) -> str:
    """Return in words why ``cause`` changed the state ``before``."""
    match cause:
        case Arrived() if before.state is State.RETRAINING:
            return "rested after a failed retraining"
        case Arrived(xi=xi):
            return f"drew {xi:.3f}, p_est {before.p_est:.3f}"
        case Strayed():
            return "the pictures left the agent's scenery"
        case Changed(what=what):
            return what
        case Compared() if before.trial is None:
            return f"agreement fell below {_promise(before):g}"
        case Compared(agreement=agreement) if before.trial is not None:
            done = len(before.trial.agreements) + 1
            return f"agent {before.trial.agent} after {done} pictures, the last {agreement:g}"
        case _:
            return "no cached agent fits"


def _promise(now: LoopState) -> float:
    chosen = now.parameters
    return chosen.target if isinstance(chosen, Betting) else chosen.A_0
