"""From labelled pictures to a training run: the heads, the certificate, what a manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.agreement import METRICS
from edge_sdk.engine import Scores
from edge_sdk.ladder import Ladder
from edge_sdk.policy import OperatingPoint
from edge_sdk.scenery import Signature
from edge_sdk.view import View
from export.network import CONFIDENCE, Prefix
from export.run import Head, TrainingRun
from model_store.errors import UsageError
from training import assets
from training.labels.sampling import stratified
from training.labels.table import AnswerTable
from training.learn.acquire import doubtful
from training.learn.backbone import backbone
from training.learn.bandit import FitReport
from training.learn.calibrate import Observe, design_effect
from training.learn.contest import Contest
from training.learn.decisions import policy, scores
from training.learn.dqn import PaperParameters, Trace, train_dqn
from training.learn.environment import TableEnvironment
from training.learn.features import Features
from training.learn.heads import NO_START, Heads, Start
from training.learn.operating import Goals, operating_points
from training.learn.policies import Policy
from training.learn.reward import Reward
from training.learn.seen import Seen
from training.versions import versions

__all__ = [
    "MAX_PROBES",
    "Asking",
    "FitResult",
    "Goal",
    "Labelled",
    "acquire",
    "choices",
    "fingerprint",
    "fit_bandit",
    "fit_dqn",
    "goals_of",
    "policy_of",
    "run_of",
]


#: Looks a picture: with four, trials needed a tenth fewer bytes than with two; more gave nothing.
MAX_PROBES = 4


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What an agent is trained for.

    Attributes:
        target: agreement t that the user wants, in (0, 1).
        delta: error probability of the certificate.
        reward: α and β.
        metric: which agreement counts, one of ``METRICS``.
        min_score: labels below it do not count.
        scenery: name of the scenery.
        backend: the service's name.
        model_version: the service's model, if it tells.
        max_probes: candidates that a device may look at before it sends; 0 for none.
        seed: of every random choice.
    """

    backend: str
    max_probes: int = MAX_PROBES
    target: float = 0.95
    delta: float = 0.05
    reward: Reward = field(default_factory=Reward)
    metric: str = "any_hit"
    min_score: float = 0.0
    scenery: str = "day"
    model_version: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(f"The metric {self.metric!r} is unknown; allowed: {METRICS}.")
        for name in ("target", "delta"):
            if not 0.0 < getattr(self, name) < 1.0:
                label = "target accuracy" if name == "target" else name
                raise UsageError(
                    f"The {label} is {getattr(self, name)}; allowed is above 0 and below 1, for "
                    "example 0.95."
                )


