"""Says in words whether an agent was worth it: against fixed rungs, at equal agreement."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.measure import baselines
from training.measure.intervals import Interval, bootstrap

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = ["Verdict", "judge"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: With fewer photos a bootstrap has next to nothing to resample; no verdict is drawn from it.
LEAST_PHOTOS = 5

#: Size ratios that differ by less are equal: a fixed rung must not beat itself by rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Is the agent at or below the best fixed rungs' bytes, at equal agreement?

    Attributes:
        outcome: ``better`` or ``worse`` if the interval of ``difference`` excludes zero, else
            ``unclear``.
        sentence: the same for people.
        agreement: the agent's, where both are compared.
        size_ratio: the agent's.
        fixed_size_ratio: of the best mixture of fixed rungs with that agreement on the very same
            pictures; it is found in hindsight, so no fixed rung could have done better.
        difference: agent - fixed, paired; below zero is good.
        saving: 1 - agent / fixed, paired.
    """

    outcome: Literal["better", "unclear", "worse"]
    sentence: str
    agreement: float
    size_ratio: float
    fixed_size_ratio: float
    difference: Interval
    saving: Interval

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def judge(
    table: AnswerTable,
    choices: Ints,
    *,
    rng: np.random.Generator,
    metric: str = "any_hit",
    target: float | None = None,
    against: AnswerTable | None = None,
    opponent: str = "fixed rung",
) -> Verdict:
    """Compare a policy with fixed rungs, at equal agreement.

    Args:
        table: answers on pictures that the policy never saw.
        choices: each picture's rung, (n,).
        rng: source of the bootstrap.
        metric: which agreement.
        target: the agreement target; missing it is said in the sentence.
        against: the same pictures on the ladder whose fixed rungs are the opponents; default is
            the policy's own.
        opponent: what such a fixed rung is called.
    """
    rivals = table if against is None else against
    sizes = baselines.chosen(table.size_ratio, choices)
    agrees = baselines.chosen(table.agreement[metric], choices)

    def compared(weights: Floats) -> tuple[float, float]:
        size, agreement = np.average([sizes, agrees], axis=1, weights=weights)
        points = baselines.fixed_points(rivals, metric=metric, weights=weights)
        best = baselines.size_at_agreement(points, float(agreement))
        return float(size) - best, 1 - float(size) / best

    difference, saving = bootstrap(compared, table.groups, rng=rng)
    photos = len(np.unique(table.groups))
    outcome = _outcome(difference) if photos >= LEAST_PHOTOS else "unclear"
    agreement = float(agrees.mean())
    return Verdict(
        outcome=outcome,
        sentence=_sentence(outcome, saving, agreement, photos, opponent)
        + _missed(agreement, target),
        agreement=agreement,
        size_ratio=float(sizes.mean()),
        fixed_size_ratio=float(sizes.mean()) - difference.mean,
        difference=difference,
        saving=saving,
    )


def _outcome(difference: Interval) -> Literal["better", "unclear", "worse"]:
    if difference.hi < -ROUNDING:
        return "better"
    return "worse" if difference.lo > ROUNDING else "unclear"


def _sentence(outcome: str, saving: Interval, agreement: float, photos: int, opponent: str) -> str:
    amount = (
        f"it sends {_bytes(saving.mean)} the best mixture of {_plural(opponent)} at the same "
        f"agreement of {agreement:.3f} (95 % interval {_range(saving)}), on {photos} photos it "
        "never saw"
    )
    if photos < LEAST_PHOTOS:
        return f"No verdict, {photos} photos are too few to tell: {amount}."
    if outcome == "better":
        return f"The agent beats the best {opponent}: {amount}."
    if outcome == "worse":
        return f"The agent does not beat the best {opponent}: {amount}. Use the {opponent}."
    return (
        f"It is not shown that the agent beats the best {opponent}, because the interval includes "
        f"zero: {amount}."
    )


def _plural(noun: str) -> str:
    return noun.removesuffix("y") + "ies" if noun.endswith("y") else f"{noun}s"


def _bytes(saving: float) -> str:
    return "as many bytes as" if abs(saving) < 0.0005 else f"{_amount(saving)} bytes than"


def _amount(saving: float) -> str:
    return f"{100 * abs(saving):.1f} % " + ("fewer" if saving >= 0 else "more")


def _range(saving: Interval) -> str:
    if saving.lo < 0 <= saving.hi:
        return f"{_amount(saving.lo)} to {_amount(saving.hi)}"
    smaller, larger = sorted((saving.lo, saving.hi), key=abs)
    return f"{100 * abs(smaller):.1f} % to {_amount(larger)}"


def _missed(agreement: float, target: float | None) -> str:
    if target is None or agreement >= target:
        return ""
    return f" Its agreement there, {agreement:.3f}, is below the target of {target:g}."
