"""The paper's reward (section 3.4): r = α·A − Δs + β."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Reward"]


@dataclass(frozen=True)
class Reward:
    """Linear trade between agreement and bytes.

    Attributes:
        alpha: worth of agreement, in reference sizes.
        beta: constant offset.
    """

    alpha: float = 1.0
    beta: float = 0.0

    def __call__(
        self, agreement: NDArray[np.float64], size_ratio: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the reward of any shape of agreement in [0, 1] and size ratio > 0."""
        return self.alpha * agreement - size_ratio + self.beta
