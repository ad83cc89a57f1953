"""From labelled pictures to a training run: the head, its certificate, and what a manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from edge_sdk.agreement import METRICS
from edge_sdk.engine import Scores
from edge_sdk.ladder import Ladder
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.scenery import Signature
from export.fuse import export_prefix
from export.network import CONFIDENCE, Prefix
from export.run import Head, TrainingRun
from model_store.errors import UsageError
from training import assets
from training.labels.table import AnswerTable
from training.learn.bandit import FitReport, Observations, fit_factored
from training.learn.calibrate import calibrate
from training.learn.dqn import PaperParameters, Trace, train_dqn
from training.learn.environment import TableEnvironment
from training.learn.features import Features
from training.learn.reward import Reward
from training.versions import versions

__all__ = ["Goal", "Labelled", "choices", "fit_bandit", "fit_dqn", "scores"]


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
        seed: of every random choice.
    """

    backend: str
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


@dataclass(frozen=True)
class Labelled:
    """Features of N views and the service's answers to them, row by row."""

    features: Features
    table: AnswerTable

    def on(self, ladder: Ladder) -> Labelled:
        """Return the same pictures with the answers on another ladder."""
        return Labelled(self.features, self.table.on(ladder))


def fit_bandit(
    prefix: Prefix, train: Labelled, held: Labelled, goal: Goal
) -> tuple[TrainingRun, FitReport]:
    """Train the default agent: factored head on ``train``, certificate on ``held``.

    Args:
        prefix: the frozen prefix that made the features.
        train: pictures the head is fitted to.
        held: pictures of other photos, for the operating point.
        goal: target, reward and names.
    """
    rng = np.random.default_rng(goal.seed)
    seen = Observations.of_grid(
        train.features.values,
        train.table.groups,
        train.table.agreement[goal.metric],
        train.table.size_ratio,
    )
    confidence = CONFIDENCE if prefix.confidence else 0
    head, report = fit_factored(
        seen, train.table.ladder, goal.reward, rng=rng, confidence=confidence
    )
    point = calibrate(
        scores(head, held.features.values),
        held.table.agreement[goal.metric],
        held.table.groups,
        target=goal.target,
        delta=goal.delta,
    )
    return _run(prefix, head, train, point, goal, [train, held]), report


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
    return _run(prefix, head, train, point, goal, [train]), trace


def scores(head: Head, features: np.ndarray) -> Scores:
    """Return a head's scores of features (N, D)."""
    with torch.inference_mode():
        outputs = head(torch.from_numpy(np.ascontiguousarray(features)))
    return Scores(features, *(output.numpy() for output in outputs))


def choices(run: TrainingRun, features: np.ndarray) -> np.ndarray:
    """Return the rung that a trained agent chooses for each picture, int64 (N,)."""
    return choose(scores(run.head, features), run.operating_point)


def fingerprint(tables: Sequence[AnswerTable]) -> str:
    """Return a hex SHA-256 over the pictures' keys, whatever their order."""
    keys = sorted(str(key) for table in tables for key in table.keys)
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def _run(
    prefix: Prefix,
    head: Head,
    train: Labelled,
    point: OperatingPoint,
    goal: Goal,
    used: Sequence[Labelled],
) -> TrainingRun:
    features = train.features
    return TrainingRun(
        prefix=export_prefix(prefix, assets.cache_dir() / "prefix"),
        head=head,
        ladder=train.table.ladder,
        operating_point=point,
        inputs=features.inputs,
        expected=_expected(prefix, head, features),
        facts=_facts(prefix, goal, features, used),
    )


def _expected(prefix: Prefix, head: Head, features: Features) -> Scores:
    """Score the parity pictures with the torch network itself, prefix included."""
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
            "signature": Signature.from_features(features.values, rng).to_dict(),
        },
        "backend": {
            "name": goal.backend,
            "model_version": goal.model_version,
            "min_score": goal.min_score,
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
                "confidence": CONFIDENCE if prefix.confidence else 0,
            },
        },
        "versions": versions(),
    }
