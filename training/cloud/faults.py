"""What goes wrong on purpose, and how long an answer takes: drawn from the seed and the picture.

A draw hangs on the seed, the picture's bytes, and what was drawn for this picture before. So it is
the same in every run, whatever the threads do, and a retry is another draw. A picture is told once
that its token has expired: it comes back with a new one.
"""

from __future__ import annotations

import difflib
import hashlib
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from model_store.errors import UsageError

__all__ = ["FAULTS", "MIXED", "Draw", "Draws", "checked", "parse_faults"]

#: Fault -> what the client sees.
FAULTS: Mapping[str, str] = {
    "5xx": "the vendor's own failure",
    "reset": "the connection is reset instead of an answer",
    "slow": "the answer trickles, see --slow-seconds",
    "malformed": "the answer's JSON is cut in half",
    "token": "the token has expired; baidu alone has tokens, elsewhere it is another fault",
    "image": "the picture cannot be processed, in HTTP 200 where the vendor does so",
    "throttle": "the vendor's rate limit",
}

#: What a bare share is divided among; for the rate limit there is --qps.
MIXED = ("5xx", "reset", "slow", "malformed", "token", "image")

_HOW = "Write --faults 0.05 for a mixture, or --faults 5xx=0.1,reset=0.05"


class Draw(NamedTuple):
    """One upload's fate: a fault of ``FAULTS`` or None, and seconds before the model looks."""

    fault: str | None
    latency_s: float


class Draws:
    """Draws fates; safe to use from several threads.

    Args:
        seed: decides all of them.
        faults: fault -> share of the uploads.
        latency_s, jitter_s: mean of the delay, and how far it goes to either side.
    """

    def __init__(
        self,
        seed: int,
        faults: Mapping[str, float],
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
    ) -> None:
        self._seed, self._faults = seed, dict(faults)
        self._latency_s, self._jitter_s = latency_s, jitter_s
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()  # guarded by _lock
        self._renewed: set[str] = set()  # pictures that came with an old token; under _lock

    def draw(self, picture: str, without: Collection[str] = ()) -> Draw:
        """Return what happens to the next upload of a picture.

        Args:
            picture: its SHA-256.
            without: faults that cannot be; the others take over their share, if there are others.
        """
        if not self._faults and not self._jitter_s:
            return Draw(None, self._latency_s)
        with self._lock:
            time = self._seen[picture]
            self._seen[picture] += 1
            if picture in self._renewed:
                without = {*without, "token"}
            fault = self._fault(self._uniform("fault", picture, time), without)
            if fault == "token":
                self._renewed.add(picture)
        swing = 2.0 * self._uniform("latency", picture, time) - 1.0
        return Draw(fault, max(0.0, self._latency_s + swing * self._jitter_s))

    def _uniform(self, what: str, picture: str, time: int) -> float:
        """Return a number in [0, 1) that hangs on nothing else."""
        digest = hashlib.sha256(f"{self._seed}/{what}/{picture}/{time}".encode()).digest()
        return int.from_bytes(digest[:7], "big") / (1 << 56)

    def _fault(self, at: float, without: Collection[str]) -> str | None:
        shares = {fault: share for fault, share in self._faults.items() if fault not in without}
        if len(shares) < len(self._faults):
            at *= sum(shares.values()) / sum(self._faults.values())
        for fault, share in shares.items():
            at -= share
            if at < 0.0:
                return fault
        return None


def parse_faults(text: str) -> dict[str, float]:
    """Read ``SHARE`` of all uploads, or ``FAULT=SHARE,...``.

    >>> parse_faults("5xx=0.1,slow=0.05")
    {'5xx': 0.1, 'slow': 0.05}
    >>> parse_faults("0.75")["reset"]
    0.125

    Raises:
        UsageError: it is neither, or the shares are more than 1.
    """
    try:
        if "=" not in text:
            shares = dict.fromkeys(MIXED, float(text) / len(MIXED))
        else:
            pairs = [part.partition("=") for part in text.split(",")]
            shares = {name.strip(): float(share) for name, _, share in pairs}
    except ValueError:
        raise UsageError(f"--faults {text} is not understood. {_HOW}.") from None
    return {fault: share for fault, share in checked(shares).items() if share}


def checked(shares: Mapping[str, float]) -> Mapping[str, float]:
    """Return the shares of the uploads that fail.

    Raises:
        UsageError: there is no such fault, or they are not shares of one whole.
    """
    for name in shares:
        if name not in FAULTS:
            close = difflib.get_close_matches(name, FAULTS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"There is no fault {name!r}; known: {', '.join(FAULTS)}.{hint}")
    # The slack is for sums such as six sixths.
    if not all(share >= 0.0 for share in shares.values()) or sum(shares.values()) > 1.0 + 1e-9:
        given = ", ".join(f"{name}={share:g}" for name, share in shares.items())
        raise UsageError(f"The faults' shares are {given}; allowed is 0 to 1 together. {_HOW}.")
    return shares
