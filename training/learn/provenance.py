"""A training run made of a fitted head: what proves it right, and what it was learnt from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from edge_sdk.engine import Scores
from edge_sdk.ladder import Ladder
from edge_sdk.policy import OperatingPoint
from edge_sdk.scenery import Signature
from export.network import CONFIDENCE, Prefix
from export.run import Head, TrainingRun
from training import assets
from training.labels.table import AnswerTable
from training.learn.backbone import backbone
from training.learn.decisions import scores
from training.learn.features import Features
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.versions import versions

__all__ = ["fingerprint", "run_of"]


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
