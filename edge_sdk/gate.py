"""A frame that did not change against the last uploaded one has that one's answer.

Unchanged means: the engine's features differ by at most a threshold, as the length of their
difference over the length of the uploaded frame's features. It is always compared with what was
uploaded, never with a frame that was itself passed over, so slow changes add up until one is seen.
Meant for a camera that stands still, and one camera a client.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_sdk.backends.base import Recognition
from edge_sdk.parcel import Parcel

__all__ = ["FrameGate"]

Features = NDArray[np.float32]


class FrameGate:
    """Keeps the last uploaded frame's features and answer; safe to use from several threads.

    Args:
        threshold: largest distance that counts as unchanged; 0.05 is 5 %.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._lock = threading.Lock()
        self._last: tuple[str, Features, Parcel, Recognition] | None = None  # guarded by _lock

    def uploaded(self, agent: str, features: Features, parcel: Parcel, answer: Recognition) -> None:
        """Take in an answered upload; features of another agent are not comparable."""
        kept = replace(parcel, jpeg=b""), replace(answer, wire_bytes=0)
        with self._lock:
            self._last = (agent, features, *kept)

    def match(self, agent: str, features: Features) -> tuple[Parcel, Recognition] | None:
        """Return what was sent and answered if a frame is unchanged; sizes are 0, nothing left."""
        with self._lock:
            last = self._last
        if last is None or last[0] != agent or last[1].shape != features.shape:
            return None
        length = float(np.linalg.norm(last[1]))
        distance = float(np.linalg.norm(features - last[1]))
        return (last[2], last[3]) if distance <= self._threshold * length else None
