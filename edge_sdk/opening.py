"""What a client opens from its configuration; what cannot be opened on disk is done without."""

from __future__ import annotations

import importlib.util
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.agent import Agent
from edge_sdk.backends.base import Backend, Capabilities
from edge_sdk.cache import Load
from edge_sdk.config import AgentStore, EdgeConfig
from edge_sdk.faults import Faults
from edge_sdk.memory import Memory
from edge_sdk.retrain import ChildProcessRetrainer, Retrainer
from edge_sdk.spool import Spool
from model_store.errors import StoreError

if TYPE_CHECKING:
    from model_store import StoredAgent

_log = logging.getLogger("edge_sdk.opening")

__all__ = [
    "BUILT_IN",
    "default_retrainer",
    "loader",
    "on_service",
    "open_backend",
    "open_memory",
    "open_spool",
    "open_store",
]

#: The agent that came with this package, see ``training.learn.ship``.
BUILT_IN = Path(__file__).with_name("coldstart.bundle")


def open_backend(backend: str | Backend) -> tuple[Backend, bool]:
    """Return the service, and whether it was opened here."""
    if not isinstance(backend, str):
        return backend, False
    from edge_sdk.backends import open_backend  # not needed by a host that brings its own service

    return open_backend(backend), True


def open_store(config: EdgeConfig, faults: Faults) -> AgentStore:
    """Return the store; a folder that is not there is an empty one.

    An empty one gets the agent that came with this package, unless the configuration says no.
    """
    if not isinstance(config.store, str | Path):
        return config.store
    from model_store import Store  # see open_backend

    store = Store(config.store)
    if config.cold_start:
        try:
            if not store.ids():
                store.unpack(BUILT_IN, aliases=[config.alias])
                _log.info("event=cold_start store=%s", store.root)
        except Exception as error:  # a store that cannot be written serves the reference
            faults.note("store", error)
    return store


def open_memory(config: EdgeConfig, store: AgentStore, faults: Faults) -> Memory | None:
    """Return the memory, or None if its file cannot be used."""
    try:
        return Memory(_folder(config, store) / "memory.sqlite", config.max_transitions)
    except Exception as error:  # a full or read-only disk must not stop the host
        faults.note("memory", error)
        return None


def open_spool(config: EdgeConfig, store: AgentStore, faults: Faults) -> Spool | None:
    """Return the spool, or None if none is wanted or its file cannot be used."""
    if not config.spool:
        return None
    try:
        spool = Spool(_folder(config, store) / "spool.sqlite", max_age_s=config.spool_age_s)
    except Exception as error:  # see open_memory; two clients with one folder, too
        faults.note("spool", error)
        return None
    if spool.was_damaged:
        lost = StoreError(f"The spool {str(spool.path)!r} was damaged and was moved aside.")
        faults.note("spool", lost)
    return spool


def _folder(config: EdgeConfig, store: AgentStore) -> Path:
    root = Path(store.root)
    return Path(config.folder) if config.folder else root.with_name(f"{root.name}-device")


def default_retrainer() -> Retrainer | None:
    """Return a child process where there is something to run in it."""
    # A child that cannot even start would be noticed only after paying for its transitions.
    return ChildProcessRetrainer() if importlib.util.find_spec("training") else None


def loader(config: EdgeConfig, store: AgentStore) -> Load:
    """Return what builds agents; engines built for this GPU are in the store's folder."""
    from edge_sdk.assembly import load_agent

    return partial(
        load_agent,
        provider=config.provider,
        strict=config.strict,
        max_probes=config.max_probes,
        cache=Path(store.root) / "cache" / "tensorrt",
    )


def on_service(load: Load, capabilities: Capabilities) -> Load:
    """Return what builds agents that choose only what a service reads."""

    def loaded(stored: StoredAgent) -> Agent:
        return load(stored).on(capabilities)

    return loaded
