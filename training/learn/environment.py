"""The emulator environment {X, M} of the paper: pictures of one scenery and a service's answers.

There is no end of episode: pictures come in random order, again and again. The next picture does
not depend on the action, which is why the default learner is a bandit and not this loop.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from training.learn.reward import Reward

__all__ = ["Environment", "Step", "TableEnvironment"]


class Step(NamedTuple):
    """What the environment answers to one action."""

    reward: float
    agreement: float
    size_ratio: float
    features: NDArray[np.float32]  # of the next picture, (D,)


class Environment(Protocol):
    """What a learner acts in."""

    dimension: int
    rungs: int

    def reset(self) -> NDArray[np.float32]:
        """Start and return the first picture's features, (D,)."""

    def step(self, rung: int) -> Step:
        """Upload the current picture at ``rung`` and go on to the next."""


class TableEnvironment:
    """An environment over answers that were already bought.

    Args:
        features: float32 (N, D).
        agreement: (N, K) in [0, 1].
        size_ratio: (N, K), compressed over reference bytes.
        reward: R(Δs, A).
        rng: order of the pictures.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        agreement: NDArray[np.float64],
        size_ratio: NDArray[np.float64],
        *,
        reward: Reward,
        rng: np.random.Generator,
    ) -> None:
        self._features, self._agreement, self._size_ratio = features, agreement, size_ratio
        self._reward, self._rng = reward, rng
        self._order: list[int] = []
        self._current = -1
        self.dimension, self.rungs = features.shape[1], agreement.shape[1]

    def reset(self) -> NDArray[np.float32]:
        """Shuffle the pictures and return the first one's features, (D,)."""
        self._order = []
        return self._next()

    def step(self, rung: int) -> Step:
        """Return the reward of the current picture at ``rung`` and the next picture's features."""
        agreement = self._agreement[self._current, rung]
        size_ratio = self._size_ratio[self._current, rung]
        reward = float(self._reward(agreement, size_ratio))
        return Step(reward, float(agreement), float(size_ratio), self._next())

    def _next(self) -> NDArray[np.float32]:
        if not self._order:
            self._order = self._rng.permutation(len(self._features)).tolist()
        self._current = self._order.pop()
        return self._features[self._current]
