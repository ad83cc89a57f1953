"""Is a decision worth its milliseconds on this link? Measured on the device, not assumed.

The uplink is the median of bytes over upload seconds, of bodies large enough to say something. A
decision saves bytes against the agent's certified fixed rung (the reference where it has none);
over the uplink that is milliseconds. Engine and looks cost some. What gains most is done:

* ``full``: decide as the agent was certified to, with looks if it looks;
* ``plain``: decide without looks, where the agent has an operating point certified for that;
* ``fixed``: send the fixed rung, without any decision.

Every ``AGAIN``-th picture is decided in full, so that a link that became slower is noticed.
"""

from __future__ import annotations

import threading
from collections import deque
from statistics import median

__all__ = ["AGAIN", "LARGE", "Link"]

#: Bytes of a request from which on its duration tells of the link.
LARGE = 16 * 1024
#: See above.
AGAIN = 20
#: Measurements that medians are over, and fewest of them.
_MOST, _FEWEST = 15, 5


class Link:
    """Measures, and chooses what to do; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rates: deque[float] = deque(maxlen=_MOST)  # bytes a second; guarded by _lock
        self._agent = ""  # likewise
        self._costs: deque[tuple[float, float]] = deque(maxlen=_MOST)  # seconds; likewise
        self._saved: deque[tuple[float, float | None]] = deque(maxlen=_MOST)  # bytes; likewise
        self._count = 0  # likewise

    @property
    def uplink(self) -> float | None:
        """Bytes a second, or None while too little was seen."""
        with self._lock:
            return self._uplink()

    def uploaded(self, wire_bytes: int, seconds: float) -> None:
        """Take in one answered upload."""
        if wire_bytes >= LARGE and seconds > 0.0:
            with self._lock:
                self._rates.append(wire_bytes / seconds)

    def decided(
        self, agent: str, costs: tuple[float, float], saved: float, saved_plain: float | None
    ) -> None:
        """Take in one full decision.

        Args:
            agent: who decided; another one begins anew.
            costs: seconds of the engine and of all looks.
            saved: bytes that were sent less than the fixed rung has.
            saved_plain: the same as predicted for a decision without looks; None without
                an operating point for that.
        """
        with self._lock:
            if agent != self._agent:
                self._agent = agent
                self._costs.clear()
                self._saved.clear()
            self._costs.append(costs)
            self._saved.append((saved, saved_plain))

    def mode(self, agent: str) -> str:
        """Return ``full``, ``plain`` or ``fixed`` for the next picture."""
        with self._lock:
            self._count += 1
            known = agent == self._agent and len(self._costs) >= _FEWEST
            uplink = self._uplink()
            if not known or uplink is None or self._count % AGAIN == 0:
                return "full"
            return self._best(uplink)

    def _uplink(self) -> float | None:
        return median(self._rates) if len(self._rates) >= _FEWEST else None

    def _best(self, uplink: float) -> str:
        engine = median(engine for engine, _ in self._costs)
        looks = median(looks for _, looks in self._costs)
        gains = {"fixed": 0.0}
        gains["full"] = median(saved for saved, _ in self._saved) / uplink - engine - looks
        plain = [saved for _, saved in self._saved if saved is not None]
        if plain:
            gains["plain"] = median(plain) / uplink - engine
        return max(gains, key=gains.__getitem__)
