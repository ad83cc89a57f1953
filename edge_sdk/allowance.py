"""What adapting may cost: hard caps on bytes and on extra calls, whatever the monitors want.

Bytes: in no window of 1,000 pictures more than ``1 + slack`` times what the references would have
weighed. What was saved before does not count, for a window may begin anywhere; the debt is the
largest excess of any run of pictures that ends now, and may reach ``slack`` times 1,000 pictures,
trusted to weigh four fifths of those seen lately in the mean. Where a reference was not encoded its
weight is unknown, and the upload is taken to have saved nothing; who is in debt had better weigh
it.

Calls: a cap in any 1,000 pictures, and a share of the pictures for what has no end: verifying and
canaries.

    if allowance.affords(1):          # extra calls for the picture at hand
        ...
    allowance.used(uploaded=31_000, reference=30_000, extra=1, steady=True)
"""

from __future__ import annotations

from collections import deque

from edge_sdk.states import Task

__all__ = ["WINDOW", "Allowance"]

#: Pictures of the window that the caps hold in.
WINDOW = 1000

#: Steady calls that may be saved up for a time of doubt.
_SAVED = 20.0
#: Share of the mean weight lately that pictures to come are trusted to have.
_TRUST = 0.8
_LATELY = 200

#: A task without its extra uploads.
_PLAIN = {
    Task.COMPRESSED_AND_REFERENCE: Task.COMPRESSED,
    Task.REFERENCE_AND_TRIAL: Task.REFERENCE,
    Task.REFERENCE_AND_EXPLORED: Task.REFERENCE,
}


class Allowance:
    """Counts what was spent. Not thread-safe: the loop holds a lock.

    Args:
        slack: bytes beyond the references', as a share; None for no cap, as in the paper.
        most_calls: extra calls in any 1,000 pictures.
        share: extra calls a picture that verifying and canaries may take.
    """

    def __init__(self, slack: float | None, most_calls: int, share: float) -> None:
        self._slack, self._most, self._share = slack, most_calls, share
        self._calls: deque[int] = deque(maxlen=WINDOW)
        self._in_window = 0
        self._saved = 0.5 * _SAVED
        self._debt = 0.0
        self._weights: deque[int] = deque(maxlen=_LATELY)
        self._sum = 0

    @property
    def in_debt(self) -> bool:
        """Whether pictures cost more than their references: what others save is worth knowing."""
        return self._slack is not None and self._debt > 0.0

    def affords(self, extra: int = 1, *, steady: bool = False) -> bool:
        """Tell whether the next picture may cost ``extra`` more calls than its own.

        Args:
            extra: calls.
            steady: they are for verifying or for a canary.
        """
        if self._slack is None:
            return True
        first_out = self._calls[0] if len(self._calls) == WINDOW else 0
        if self._in_window - first_out + extra > self._most:
            return False
        if steady and self._saved < extra:
            return False
        heaviest = max(self._weights, default=0)
        trusted = _TRUST * self._sum / max(1, len(self._weights))
        return self._debt + extra * heaviest <= self._slack * WINDOW * trusted

    def within(self, task: Task, explored: int) -> Task:
        """Return a task, without its extra uploads where they would break a cap.

        Args:
            task: what is wanted of the picture at hand.
            explored: uploads that exploring takes.
        """
        if task not in _PLAIN:
            return task
        extra = explored if task is Task.REFERENCE_AND_EXPLORED else 1
        steady = task is Task.COMPRESSED_AND_REFERENCE
        return task if self.affords(extra, steady=steady) else _PLAIN[task]

    def used(
        self,
        *,
        uploaded: int,
        reference: int | None,
        extra: int,
        steady: bool,
        at_least: int = 0,
    ) -> None:
        """Take in one picture.

        Args:
            uploaded: all of its request bytes.
            reference: what its reference weighs, or None if that is not known.
            extra: calls beyond its own.
            steady: they were for verifying or for a canary.
            at_least: what the reference weighs at least.
        """
        if len(self._calls) == WINDOW:
            self._in_window -= self._calls[0]
        self._calls.append(extra)
        self._in_window += extra
        self._saved = min(_SAVED, self._saved + self._share - (extra if steady else 0))
        # Who sends very little never encodes a reference; without credit every check would add up.
        weight = max(uploaded, at_least) if reference is None else reference
        self._debt = max(0.0, self._debt + uploaded - weight)
        if reference is not None:
            if len(self._weights) == _LATELY:
                self._sum -= self._weights[0]
            self._weights.append(reference)
            self._sum += reference
