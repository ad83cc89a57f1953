"""One agent learnt, certified and measured on one split of the photos, from answers that are there.

A trial splits the photos anew and does what ``fit`` does with the first n of them: a third trains
on a few answers a picture, the others certify. The last photos only measure. Everything is read
from answers that were bought once, so that a trial costs seconds and nothing else. What many
trials say together is ``study``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import PAPER, Ladder
from edge_sdk.policy import OperatingPoint
from export.network import Prefix
from export.run import TrainingRun
from model_store.errors import UsageError
from training.labels.recorded import Recorded
from training.labels.table import AnswerTable
from training.learn.acquire import acquire
from training.learn.calibrate import certified
from training.learn.contest import Contest
from training.learn.decisions import policy_of
from training.learn.fit import FitResult, fit_bandit
from training.learn.goal import Goal
from training.learn.heads import NO_START, Start
from training.learn.labelled import Labelled
from training.learn.policies import Policy
from training.measure import baselines
from training.measure.paper_agent import learn_paper_agent, paper_choices
from training.photos import split_rows

__all__ = [
    "TEST_SHARE",
    "Parts",
    "Place",
    "Plan",
    "Trained",
    "Trial",
    "learnable",
    "run_trial",
    "size_at",
]

#: Share of the photos that only measure.
TEST_SHARE = 0.4

#: Photos of a trial at least: two to learn from, for a scenery's signature, and one to certify on.
_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every trial does.

    Attributes:
        goal: what the agents are trained for; the seed is the trial's own.
        ladder: the agents' rungs.
        calls: answers a training picture besides its reference: spread over the ladder, then where
            they are in doubt.
        train_share: of a trial's photos, the heads are fitted to; the others certify.
        start: heads to start from.
        opponent: also train the paper's DQN, which takes seconds more.
    """

    goal: Goal
    ladder: Ladder
    calls: tuple[int, int]
    train_share: float
    start: Start = NO_START
    opponent: bool = True


@dataclass(frozen=True, kw_only=True)
class Place:
    """Mean size ratio and agreement on the photos that only measure."""

    size_ratio: float
    agreement: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One agent.

    Attributes:
        seed: of its split and of everything else.
        photos: that it was learnt from and certified on.
        answers: that this took, the references' among them.
        way: how it decides: ``fixed``, ``static`` or ``probing``.
        certified: whether it met the target with a certificate.
        agent: what it does.
        best_fixed: the cheapest rung that passes the same test on the same calibration photos.
        best_fixed_paper: likewise of the paper's qualities.
        oracle: the cheapest agreeing rung of every picture.
        dqn: the paper's agent, learnt from every answer to the trial's photos; or None.
        at_target: way to the least size ratio at which it reaches the target on the measuring
            photos, in hindsight: what an exact trade-off would give.
    """

    seed: int
    photos: int
    answers: int
    way: str
    certified: bool
    agent: Place
    best_fixed: Place
    best_fixed_paper: Place
    oracle: Place
    dqn: Place | None
    at_target: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)


@dataclass(frozen=True)
class Parts:
    """The photos of one trial, on all rungs: learnt from, certified on, only measured on."""

    train: Labelled
    held: Labelled
    test: Labelled


@dataclass(frozen=True)
class Trained:
    """What a trial leaves: its figures, the agent, the paper's agent or None, the photos."""

    trial: Trial
    run: TrainingRun
    found: FitResult
    dqn: TrainingRun | None
    parts: Parts

    @property
    def contest(self) -> Contest:
        """Which way of deciding was certified."""
        return self.found.contest

    def policies(self, max_probes: int) -> dict[str, Policy]:
        """Return every way of deciding about the pictures held back, then those of the test."""
        ladder = self.run.ladder
        held, test = (one.on(ladder).seen("any_hit") for one in (self.parts.held, self.parts.test))
        return self.found.heads.policies(held.joined(test), max_probes)

    def paper_choices(self) -> NDArray[np.int64] | None:
        """Return the rungs that the paper's agent chooses for the test's pictures."""
        return None if self.dqn is None else paper_choices(self.dqn, self.parts.test)


def run_trial(
    prefixes: tuple[Prefix, Prefix], everything: Labelled, plan: Plan, *, photos: int, seed: int
) -> Trained:
    """Learn, certify and measure one agent.

    Args:
        prefixes: the one that made the features, and the same without classifier confidence, whose
            features are the state of the paper's agent.
        everything: answers at every rung of the plan's ladder and of the paper's, and looks.
        plan: what is done.
        photos: that may be learnt from and certified on.
        seed: of the split and of everything else.

    Raises:
        UsageError: there are fewer photos.
    """
    parts = _parts(everything, plan, photos, seed)
    goal = replace(plan.goal, seed=seed)
    train, held = parts.train.on(plan.ladder), parts.held.on(plan.ladder)
    asked, observed = Recorded(train.table), Recorded(held.table)
    asked.sample(plan.calls[0], np.random.default_rng(seed))
    train = replace(train, table=asked.table(), answers=asked)
    run, found = fit_bandit(
        prefixes[0],
        acquire(prefixes[0], train, goal, plan.calls[1], plan.start),
        replace(held, table=observed.table(), answers=observed),
        goal,
        plan.start,
    )
    dqn = None
    if plan.opponent:
        dqn, _ = learn_paper_agent(prefixes[1], parts.train, parts.held, goal)
    answers = asked.answers + observed.answers
    trial = _measured(run, dqn, parts, plan, seed=seed, photos=photos, answers=answers)
    return Trained(trial, run, found, dqn, parts)


