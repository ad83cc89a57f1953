"""The label-free half of the default monitor: has the stream of pictures left the scenery?

Windows of the last pictures are tested against the agent's signature; short ones notice a great
change soon, long ones a small one. Two pictures in a row have to find a window strange.

A frame that looks like the last one that was counted is not counted again, so a camera at rest
rings no alarm however odd the one thing is that it shows; what is left of the correlation between
frames is taken out of the test itself. The price: a camera at rest tells a slow change late, and
then it is the answers that tell it.

    watch = Straying(signature)
    for glimpse in stream:
        if watch.see(glimpse):
            ...  # rank the cached agents by watch.last(12)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from edge_sdk.scenery import STRANGE, Glimpse, Signature

__all__ = ["WINDOWS", "Straying"]

#: Pictures in the tested windows.
WINDOWS = (12, 16, 24)

#: Two pictures of a scenery are about 1.4 spreads apart in each feature, two frames of a camera at
#: rest a tenth of that.
_NOVEL = 0.5

#: Pictures in a row that must find a window strange.
_IN_A_ROW = 2

#: Below this score nothing points to another scenery.
_FAMILIAR = 0.5 * STRANGE


class Straying:
    """Watches one agent's stream. Not thread-safe: the loop holds a lock.

    Args:
        signature: of the agent's scenery, or None: then it only remembers recent pictures.
    """

    def __init__(self, signature: Signature | None) -> None:
        self._signature = signature
        self._seen: deque[Glimpse] = deque(maxlen=WINDOWS[-1])
        self._moved: deque[Glimpse] = deque(maxlen=WINDOWS[-1])
        self._in_a_row = 0
        #: The last pictures' score; at home about standard normal.
        self.strangeness = 0.0

    def last(self, count: int) -> Sequence[Glimpse]:
        """Return the last ``count`` distinct pictures, or as many as there are."""
        return list(self._seen)[-count:]

    @property
    def suspicious(self) -> bool:
        """Tell whether the pictures look like another scenery, be it too little for an alarm."""
        return self.strangeness >= _FAMILIAR

    def see(self, glimpse: Glimpse) -> bool:
        """Take in a picture; tell whether the stream has strayed by now."""
        if self._seen and self._seen[-1].features.shape != glimpse.features.shape:
            self.forget()  # an agent of another prefix: not comparable
        signature = self._signature
        if signature is None or not signature.knows(glimpse):
            self._seen.append(glimpse)  # for the ranking
            return False
        moved = signature.moved(glimpse)
        if self._moved and _apart(moved, self._moved[-1]) < _NOVEL:
            return False
        self._seen.append(glimpse)
        self._moved.append(moved)
        window = list(self._moved)
        self.strangeness = max(
            (signature.score(window[-size:]) for size in WINDOWS if len(window) >= size),
            default=0.0,
        )
        self._in_a_row = self._in_a_row + 1 if self.strangeness >= STRANGE else 0
        return self._in_a_row >= _IN_A_ROW

    def forget(self) -> None:
        """Begin anew, as after a change of the agent."""
        self._seen.clear()
        self._moved.clear()
        self._in_a_row, self.strangeness = 0, 0.0


def _apart(one: Glimpse, other: Glimpse) -> float:
    """Return the distance of two pictures in spreads of the scenery's features."""
    return float(np.sqrt(np.mean(np.square(one.features - other.features))))
