"""The trade-off between certificates: a verified miss makes the device careful, hits relax it.

A certificate holds for the scenery and the service that it was won on. On the device a few uploads
are verified anyway (estimation), and λ moves with each: ``log λ += η·(error − (1 − target))``, an
adaptive conformal step (Gibbs & Candès 2021, https://arxiv.org/abs/2106.00170) that brings the
long-run error to the target whatever changes. λ never falls below the certified one.

    >>> steering = Steering(rate=1.0, target=0.95)
    >>> steering.verified(0.0)
    >>> round(steering.caution, 3)
    2.586
    >>> for _ in range(100):
    ...     steering.verified(1.0)
    >>> steering.caution
    1.0
"""

from __future__ import annotations

import math

__all__ = ["MOST", "Steering"]

#: Largest factor: from here on everything goes out at the safest rung anyway.
MOST = 1000.0


class Steering:
    """Keeps the factor on an agent's certified λ.

    Args:
        rate: η; 0 keeps λ where it is.
        target: the agreement that was promised.
    """

    def __init__(self, rate: float, target: float) -> None:
        self._rate, self._target = rate, target
        #: Factor on the certified λ, from 1 to ``MOST``.
        self.caution = 1.0

    def verified(self, agreement: float) -> None:
        """Take in the agreement, in [0, 1], of one upload of the agent's own choice."""
        step = self._rate * ((1.0 - agreement) - (1.0 - self._target))
        self.caution = min(max(self.caution * math.exp(step), 1.0), MOST)
