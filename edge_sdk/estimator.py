"""The paper's estimator: how often to look, and when the current agent no longer fits.

    p_est = p_0 + ω · Σ ∇Ā_n        (section 3.5.2)

with Ā_n the mean of the last n observed agreements. Two readings of the printed text:

* for N < n it divides by n a sum that runs to n; we take the mean of the N agreements there are;
* for N >= n its sum has n + 1 terms; we take the last n.

The gradients are differences of successive means, so their sum telescopes to (Ā now − Ā at the
start). The sum is not clipped, only the probability that comes out of it: an agent that was good
for long is not "forgiven" a later loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from model_store.errors import UsageError

__all__ = ["TABLE_1", "Estimator", "LoopParameters", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopParameters:
    """The loop's parameters in the paper's notation; the defaults are Table 1.

    Attributes:
        n: window of recent steps.
        p_0: initial probability of an estimation.
        omega: ω, how strongly a loss of agreement raises that probability; negative.
        A_0: agreement threshold; below it the agent does not fit.
        r_th: reward that a retrained agent must exceed.
        p_min: floor of p_est, not in the paper. Without it p_est can reach 0, and then nothing is
            ever observed again; the authors' code uses 0.2, at the price of 20 % extra calls.
        p_max: ceiling of p_est, not in the paper; the authors' code uses 0.95.
    """

    n: int = 10
    p_0: float = 0.2
    omega: float = -3.0
    A_0: float = 0.8
    r_th: float = 0.45
    p_min: float = 0.02
    p_max: float = 1.0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"The window n is {self.n}; allowed is 1 or more.")
        if not 0.0 < self.p_min <= self.p_max <= 1.0:
            raise UsageError(
                f"p_min is {self.p_min} and p_max is {self.p_max}; allowed is "
                "0 < p_min <= p_max <= 1."
            )
        for name in ("p_0", "A_0"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is 0 to 1.")
        for name in ("omega", "r_th"):
            if not math.isfinite(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is a finite number.")


TABLE_1 = LoopParameters()


@dataclass(frozen=True, slots=True)
class Estimator:
    """Recent agreements of one agent, and what follows from them; immutable.

    >>> watch = Estimator(TABLE_1).observe(1.0)
    >>> watch.p_est
    0.2
    >>> round(watch.observe(0.0).p_est, 6)  # Ā fell by 0.5: 0.2 + 1.5, clipped
    1.0
    """

    parameters: LoopParameters
    window: tuple[float, ...] = ()
    start: float | None = None

    @classmethod
    def started(cls, parameters: LoopParameters, agreements: Sequence[float]) -> Self:
        """Begin with the agreements that got an agent accepted; their mean is the start."""
        window = tuple(agreements)[-parameters.n :]
        return cls(parameters, window, mean(window) if window else None)

    def observe(self, agreement: float) -> Self:
        """Return the estimator that has seen one more agreement."""
        window = (*self.window, agreement)[-self.parameters.n :]
        start = mean(window) if self.start is None else self.start
        return replace(self, window=window, start=start)

    @property
    def patience(self) -> int:
        """Pictures looked at between an alarm and the ranking of cached agents.

        The first few pictures of a new scenery ring the alarm, and a window with old ones in it is
        near to no scenery.
        """
        return self.parameters.n

    @property
    def judged(self) -> bool:
        """Tell whether a new agent was judged by this answer; the paper never takes one back."""
        return False

    def restarted(self, agreements: Sequence[float]) -> Self:
        """Begin with an agent that these agreements got accepted."""
        return self.started(self.parameters, agreements)

    def verdict(self, agreements: Sequence[float]) -> Literal["passed", "failed", "open"]:
        """Judge an agent on trial by n agreements, or by fewer once it cannot reach A_0."""
        left = self.parameters.n - len(agreements)
        if mean((*agreements, *(1.0 for _ in range(left)))) < self.parameters.A_0:
            return "failed"
        return "open" if left else "passed"

    @property
    def average(self) -> float | None:
        """Ā_n, or None before the first observation."""
        return mean(self.window) if self.window else None

    @property
    def p_est(self) -> float:
        """The probability that the next picture is estimated, clipped to [p_min, p_max]."""
        chosen = self.parameters
        gradients = 0.0 if self.start is None else mean(self.window) - self.start
        return min(max(chosen.p_0 + chosen.omega * gradients, chosen.p_min), chosen.p_max)

    @property
    def failing(self) -> bool:
        """Tell whether the window is full and Ā_n < A_0."""
        full = len(self.window) == self.parameters.n
        return full and mean(self.window) < self.parameters.A_0


def mean(values: Sequence[float]) -> float:
    """Return the mean of a non-empty sequence, exact enough that 8 of 10 is 0.8."""
    return math.fsum(values) / len(values)
