"""Measures policies on held-out pictures.

Everything here reads answers that were already paid for; nothing is uploaded. Not here: choosing
rungs (``baselines``, the engines), saying what it means (``verdict``), the report.

    results = evaluate_policies(table, agent_choices, known=calibration, paper=paper_table,
                                known_paper=paper_calibration, target=0.95, rng=rng)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agreement import METRICS
from model_store.errors import UsageError
from training.measure import baselines
from training.measure.intervals import Interval, Resampling, bootstrap, resample
from training.measure.opponents import Opponent, best_setting

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = [
    "PolicyResult",
    "evaluate",
    "evaluate_policies",
    "gap_interval",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """What one policy costs and how well it does.

    Attributes:
        size_ratio: mean of JPEG bytes / reference bytes.
        wire_ratio: mean of request-body bytes / the reference's.
        agreement: each metric's mean agreement.
        calls_per_image: calls to the service.
        rung: the one rung that a fixed policy uses, or the setting of an opponent with a knob.
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
    opponents: Mapping[str, Opponent] | None = None,
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
        opponents: other methods by the report's names, on the same held-out pictures.

    Returns:
        Policy name to result, named as in ``adacompress.report/1``.
    """
    opponents = opponents or {}
    for other in (paper, *(one.table for one in opponents.values())):
        _check_same_pictures(table, other)
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
    for name, one in opponents.items():
        setting = best_setting(one, target, metric=metric, certificate=certificate)
        results[name] = _evaluate(one.table, one.choices[setting], draws, 1.0, setting)
    return results | {
        f"fixed:{rung.name}": one_rung(table, index) for index, rung in enumerate(table.ladder)
    }


def gap_interval(
    table: AnswerTable, choices: Ints, *, rng: np.random.Generator, metric: str = "any_hit"
) -> Interval | None:
    """Return ``baselines.gap_closed`` with its interval; None if the oracle leaves no gap."""

    def closed(weights: Floats) -> tuple[float]:
        return (baselines.gap_closed(table, choices, metric=metric, weights=weights),)

    if math.isnan(baselines.gap_closed(table, choices, metric=metric)):
        return None
    return bootstrap(closed, table.groups, rng=rng)[0]


def _check_same_pictures(table: AnswerTable, other: AnswerTable) -> None:
    if not np.array_equal(table.keys, other.keys):
        raise UsageError(
            f"Two answer tables are of different pictures ({len(table.keys)} and "
            f"{len(other.keys)}, in their order); label the same held-out pictures on all ladders."
        )


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
