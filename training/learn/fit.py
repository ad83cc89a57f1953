"""From labelled pictures to a training run: our agent with its certificate, or the paper's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from edge_sdk.policy import OperatingPoint
from export.network import Prefix
from export.run import TrainingRun
from training.learn.bandit import FitReport
from training.learn.calibrate import design_effect
from training.learn.contest import Contest
from training.learn.dqn import PaperParameters, Trace, train_dqn
from training.learn.environment import TableEnvironment
from training.learn.goal import Goal, goals_of
from training.learn.heads import NO_START, Heads, Start
from training.learn.labelled import Labelled
from training.learn.operating import operating_points
from training.learn.provenance import run_of

__all__ = ["FitResult", "fit_bandit", "fit_dqn"]


@dataclass(frozen=True)
class FitResult:
    """What fitting found out besides the agent.

    Attributes:
        report: of the static head.
        contest: how the ways of deciding compare on the training photos.
        heads: all that was fitted, whether the agent has it or not.
    """

    report: FitReport
    contest: Contest
    heads: Heads = field(compare=False, repr=False)


def fit_bandit(
    prefix: Prefix, train: Labelled, held: Labelled, goal: Goal, start: Start = NO_START
) -> tuple[TrainingRun, FitResult]:
    """Train the default agent: heads on ``train``, certificate on ``held``.

    Args:
        prefix: the frozen prefix that made the features.
        train: pictures the heads are fitted to.
        held: pictures of other photos, for the operating point; asked about where need be.
        goal: target, reward and names.
        start: heads of another agent on the same ladder, to start from where that helps.
    """
    rng = np.random.default_rng(goal.seed)
    heads = Heads.of(prefix, train.seen(goal.metric), goal.reward, rng, start)
    contest = heads.contest(rng)
    complete = held.answers is None
    answers = held.table.agreement[goal.metric]
    effect = design_effect(answers, held.table.groups) if complete else None
    found = operating_points(
        heads.policies(held.seen(goal.metric), goal.max_probes),
        contest,
        held.observer(goal.metric),
        held.table.groups,
        held.table.size_ratio,
        goals_of(goal, thrifty=not complete, effect=effect),
    )
    run = run_of(prefix, heads.static, train, found[0], goal, [train, held.refreshed()])
    probing = any(point.max_probes for point in found)
    facts = {
        **run.facts,
        "training": {
            **run.facts["training"],
            "contest": contest.as_dict(),
            "vocabulary": heads.vocabulary,
            "started": heads.started,
        },
    }
    return (
        replace(run, points=found[1:], probe=heads.probe if probing else None, facts=facts),
        FitResult(heads.report, contest, heads),
    )


def fit_dqn(
    prefix: Prefix,
    train: Labelled,
    goal: Goal,
    parameters: PaperParameters | None = None,
    *,
    progress: Callable[[int], object] = lambda count: None,
) -> tuple[TrainingRun, Trace]:
    """Train the paper's agent on the same answers: Algorithm 1, Table 1."""
    rng = np.random.default_rng(goal.seed)
    environment = TableEnvironment(
        train.features.values,
        train.table.agreement[goal.metric],
        train.table.size_ratio,
        reward=goal.reward,
        rng=rng,
    )
    head, trace = train_dqn(
        environment, parameters or PaperParameters(), rng=rng, progress=progress
    )
    point = OperatingPoint(
        trade_off=None, note="The Q-values decide; the paper states no accuracy target."
    )
    return run_of(prefix, head, train, point, goal, [train]), trace
