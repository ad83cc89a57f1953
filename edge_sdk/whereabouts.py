"""Which of two sceneries are the pictures of? Who decides about them, and whether they are strange.

An agent of another scenery may stand beside the current one (``edge_sdk.routing``). Each one's
pictures are watched apart; once most of the last ones were the other's, it is time to change over.

    where = Whereabouts(current, other)
    if where.see(glimpse, decision.agent):
        ...                                 # they left the scenery: rank the cached agents
    elif where.returned:
        ...                                 # the other scenery is the current one again
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edge_sdk.agent import Agent
from edge_sdk.scenery import Glimpse
from edge_sdk.straying import Straying

__all__ = ["Whereabouts"]

#: Of the last so many pictures, this many have to be the other scenery's before it is the current;
#: fewer than the last number are strays, which say nothing about that scenery.
_ROUTED, _MOSTLY, _STRAYS = 24, 18, 6


class Whereabouts:
    """Watches the pictures since the agents were last changed. Not thread-safe, as the loop is not.

    Args:
        current: the current agent; None while there is none, or if nothing is to be found strange.
        other: the agent of another scenery that decides about its pictures, or None.
    """

    def __init__(self, current: Agent | None, other: Agent | None = None) -> None:
        self._other = None if other is None else other.id
        self._routed: deque[bool] = deque(maxlen=_ROUTED)
        self._home = Straying(current.signature if current else None)
        self._beside = Straying(other.signature if other else None)

    @property
    def mostly_beside(self) -> bool:
        """Whether most of the last pictures are of the other agent's scenery."""
        return sum(self._routed) >= _MOSTLY

    @property
    def returned(self) -> bool:
        """Whether they are, and the last one, too."""
        return self.mostly_beside and self._routed[-1]

    @property
    def suspicious(self) -> bool:
        """Whether pictures look like neither scenery, be it too little for an alarm."""
        return self._home.suspicious or self._beside.suspicious

    def see(self, glimpse: Glimpse, agent: str) -> bool:
        """Take in a picture and the id of the agent that decided; tell whether it has strayed."""
        routed = agent == self._other
        if self._other is not None:
            self._routed.append(routed)
        strange = (self._beside if routed else self._home).see(glimpse)
        if sum(self._routed) < _STRAYS:
            self._beside.forget()
        return strange

    def last(self, count: int) -> Sequence[Glimpse]:
        """Return the last ``count`` distinct pictures of the scenery that most are of."""
        return (self._beside if self.mostly_beside else self._home).last(count)
