"""The agents at hand and their parts: the current one, one beside it, one on trial, the one before.

crew.put_on_trial("night-0123456789ab")     # LoadFailed at once, later, or never
crew.become(crew.trial, beside=crew.current)
Plan(..., agent=crew.decider)
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.agent import Agent
from edge_sdk.cache import AgentCache
from edge_sdk.events import Event, LoadFailed
from edge_sdk.loading import Loading
from edge_sdk.routing import Pair

__all__ = ["Crew"]


class Crew:
    """Not thread-safe: the loop holds a lock. Pictures under way keep the agent they began with.

    Args:
        agents: the cached agents.
        wait_s: seconds that a picture waits for an agent that is being loaded.
    """

    def __init__(self, agents: AgentCache, wait_s: float) -> None:
        self._agents = agents
        self._wait_s = wait_s
        self._loading: Loading | None = None
        self._previous: Agent | None = None  # to go back to
        self.current, self.why_none = agents.first()
        #: An agent of another scenery, which decides about that scenery's pictures.
        self.beside: Agent | None = None
        #: What the state machine tries out, once it is loaded.
        self.trial: Agent | None = None

    @property
    def decider(self) -> Agent | None:
        """Who looks at pictures: the current agent, with the one beside it."""
        if self.current is None or self.beside is None:
            return self.current
        return Pair.of(self.current, self.beside)

    def become(self, new: Agent, beside: Agent | None) -> None:
        """Make an agent the current one, by one assignment."""
        changed = self.current is not None and self.current.id != new.id
        self._previous = self.current if changed else self._previous
        self.current, self.beside = new, beside

    def former(self, name: str) -> Agent | None:
        """Return the agent to go back to, or None if it is gone meanwhile."""
        known = self._previous if self._previous and self._previous.id == name else None
        return known or self._agents.load(name)

    def put_on_trial(self, name: str) -> Sequence[Event]:
        """Load an agent, unless it is at hand; return what follows at once."""
        self.trial = None
        for known in (self.current, self._previous, self.beside):
            if known is not None and known.id == name:
                self.trial = known
                return []
        self._loading = Loading(lambda: self._agents.load(name), name)
        return self.loaded()

    def loaded(self) -> Sequence[Event]:
        """Take the agent on trial if it is loaded by now; return what follows."""
        if self._loading is None or not self._loading.wait(self._wait_s):
            return []
        self.trial, name, self._loading = self._loading.agent, self._loading.name, None
        return [] if self.trial else [LoadFailed(name)]

    def end_trial(self) -> None:
        """Let go of the agent on trial: its engine holds memory that may be needed."""
        self.trial = self._loading = None

    def close(self) -> None:
        """Take no agent any more that is being loaded."""
        self._loading = None
