"""The agents of a store as the loop sees them: loaded when wanted, ranked by their sceneries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge_sdk.agent import Agent
from edge_sdk.config import AgentStore
from edge_sdk.faults import Faults
from edge_sdk.scenery import Glimpse, Signature, rank
from model_store.errors import AgentNotFound, CorruptAgent

if TYPE_CHECKING:
    from model_store import StoredAgent

__all__ = ["AgentCache", "Load"]

Load = Callable[["StoredAgent"], Agent]


class AgentCache:
    """The model caching library of section 3.5. Not thread-safe: the loop holds a lock.

    Args:
        store: where the agents are.
        load: builds, verifies and probes an agent.
        alias: what is begun with and promoted to.
        faults: takes what must not reach the caller.
    """

    def __init__(self, store: AgentStore, load: Load, alias: str, faults: Faults) -> None:
        self._store = store
        self._load = load
        self._alias = alias
        self._faults = faults
        # Agents are immutable: what was read of a manifest once stays true.
        self._signatures: dict[str, Signature | None] = {}

    @property
    def root(self) -> str:
        """The store's folder."""
        return str(self._store.root)

    def first(self) -> tuple[Agent | None, str]:
        """Return the agent to begin with, or None and the reason for serving the reference."""
        try:
            stored, given_up = self._store.load_healthy(self._alias)
        except AgentNotFound as error:
            self._faults.note("store", error)
            return None, "no-agent"
        except Exception as error:  # whatever is wrong with a store must not stop the host
            self._faults.note("store", error)
            return None, "store"
        for name in given_up:
            self._faults.note("store", CorruptAgent(f"Agent {name} is damaged and was given up."))
        try:
            return self._load(stored), ""
        except Exception as error:  # a missing runtime, a foreign engine, a failed probe
            self._faults.note("engine", error)
            return None, "engine"

    def load(self, name: str) -> Agent | None:
        """Return an agent ready to decide, or None if it cannot be used."""
        try:
            return self._load(self._store.load(name))
        except Exception as error:  # see first
            self._faults.note("engine", error)
            return None

    def fresh(self, name: str | None) -> Agent:
        """Return the agent of an id or alias, by default the alias's, ready to decide.

        Raises:
            AgentNotFound, CorruptAgent: the store has no such agent, or it is damaged.
            EngineError: its engine cannot be run here.
        """
        return self._load(self._store.load(self._alias if name is None else name))

    def promote(self, name: str, reason: str) -> None:
        """Let the alias follow the loop, so that a restart resumes with this agent."""
        try:
            self._store.promote(name, alias=self._alias, reason=reason)
        except Exception as error:  # a store mounted read-only serves all the same
            self._faults.note("store", error)

    def ranked(self, recent: Sequence[Glimpse]) -> tuple[str, ...]:
        """Return the agents whose scenery recent pictures may be of, the likeliest first."""
        try:
            names = self._store.ids()
        except Exception as error:  # see first
            self._faults.note("store", error)
            return ()
        found = {name: self._signature(name) for name in names}
        known = {name: signature for name, signature in found.items() if signature is not None}
        return tuple(match.id for match in rank(known, recent) if match.within)

    def next_scenery(self) -> str:
        """Return a name for a scenery that no agent was trained on."""
        try:
            return f"scenery-{len(self._store.ids())}"
        except Exception as error:  # see first
            self._faults.note("store", error)
            return "scenery"

    def _signature(self, name: str) -> Signature | None:
        if name not in self._signatures:
            try:
                document = (self._store.manifest(name).scenery or {}).get("signature")
                self._signatures[name] = Signature.from_dict(document) if document else None
            except Exception as error:  # an unreadable manifest takes only its agent out
                self._faults.note("store", error)
                self._signatures[name] = None
        return self._signatures[name]