class Asking(Protocol):
    """Who buys answers, such as ``training.labels.answers.Answers``."""

    def observe(self, metric: str, rungs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the agreement of one rung of each picture, (N,)."""

    def ask(self, rungs: NDArray[np.int64]) -> None:
        """Ask about some rungs of every picture, (N, c)."""

    def table(self) -> AnswerTable:
        """Return what is known."""


@dataclass(frozen=True)
class Labelled:
    """Features of N views and the service's answers to them, row by row.

    Attributes:
        features: of the originals.
        table: sizes, and the answers so far.
        looks: float32 (N, K, D), features of every encoding, or None if nobody looked.
        answers: buys what the table lacks; None where it is complete.
        framed: view -> float32 (N, D), features of what the ladder's views show.
    """

    features: Features
    table: AnswerTable
    looks: NDArray[np.float32] | None = None
    answers: Asking | None = None
    framed: Mapping[View, NDArray[np.float32]] = field(default_factory=dict)

    def on(self, ladder: Ladder) -> Labelled:
        """Return the same pictures with the answers on another ladder."""
        columns = [self.table.ladder.index(rung) for rung in ladder]
        looks = None if self.looks is None else self.looks[:, columns]
        return Labelled(self.features, self.table.on(ladder), looks, framed=self.framed)

    def take(self, rows: NDArray[np.int64]) -> Labelled:
        """Return some of the pictures, with the answers so far."""
        looks = None if self.looks is None else self.looks[rows]
        framed = {view: values[rows] for view, values in self.framed.items()}
        return Labelled(self.features.take(rows), self.table.take(rows), looks, framed=framed)

    def observer(self, metric: str) -> Observe:
        """Return what tells the agreement of one rung of each picture."""
        if self.answers is not None:
            return partial(self.answers.observe, metric)
        known = self.table.agreement[metric]
        return lambda rungs: known[np.arange(len(known)), rungs]

    def refreshed(self) -> Labelled:
        """Return the same with what was bought since."""
        return self if self.answers is None else replace(self, table=self.answers.table())

    def seen(self, metric: str) -> Seen:
        """Return what heads are fitted to."""
        table = self.table
        return Seen(
            ladder=table.ladder,
            features=self.features.values,
            groups=table.groups,
            agreement=table.agreement[metric],
            size_ratio=table.size_ratio,
            labels=table.reference_label,
            looks=self.looks,
            framed=self.framed,
        )


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


def acquire(
    prefix: Prefix, train: Labelled, goal: Goal, calls: int, start: Start = NO_START
) -> Labelled:
    """Ask about the ``calls`` rungs of every training picture that teach most, if looks tell them.

    Args:
        prefix: made the features.
        train: with a few answers a picture.
        goal: whose metric counts.
        calls: answers a picture more.
        start: heads to start from.
    """
    if train.answers is None or train.looks is None or calls < 1:
        return train
    rng = np.random.default_rng([goal.seed, 1])  # not what the first sample drew
    rungs = doubtful(prefix, train.seen(goal.metric), calls, rng, start)
    if rungs is None:
        rungs = stratified(len(train.table), len(train.table.ladder), calls, rng)
    train.answers.ask(rungs)
    return train.refreshed()


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


def goals_of(goal: Goal, *, thrifty: bool, effect: float | None = None) -> Goals:
    """Return what an operating point has to promise.

    Args:
        goal: of the agent.
        thrifty: answers are bought, so few trade-offs are tested.
        effect: design effect, if it is known beforehand.
    """
    return Goals(
        target=goal.target,
        delta=goal.delta,
        shares=goal.metric in ("eq1", "jaccard"),
        thrifty=thrifty,
        effect=effect,
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


def policy_of(run: TrainingRun, pictures: Labelled) -> Policy:
    """Return what a trained agent does with some pictures, at every trade-off."""
    return policy(run.head, run.probe, run.operating_point, pictures.seen("any_hit"))


def choices(run: TrainingRun, pictures: Labelled) -> NDArray[np.int64]:
    """Return the rung that a trained agent chooses for each picture, int64 (N,)."""
    return policy_of(run, pictures).at(run.operating_point)


def fingerprint(tables: Sequence[AnswerTable]) -> str:
    """Return a hex SHA-256 over the pictures' keys, whatever their order."""
    keys = sorted(str(key) for table in tables for key in table.keys)
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def run_of(
    prefix: Prefix,
    head: Head,
    train: Labelled,
    point: OperatingPoint,
    goal: Goal,
    used: Sequence[Labelled],
) -> TrainingRun:
    """Return what training leaves.

    Args:
        prefix: made the features.
        head: that decides.
        train: pictures whose features and inputs prove parity.
        point: the operating point.
        goal: target, reward and names.
        used: everything that was learnt from or calibrated on.
    """
    features = train.features
    return TrainingRun(
        prefix=backbone(prefix, assets.cache_dir() / "prefix"),
        head=head,
        ladder=train.table.ladder,
        operating_point=point,
        inputs=features.inputs,
        expected=_expected(prefix, head, features),
        facts=_facts(prefix, goal, features, used),
    )


def _expected(prefix: Prefix, head: Head, features: Features) -> Scores:
    """Score the parity pictures with the torch network itself, with its prefix if that is fp32.

    One of whole numbers exists as ONNX alone: what it says is what was learnt from.
    """
    if prefix.precision != "fp32":
        return scores(head, features.values[features.rows])
    with torch.inference_mode():
        return scores(head, prefix(torch.from_numpy(features.inputs)).numpy())


def _facts(
    prefix: Prefix, goal: Goal, features: Features, used: Sequence[Labelled]
) -> dict[str, Any]:
    rng = np.random.default_rng(goal.seed)
    tables = [part.table for part in used]
    ladder: Ladder = tables[0].ladder
    return {
        "reward": {"alpha": goal.reward.alpha, "beta": goal.reward.beta},
        "scenery": {
            "name": goal.scenery,
            "signature": Signature.from_features(
                features.values, rng, palettes=features.palettes, groups=list(tables[0].groups)
            ).to_dict(),
        },
        "backend": {
            "name": goal.backend,
            "model_version": goal.model_version,
            "min_score": goal.min_score,
            "metric": goal.metric,
        },
        "training": {
            "fingerprint": fingerprint(tables),
            "photos": len({group for table in tables for group in table.groups}),
            "images": sum(len(table.keys) for table in tables),
            "labels_bought": sum(table.calls + table.from_ledger for table in tables),
            "seed": goal.seed,
            "rungs": len(ladder),
            "prefix": {
                "network": "mobilenet_v2",
                "cut": prefix.cut,
                "side": prefix.side,
                "precision": prefix.precision,
                "confidence": CONFIDENCE if prefix.confidence else 0,
            },
        },
        "versions": versions(),
    }
