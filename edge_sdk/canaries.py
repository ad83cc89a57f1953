"""Has the service changed? A few stored pictures are asked about again, and versions compared.

Services answer the same bytes alike until their model is replaced (once for 36 % of the answers of
one service), so a handful of canaries tells a silent change that no picture of the stream could:
each answer that changed, or did not, is a bet against ``noise``, the share of answers that change
by themselves. One that changed makes the others be asked at once.

A canary is the reference upload of a picture that was verified anyway. It stays in this process:
nothing is written to a disk, so a restart chooses new ones.

    watch = BackendWatch(size=8, every=400)
    watch.keep(jpeg, labels)          # after a verified upload
    watch.due(images)                 # the canary to ask about now, or None
    watch.asked(canary, labels)       # True once the service has changed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_sdk.backends.base import Label

__all__ = ["BackendWatch", "Canary"]

#: Share of answers that change without a change of the model, at most.
_NOISE = 0.05
#: Share that a new model changes, at least; 0.36 was measured of one service over a year.
_CHANGED = 0.3
#: Evidence of a change that rings the alarm: once in as many rounds by chance, at most.
_ALARM = 100.0
#: Pictures between two canaries while one of them has changed.
_SOON = 2


@dataclass(frozen=True, slots=True)
class Canary:
    """A stored reference upload and the label that the service found best, or None."""

    jpeg: bytes
    best: str | None


class BackendWatch:
    """Watches the service. Not thread-safe: the loop holds a lock.

    Args:
        size: canaries kept; 0 keeps none, then only the model's version is watched.
        every: pictures between two canaries.
    """

    def __init__(self, size: int, every: int) -> None:
        self._size, self._every = size, every
        self._canaries: list[Canary] = []
        self._next = 0  # place of the canary that is asked about next
        self._last = 0  # picture at which the last one was
        self._evidence = 1.0
        self._version: str | None = None

    @property
    def suspicious(self) -> bool:
        """Tell whether an answer has changed, be it too little for an alarm."""
        return self._evidence > 1.0

    def told(
        self, version: str | None, canary: Canary | None, labels: Sequence[Label] | None
    ) -> str | None:
        """Take in what one picture's answers say of the service.

        Args:
            version: of its model, as it says itself, or None.
            canary: what was asked about again, or None.
            labels: the answer to it, or None.

        Returns:
            The change in words, or None.
        """
        changed = self.version(version)
        if changed is not None or canary is None or labels is None:
            return changed
        if not self.asked(canary, labels):
            return None
        self.forget()
        return "the service answers stored pictures otherwise than before"

    def version(self, told: str | None) -> str | None:
        """Take in what an answer says about its model; return the change in words, or None."""
        known, self._version = self._version, told or self._version
        if told is None or known is None or told == known:
            return None
        self.forget()
        return f"the service's model changed from {known} to {told}"

    def keep(self, jpeg: bytes, labels: Sequence[Label]) -> None:
        """Store a verified reference, if canaries are wanted and an answer could change."""
        if len(self._canaries) < self._size and labels:
            self._canaries.append(Canary(jpeg, _best(labels)))

    def due(self, image: int) -> Canary | None:
        """Return the canary to ask about with picture number ``image``, or None."""
        wait = _SOON if self.suspicious else self._every
        if not self._canaries or image - self._last < wait:
            return None
        self._last = image
        canary = self._canaries[self._next % len(self._canaries)]
        self._next += 1
        return canary

    def asked(self, canary: Canary, labels: Sequence[Label]) -> bool:
        """Take in the answer to a canary; tell whether the service has changed."""
        if canary not in self._canaries:  # it was on its way when all were forgotten
            return False
        if _best(labels) != canary.best:
            self._evidence *= _CHANGED / _NOISE
        else:
            self._evidence = max(1.0, self._evidence * (1.0 - _CHANGED) / (1.0 - _NOISE))
        return self._evidence >= _ALARM

    def forget(self) -> None:
        """Begin anew with new canaries: the old ones' answers are another model's."""
        self._canaries.clear()
        self._evidence = 1.0


def _best(labels: Sequence[Label]) -> str | None:
    return labels[0].name if labels else None