def size_at(policy: Policy, table: AnswerTable, target: float, metric: str) -> float:
    """Return the least size ratio at which a policy reaches ``target``, mixing its steps.

    Sending a share of the pictures at one trade-off and the others at the next reaches every point
    between two, as for fixed rungs (``baselines.size_at_agreement``).
    """
    points = [_place(table, policy.rungs(step), metric) for step in policy.steps]
    curve = np.array([(point.size_ratio, point.agreement) for point in points] + [(1.0, 1.0)])
    return baselines.size_at_agreement(curve, target)


def learnable(total: int) -> tuple[int, int]:
    """Return the fewest and the most photos that can be learnt from, of ``total``."""
    return _FEWEST, total - round(TEST_SHARE * total)


def _parts(everything: Labelled, plan: Plan, photos: int, seed: int) -> Parts:
    total = len(set(everything.table.groups))
    least, most = learnable(total)
    if not least <= photos <= most:
        raise UsageError(
            f"A trial was asked to learn from {photos} photos; allowed is {least} to {most}, "
            f"because {total - most} of {total} only measure."
        )
    training = min(photos - 1, max(_FEWEST - 1, round(plan.train_share * photos)))
    counts = (total - most, training, photos - training)
    test, train, held = map(everything.take, split_rows(everything.table.groups, counts, seed))
    return Parts(train, held, test)


def _measured(
    run: TrainingRun,
    dqn: TrainingRun | None,
    parts: Parts,
    plan: Plan,
    *,
    seed: int,
    photos: int,
    answers: int,
) -> Trial:
    metric, point = plan.goal.metric, run.operating_point
    own, paper = parts.test.on(plan.ladder), parts.test.table.on(PAPER)
    policy = policy_of(run, own)
    return Trial(
        seed=seed,
        photos=photos,
        answers=answers,
        way=_way(point),
        certified=point.certified,
        agent=_place(own.table, policy.at(point), metric),
        best_fixed=_best_fixed(parts, plan.ladder, plan.goal),
        best_fixed_paper=_best_fixed(parts, PAPER, plan.goal),
        oracle=_place(own.table, baselines.oracle(own.table, metric=metric), metric),
        dqn=None if dqn is None else _place(paper, paper_choices(dqn, parts.test), metric),
        at_target=_at_target(run, own, parts, plan),
    )


def _best_fixed(parts: Parts, ladder: Ladder, goal: Goal) -> Place:
    """Return what the cheapest rung that passes the agent's own test does."""

    def passes(agreement: NDArray[np.float64], groups: NDArray[np.generic]) -> bool:
        return certified(agreement, groups, target=goal.target, delta=goal.delta)

    held, test = parts.held.table.on(ladder), parts.test.table.on(ladder)
    rung = baselines.best_fixed(held, goal.target, metric=goal.metric, certificate=passes)
    return _place(test, baselines.fixed(test, rung), goal.metric)


def _at_target(run: TrainingRun, own: Labelled, parts: Parts, plan: Plan) -> dict[str, float]:
    """Return what each way needs for the target: the agent's own, its simpler ones, the fixed."""
    goal, static = plan.goal, replace(run.operating_point, rung=None, max_probes=0, trade_off=1.0)
    ways = {"static": policy_of(replace(run, operating_point=static), own)}
    if run.probe is not None:
        looking = replace(static, max_probes=goal.max_probes)
        ways["probing"] = policy_of(replace(run, operating_point=looking), own)
    found = {way: size_at(one, own.table, goal.target, goal.metric) for way, one in ways.items()}
    for way, ladder in (("fixed", plan.ladder), ("fixed_paper", PAPER)):
        points = baselines.fixed_points(parts.test.table.on(ladder), metric=goal.metric)
        found[way] = baselines.size_at_agreement(points, goal.target)
    found["oracle"] = baselines.oracle_size(own.table, goal.target, metric=goal.metric)
    return found


def _place(table: AnswerTable, rungs: NDArray[np.int64], metric: str) -> Place:
    return Place(
        size_ratio=float(baselines.chosen(table.size_ratio, rungs).mean()),
        agreement=float(baselines.chosen(table.agreement[metric], rungs).mean()),
    )


def _way(point: OperatingPoint) -> str:
    return "fixed" if point.rung is not None else "probing" if point.max_probes else "static"
