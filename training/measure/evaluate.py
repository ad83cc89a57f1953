"""Measures policies on held-out pictures, and says in words whether the agent was worth it.

Everything here reads answers that were already paid for; nothing is uploaded. Not here: choosing
rungs (``baselines``, the engines) and writing reports (``report``).

    results = evaluate_policies(table, agent_choices, known=calibration, paper=paper_table,
                                known_paper=paper_calibration, target=0.95, rng=rng)
    print(judge(table, agent_choices, target=0.95, rng=rng).sentence)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agreement import METRICS
from model_store.errors import UsageError
from training.measure import baselines
from training.measure.intervals import Interval, Resampling, bootstrap, resample

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = [
    "PolicyResult",
    "Verdict",
    "evaluate",
    "evaluate_policies",
    "gap_interval",
    "judge",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: With fewer photos a bootstrap has next to nothing to resample; no verdict is drawn from it.
LEAST_PHOTOS = 5
#: Size ratios that differ by less are equal: a fixed rung must not beat itself by rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """What one policy costs and how well it does.

    Attributes:
        size_ratio: mean of JPEG bytes / reference bytes.
        wire_ratio: mean of request-body bytes / the reference's.
        agreement: each metric's mean agreement.
        calls_per_image: calls to the service.
        rung: the one rung that a fixed policy uses, else None.
    """

    size_ratio: Interval
    wire_ratio: Interval
    agreement: Mapping[str, Interval]
    calls_per_image: Interval
    rung: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, every figure as ``{mean, lo, hi}``."""
        document: dict[str, Any] = {
            "size_ratio": self.size_ratio.as_dict(),
            "wire_ratio": self.wire_ratio.as_dict(),
            "agreement": {name: figure.as_dict() for name, figure in self.agreement.items()},
            "calls_per_image": self.calls_per_image.as_dict(),
        }
        return document if self.rung is None else document | {"rung": self.rung}


#: By definition: one call with the reference itself.
_ONE = Interval.exactly(1.0)
REFERENCE = PolicyResult(
    size_ratio=_ONE,
    wire_ratio=_ONE,
    agreement=dict.fromkeys(METRICS, _ONE),
    calls_per_image=_ONE,
)


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


def evaluate(
    table: AnswerTable,
    choices: Ints,
    *,
    rng: np.random.Generator,
    calls_per_image: float | Floats = 1.0,
) -> PolicyResult:
    """Measure one policy on ``table``.

    Args:
        table: answers on pictures that the policy never saw.
        choices: each picture's rung, (n,).
        rng: source of the bootstrap.
        calls_per_image: calls to the service, one number or one per picture.
    """
    return _evaluate(table, choices, resample(table.groups, rng), calls_per_image)


def evaluate_policies(
    table: AnswerTable,
    agent: Ints,
    *,
    known: AnswerTable,
    paper: AnswerTable,
    known_paper: AnswerTable,
    target: float,
    rng: np.random.Generator,
    dqn: Ints | None = None,
    metric: str = "any_hit",
    certificate: baselines.Certificate | None = None,
    agent_calls: float | Floats = 1.0,
    dqn_calls: float | Floats = 1.0,
) -> dict[str, PolicyResult]:
    """Measure the agent and everything it is compared with.

    All policies share one set of draws, so their intervals may be compared with each other.

    Args:
        table: held-out answers on the agent's ladder.
        agent: the agent's choices on ``table``.
        known: training and calibration answers on that ladder; the best fixed rung is chosen there.
        paper: the held-out pictures' answers on the paper's ladder.
        known_paper: training and calibration answers on the paper's ladder.
        target: the agreement target.
        rng: source of the random policy and of the bootstrap.
        dqn: the paper DQN's choices on ``paper``.
        metric: which agreement the target and the oracle are about.
        certificate: what a best fixed rung must pass besides, see ``baselines.best_fixed``.
        agent_calls: the agent's calls to the service, one number or one per picture.
        dqn_calls: the paper DQN's.

    Returns:
        Policy name to result, named as in ``adacompress.report/1``.
    """
    if not np.array_equal(table.keys, paper.keys):
        raise UsageError(
            f"The two answer tables are of different pictures ({len(table.keys)} and "
            f"{len(paper.keys)}, in their order); label the same held-out pictures on both ladders."
        )
    by_chance = baselines.random_rungs(table, rng)
    draws = resample(table.groups, rng)

    def one_rung(of: AnswerTable, rung: int) -> PolicyResult:
        return _evaluate(of, baselines.fixed(of, rung), draws, 1.0, of.ladder[rung].name)

    def best(of: AnswerTable, seen: AnswerTable) -> PolicyResult:
        rung = baselines.best_fixed(seen, target, metric=metric, certificate=certificate)
        return one_rung(of, rung)

    results = {
        "reference": REFERENCE,
        "best_fixed_paper": best(paper, known_paper),
        "best_fixed": best(table, known),
        "random": _evaluate(table, by_chance, draws, 1.0),
        "agent": _evaluate(table, agent, draws, agent_calls),
        "oracle": _evaluate(table, baselines.oracle(table, metric=metric), draws, 1.0),
    }
    if dqn is not None:
        results["dqn"] = _evaluate(paper, dqn, draws, dqn_calls)
    return results | {
        f"fixed:{rung.name}": one_rung(table, index) for index, rung in enumerate(table.ladder)
    }


