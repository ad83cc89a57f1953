"""The replay memory buffer D of Algorithm 1: a ring of the last N transitions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "ReplayBuffer"]


class Batch(NamedTuple):
    """A mini-batch of B transitions (φ_j, c_j, r_j, φ_{j+1})."""

    features: NDArray[np.float32]  # (B, D)
    rungs: NDArray[np.int64]  # (B,)
    rewards: NDArray[np.float32]  # (B,)
    next_features: NDArray[np.float32]  # (B, D)


class ReplayBuffer:
    """The last ``capacity`` transitions, oldest overwritten first."""

    def __init__(self, capacity: int, dimension: int) -> None:
        self.capacity = capacity
        self._features = np.zeros((capacity, dimension), dtype=np.float32)
        self._next_features = np.zeros((capacity, dimension), dtype=np.float32)
        self._rungs = np.zeros(capacity, dtype=np.int64)
        self._rewards = np.zeros(capacity, dtype=np.float32)
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def add(
        self,
        features: NDArray[np.float32],
        rung: int,
        reward: float,
        next_features: NDArray[np.float32],
    ) -> None:
        """Store one transition; features are (D,)."""
        slot = self._added % self.capacity
        self._features[slot], self._next_features[slot] = features, next_features
        self._rungs[slot], self._rewards[slot] = rung, reward
        self._added += 1

    def sample(self, size: int, rng: np.random.Generator) -> Batch:
        """Return ``size`` different transitions, all there are if fewer."""
        rows = rng.choice(len(self), size=min(size, len(self)), replace=False)
        return Batch(
            self._features[rows], self._rungs[rows], self._rewards[rows], self._next_features[rows]
        )
