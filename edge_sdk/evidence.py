"""The default monitor: a running bet that the current agent agrees less than it promised.

Each verified answer A multiplies the stake by ``1 + λ·(t − A)``: a fair game or a losing one as
long as the mean of A is at least t, so a stake of 1/δ is evidence against that, whenever one looks
(testing by betting: Waudby-Smith & Ramdas, https://arxiv.org/abs/2010.09686). λ is predictable, it
depends on earlier answers alone: Kelly's bet ``(t − μ)/(t·(1 − t))`` for the mean μ of the last
few answers, and never less than the bet on ``A_0``, so that a long good time does not lull it.

A change may come at any time, so a new bet of 1 is opened with every answer and all of them run on
(the Shiryaev–Roberts e-detector, Shin, Ramdas & Rinaldo, https://arxiv.org/abs/2203.03532):
``R ← (R + 1)·(1 + λ·(t − A))``. While the agent keeps its promise, the mean number of answers
until a false alarm is at least 1/δ, by Doob, whatever the distribution of A.

It does not say *why* agreement fell; the features and canaries do, see ``edge_sdk.loop``.

    >>> watch = Evidence(Betting(target=0.95))
    >>> watch.observe(0.0).p_est > watch.p_est
    True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from edge_sdk.estimator import mean
from model_store.errors import UsageError

__all__ = ["Betting", "Evidence", "Verdict"]

Verdict = Literal["passed", "failed", "open"]

#: Bets stay below this share of the largest that could lose everything.
_BOLDEST = 0.5
#: Weight of the answers so far in μ, at each new one: a memory of about five answers.
_FORGET = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Betting:
    """The default monitor's parameters.

    Attributes:
        target: t, the agreement that was promised; in (0, 1).
        A_0: what an agent that does not fit is supposed to reach at best; below ``target``.
        delta: δ; a false alarm comes once in 1/δ answers at most, in the mean.
        share: of the pictures, verified while there is no doubt.
        doubted: likewise at most, while there is.
        probation: likewise for the first ``n`` answers of a new agent.
        n: answers of the window that a new agent is judged by.
        poor: agreement of a cached agent that does not fit, what a test of it is made against.
        level: error probabilities of that test (Wald's sequential one).
        most: answers after which that test decides either way.
        r_th: reward that a retrained agent must exceed besides.
    """

    target: float = 0.95
    A_0: float = 0.8
    delta: float = 1e-3
    share: float = 0.01
    doubted: float = 0.5
    probation: float = 0.1
    n: int = 10
    poor: float = 0.6
    level: float = 0.1
    most: int = 10
    r_th: float = 0.45

    def __post_init__(self) -> None:
        if not (0.0 < self.A_0 < self.target < 1.0 and 0.0 < self.poor < self.target):
            raise UsageError(
                f"A_0 is {self.A_0}, poor is {self.poor} and the target agreement {self.target}; "
                "allowed are A_0 and poor above 0 and below the target, and a target below 1."
            )
        if not 0.0 < self.delta < 1.0 or not 0.0 < self.level < 0.5:
            raise UsageError(
                f"delta is {self.delta} and level is {self.level}; allowed is between 0 and 1, and "
                "between 0 and 0.5."
            )
        if not 0.0 < self.share <= self.doubted <= 1.0 or not 0.0 <= self.probation <= 1.0:
            raise UsageError(
                f"share is {self.share}, doubted is {self.doubted} and probation is "
                f"{self.probation}; allowed is 0 < share <= doubted <= 1 and 0 to 1."
            )
        if min(self.n, self.most) < 1:
            raise UsageError(f"n is {self.n} and most is {self.most}; allowed is 1 or more.")

    @property
    def smallest_bet(self) -> float:
        """Kelly's bet against an agent of agreement A_0, within the boldest."""
        return _bet(self, self.A_0)

    @property
    def calm(self) -> float:
        """Where R settles while all answers agree: (R + 1)·f = R."""
        factor = 1.0 - self.smallest_bet * (1.0 - self.target)
        return factor / (1.0 - factor)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What verified answers say about one agent; immutable.

    Attributes:
        parameters: of the bet.
        stake: R.
        lately: μ, the forgetting mean of the answers.
        window: the last ``n`` answers.
        seen: answers since the agent was adopted.
    """

    parameters: Betting = field(default_factory=Betting)
    stake: float = 0.0
    lately: float | None = None
    window: tuple[float, ...] = ()
    seen: int = 0
    new: bool = False

    @property
    def patience(self) -> int:
        """Pictures looked at between an alarm and the ranking: none, the alarm is certain."""
        return 0

    def restarted(self, agreements: Sequence[float]) -> Self:
        """Begin with an agent that these agreements got accepted; it is on probation."""
        del agreements  # they were chosen by having passed
        return type(self)(self.parameters, new=True)

    def observe(self, agreement: float) -> Self:
        """Return the evidence after one more verified answer in [0, 1]."""
        chosen = self.parameters
        mu = chosen.target if self.lately is None else self.lately
        bet = max(chosen.smallest_bet, _bet(chosen, mu))
        return replace(
            self,
            stake=(self.stake + 1.0) * (1.0 + bet * (chosen.target - agreement)),
            lately=_FORGET * mu + (1.0 - _FORGET) * agreement,
            window=(*self.window, agreement)[-chosen.n :],
            seen=self.seen + 1,
        )

    @property
    def average(self) -> float | None:
        """The mean of the last answers, or None before the first."""
        return mean(self.window) if self.window else None

    @property
    def p_est(self) -> float:
        """The share of pictures to verify: more the more is at stake, more for a new agent."""
        chosen = self.parameters
        if self.new and self.seen < chosen.n:
            return max(chosen.probation, chosen.share)
        doubt = max(1.0, self.stake / chosen.calm)
        return min(chosen.share * doubt**2, chosen.doubted)

    @property
    def failing(self) -> bool:
        """Tell whether the evidence has reached 1/δ."""
        return self.stake >= 1.0 / self.parameters.delta

    @property
    def judged(self) -> bool:
        """Tell whether this answer completed a new agent's first verified window, or spared it."""
        early = self.failing and self.seen < self.parameters.n
        return self.new and (early or self.seen == self.parameters.n)

    def verdict(self, agreements: Sequence[float]) -> Verdict:
        """Judge an agent on trial by its agreements so far: Wald's test of ``target``.

        Few answers cannot prove the target; they can tell a fitting agent from one that does not
        fit, and the bet goes on afterwards. Without a decision after ``most`` answers the likelier
        hypothesis wins.
        """
        chosen = self.parameters
        good, poor = chosen.target, chosen.poor
        ratio = math.fsum(
            agreement * math.log(good / poor)
            + (1.0 - agreement) * math.log((1.0 - good) / (1.0 - poor))
            for agreement in agreements
        )
        bar = math.log((1.0 - chosen.level) / chosen.level)
        if ratio >= bar:
            return "passed"
        if ratio <= -bar:
            return "failed"
        if len(agreements) < chosen.most:
            return "open"
        return "passed" if ratio > 0.0 else "failed"


def _bet(chosen: Betting, mu: float) -> float:
    """Return Kelly's bet for answers of mean ``mu``, from 0 to the boldest."""
    best = (chosen.target - mu) / (chosen.target * (1.0 - chosen.target))
    return min(max(best, 0.0), _BOLDEST / (1.0 - chosen.target))
