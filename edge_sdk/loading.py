"""Load an agent beside the loop: pictures are served meanwhile, and none waits for an engine."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge_sdk.agent import Agent

__all__ = ["Loading"]


class Loading:
    """One agent being loaded on a thread of its own.

    Nobody needs to end it: what it loads after its owner lost interest is dropped.

    Args:
        load: returns the agent, or None if it cannot be used; it must not raise.
        name: the agent's id.
    """

    def __init__(self, load: Callable[[], Agent | None], name: str) -> None:
        self.name = name
        #: What was loaded, once :meth:`wait` has returned True.
        self.agent: Agent | None = None
        self._load = load
        self._thread = threading.Thread(target=self._run, name="adacompress-load", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for so long at most; tell whether loading has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self.agent = self._load()
