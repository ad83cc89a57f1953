"""One agent against every baseline on held-out answers: all figures that a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_sdk.estimator import LoopParameters
from training.labels.table import AnswerTable
from training.learn.calibrate import certified
from training.learn.policies import Policy
from training.measure.evaluate import PolicyResult, evaluate_policies, gap_interval
from training.measure.intervals import Interval
from training.measure.monitoring import calls_per_image
from training.measure.opponents import Opponent
from training.measure.report import CurvePoint, agent_curve, fixed_curve, opponent_curve
from training.measure.uploads import Uploads, uploads_of
from training.measure.verdict import Verdict, judge

__all__ = ["Answers", "Comparison", "compare_with_baselines", "sweep"]

Ints = NDArray[np.int64]

#: One in so many of the trade-offs that calibration tries is on the agent's curve.
EVERY = 4

#: δ of the certificate that a best fixed rung must pass like an agent.
DELTA = 0.05


@dataclass(frozen=True)
class Answers:
    """One ladder's answers: on held-out pictures, and on those a fixed rung may be chosen by."""

    test: AnswerTable
    known: AnswerTable


@dataclass(frozen=True)
class Comparison:
    """What was found; see the fields of ``report.Report``.

    Attributes:
        calls: the agent's calls for each picture, (N,).
        uploads: what the agent puts on the wire.
    """

    policies: Mapping[str, PolicyResult]
    verdict: Verdict
    quality_verdict: Verdict
    gap_closed: Mapping[str, Interval | None]
    curve: Mapping[str, Sequence[CurvePoint]]
    calls: NDArray[np.float64]
    uploads: Uploads


def compare_with_baselines(
    own: Answers,
    paper: Answers,
    chosen: Ints,
    *,
    policy: Policy,
    target: float,
    loop: LoopParameters,
    rng: np.random.Generator,
    dqn: Ints | None = None,
    metric: str = "any_hit",
    opponents: Mapping[str, Opponent] | None = None,
) -> Comparison:
    """Measure an agent and everything it is compared with.

    Args:
        own: answers on the agent's ladder.
        paper: answers to the same pictures on the paper's ladder.
        chosen: the agent's rungs for ``own.test``, (N,).
        policy: what the agent does with those pictures at any trade-off, for its curve.
        target: the agreement target; a best fixed rung must pass the agent's own test of it.
        loop: what the monitor is run with, for the calls.
        rng: bootstrap, random policy, ξ.
        dqn: the paper's agent's rungs for ``paper.test``, (N,).
        metric: which agreement.
        opponents: other methods by the report's names, answered on the same pictures.
    """
    opponents = opponents or {}

    def calls(table: AnswerTable, rungs: Ints) -> NDArray[np.float64]:
        observed = table.agreement[metric][np.arange(len(rungs)), rungs]
        return calls_per_image(observed, loop, rng)

    agent_calls = calls(own.test, chosen)
    policies = evaluate_policies(
        own.test,
        chosen,
        known=own.known,
        paper=paper.test,
        known_paper=paper.known,
        target=target,
        rng=rng,
        dqn=dqn,
        metric=metric,
        certificate=lambda agreement, groups: certified(
            agreement, groups, target=target, delta=DELTA
        ),
        agent_calls=agent_calls,
        dqn_calls=1.0 if dqn is None else calls(paper.test, dqn),
        opponents=opponents,
    )
    gaps = {"agent": gap_interval(own.test, chosen, rng=rng, metric=metric)}
    if dqn is not None:
        gaps["dqn"] = gap_interval(paper.test, dqn, rng=rng, metric=metric)
    return Comparison(
        policies=policies,
        verdict=judge(own.test, chosen, rng=rng, metric=metric, target=target),
        quality_verdict=judge(
            own.test,
            chosen,
            rng=rng,
            metric=metric,
            against=paper.test,
            opponent="fixed quality",
        ),
        gap_closed=gaps,
        curve={
            "fixed_paper": fixed_curve(paper.test, metric=metric),
            "fixed": fixed_curve(own.test, metric=metric),
            "agent": agent_curve(own.test, sweep(policy), metric=metric),
            **{name: opponent_curve(one, metric=metric) for name, one in opponents.items()},
        },
        calls=agent_calls,
        # With draws of its own, so that no other figure's depend on it.
        uploads=uploads_of(own.test, chosen, agent_calls, rng=rng.spawn(1)[0]),
    )


def sweep(policy: Policy) -> dict[float, Ints]:
    """Return the rungs chosen at some of a policy's steps; none for a DQN, which has no such."""
    return {step: policy.rungs(step) for step in policy.steps[1::EVERY]}