def judge(
    table: AnswerTable,
    choices: Ints,
    *,
    rng: np.random.Generator,
    metric: str = "any_hit",
    target: float | None = None,
) -> Verdict:
    """Compare a policy with the fixed rungs of its own ladder, at equal agreement.

    Args:
        table: answers on pictures that the policy never saw.
        choices: each picture's rung, (n,).
        rng: source of the bootstrap.
        metric: which agreement.
        target: the agreement target; missing it is said in the sentence.
    """
    sizes = baselines.chosen(table.size_ratio, choices)
    agrees = baselines.chosen(table.agreement[metric], choices)

    def compared(weights: Floats) -> tuple[float, float]:
        size, agreement = np.average([sizes, agrees], axis=1, weights=weights)
        points = baselines.fixed_points(table, metric=metric, weights=weights)
        best = baselines.size_at_agreement(points, float(agreement))
        return float(size) - best, 1 - float(size) / best

    difference, saving = bootstrap(compared, table.groups, rng=rng)
    photos = len(np.unique(table.groups))
    outcome = _outcome(difference) if photos >= LEAST_PHOTOS else "unclear"
    agreement = float(agrees.mean())
    return Verdict(
        outcome=outcome,
        sentence=_sentence(outcome, saving, agreement, photos) + _missed(agreement, target),
        agreement=agreement,
        size_ratio=float(sizes.mean()),
        fixed_size_ratio=float(sizes.mean()) - difference.mean,
        difference=difference,
        saving=saving,
    )


def gap_interval(
    table: AnswerTable, choices: Ints, *, rng: np.random.Generator, metric: str = "any_hit"
) -> Interval | None:
    """Return ``baselines.gap_closed`` with its interval; None if the oracle leaves no gap."""

    def closed(weights: Floats) -> tuple[float]:
        return (baselines.gap_closed(table, choices, metric=metric, weights=weights),)

    if math.isnan(baselines.gap_closed(table, choices, metric=metric)):
        return None
    return bootstrap(closed, table.groups, rng=rng)[0]


def _evaluate(
    table: AnswerTable,
    choices: Ints,
    draws: Resampling,
    calls: float | Floats,
    rung: str | None = None,
) -> PolicyResult:
    if choices.shape != (len(table.keys),):
        raise UsageError(
            f"There are choices of shape {choices.shape} for {len(table.keys)} pictures; allowed "
            "is one rung for each picture of the table."
        )
    ratios = (table.size_ratio, table.wire_ratio)
    per_image = [np.broadcast_to(np.asarray(calls, dtype=np.float64), choices.shape)]
    costs = [baselines.chosen(ratio, choices) for ratio in ratios] + per_image
    agreement = [baselines.chosen(table.agreement[metric], choices) for metric in METRICS]
    size_ratio, wire_ratio, calls_per_image = draws.figures(np.column_stack(costs))
    return PolicyResult(
        size_ratio=size_ratio,
        wire_ratio=wire_ratio,
        agreement=dict(zip(METRICS, draws.proportions(np.column_stack(agreement)), strict=True)),
        calls_per_image=calls_per_image,
        rung=rung,
    )


def _outcome(difference: Interval) -> Literal["better", "unclear", "worse"]:
    if difference.hi < -ROUNDING:
        return "better"
    return "worse" if difference.lo > ROUNDING else "unclear"


def _sentence(outcome: str, saving: Interval, agreement: float, photos: int) -> str:
    amount = (
        f"it sends {_bytes(saving.mean)} the best mixture of fixed rungs at the same "
        f"agreement of {agreement:.3f} (95 % interval {_range(saving)}), on {photos} photos it "
        "never saw"
    )
    if photos < LEAST_PHOTOS:
        return f"No verdict, {photos} photos are too few to tell: {amount}."
    if outcome == "better":
        return f"The agent beats the best fixed rung: {amount}."
    if outcome == "worse":
        return f"The agent does not beat the best fixed rung: {amount}. Use the fixed rung."
    return (
        "It is not shown that the agent beats the best fixed rung, because the interval includes "
        f"zero: {amount}."
    )


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
