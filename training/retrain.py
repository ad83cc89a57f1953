"""``python -m training retrain``: a new head from a device's transitions, published to its store.

The device sends features, not pictures, so the new engine is the parent's prefix with another head.
No reference answer exists for rungs that were not tried, so the operating point is not certified:
λ is the cheapest at which the head itself expects the target, and the device tries the agent
against real answers before it trusts it.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk import probe
from edge_sdk.assembly import codec_of
from edge_sdk.engine import OnnxEngine, Scores
from edge_sdk.ladder import ladder_from_dicts
from edge_sdk.memory import Transitions, read_transitions
from edge_sdk.policy import OperatingPoint
from edge_sdk.retrain import SCHEMA, RetrainRequest
from edge_sdk.scenery import Signature
from export.fuse import prefix_of
from export.network import FactoredHead
from export.publish import publish_run
from export.run import TrainingRun, head_from_bytes
from model_store import Manifest, Store, UsageError
from model_store.files import read_json, sha256_bytes
from training.learn.bandit import Observations, fit_factored
from training.learn.decisions import scores
from training.learn.operating import expected_point
from training.learn.reward import Reward
from training.limits import limit_memory
from training.parent import when_parent_ends
from training.versions import versions

__all__ = ["add_parser", "checked", "retrain"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training retrain``."""
    parser = commands.add_parser("retrain", help="learn a new scenery from a device's transitions")
    parser.add_argument("--request", type=Path, required=True, metavar="FILE")
    parser.add_argument("--max-memory", type=int, metavar="MIB", help="end when more is needed")
    parser.set_defaults(handler=_command)


def retrain(request: dict[str, Any]) -> Manifest:
    """Fit a head to the transitions a request names and publish the new agent.

    Args:
        request: an ``adacompress.retrain/1`` document.

    Raises:
        UsageError: the request or its transitions cannot be used.
        GateFailed: the fused engine differs from the trained head.
    """
    wanted = checked(request)
    store, seen = Store(wanted.store), read_transitions(wanted.memory)
    run = _learn(store, seen, wanted)
    return publish_run(run, store, aliases=[f"scenery/{wanted.scenery}"])[0]


def operating_point(predicted: Scores, target: float) -> OperatingPoint:
    """Return the cheapest trade-off at which the head expects ``target`` of its own choices."""
    if predicted.agreement is None:
        raise UsageError("Only a head that predicts agreement has a trade-off to choose.")
    point = expected_point(predicted, target)
    return replace(point, note=f"{point.note} Re-trained on a device from partial labels.")


def checked(request: dict[str, Any]) -> RetrainRequest:
    """Read a request document.

    Raises:
        UsageError: it is none, or a value is not allowed.
    """
    schema = request.get("schema") if isinstance(request, dict) else None
    if schema != SCHEMA:
        raise UsageError(f"The request's schema is {schema!r}, not {SCHEMA!r}.")
    names = [entry.name for entry in fields(RetrainRequest)]
    if missing := [name for name in names if name not in request]:
        raise UsageError(
            f"The request lacks {', '.join(missing)}; {SCHEMA!r} has {', '.join(names)}."
        )
    target = request["target_accuracy"]
    if not isinstance(target, int | float) or not 0.0 < target < 1.0:
        raise UsageError(f"The target accuracy is {target}; allowed is above 0 and below 1.")
    return RetrainRequest(**{name: request[name] for name in names})


def _check_fit(seen: Transitions, dimension: int, rungs: int) -> None:
    """Check that transitions were made by the parent's prefix, on its ladder."""
    if len(seen) and seen.features.shape[1] != dimension:
        raise UsageError(
            f"The memory holds {seen.features.shape[1]} features a picture, but the parent's head "
            f"takes {dimension}; name the agent that made them."
        )
    if len(seen) and not 0 <= seen.rungs.min() <= seen.rungs.max() < rungs:
        raise UsageError(
            f"The memory holds rungs {seen.rungs.min()} to {seen.rungs.max()}, but the parent's "
            f"ladder has {rungs}; name the agent that made them."
        )


def _learn(store: Store, seen: Transitions, request: RetrainRequest) -> TrainingRun:
    parent = store.load(request.parent)
    ladder = ladder_from_dicts(parent.manifest.ladder)
    base = head_from_bytes(parent.file("head"), ladder)
    if not isinstance(base, FactoredHead):
        raise UsageError(
            f"Agent {parent.manifest.id} has a DQN head, which does not learn from single answers; "
            "start from an agent trained with --algorithm bandit."
        )
    _check_fit(seen, base.agreement_logit.in_features, len(ladder))
    reward = Reward(float(request.alpha), float(request.beta))
    observed = Observations(
        features=seen.features,
        groups=np.array(seen.images, dtype=object),
        row=np.arange(len(seen)),
        rung=seen.rungs,
        agreement=seen.agreements,
        size_ratio=seen.size_ratios,
    )
    prefix = parent.manifest.training.get("prefix", {})
    rng = np.random.default_rng(request.seed)
    confidence = int(prefix.get("confidence", 0))
    head, _ = fit_factored(observed, ladder, reward, rng=rng, confidence=confidence, base=base)
    rows = _one_row_a_picture(seen)
    pictures = seen.features[rows]
    point = operating_point(scores(head, pictures), request.target_accuracy)
    # There are no pictures to prove parity on, only features: the synthetic ones must do.
    engine = OnnxEngine(parent.file("engine"))
    inputs = probe.pictures(engine.side)
    return TrainingRun(
        prefix=prefix_of(parent.file("engine")),
        head=head,
        ladder=ladder,
        operating_point=point,
        inputs=inputs,
        expected=scores(head, engine.run(inputs).features),
        facts=_facts(parent.manifest, seen, rows, request),
        codec=codec_of(parent),
    )


def _one_row_a_picture(seen: Transitions) -> np.ndarray:
    _, first = np.unique(np.array(seen.images, dtype=object).astype(str), return_index=True)
    return np.sort(first)


def _facts(
    parent: Manifest, seen: Transitions, rows: np.ndarray, request: RetrainRequest
) -> dict[str, Any]:
    palettes = None if seen.palettes is None else seen.palettes[rows]
    rng = np.random.default_rng(request.seed)
    return {
        "parent": parent.id,
        "reward": {"alpha": request.alpha, "beta": request.beta},
        "scenery": {
            "name": request.scenery,
            "signature": Signature.from_features(
                seen.features[rows], rng, palettes=palettes
            ).to_dict(),
        },
        "backend": dict(parent.backend),
        "training": {
            "fingerprint": sha256_bytes("\n".join(sorted(seen.images)).encode()),
            "photos": len(rows),
            "images": len(rows),
            "labels_bought": len(seen) + len(rows),
            "seed": request.seed,
            "prefix": parent.training.get("prefix", {}),
        },
        "versions": versions(),
    }


def _command(arguments: argparse.Namespace) -> int:
    when_parent_ends(lambda: os._exit(1))  # the device that asked is gone
    if arguments.max_memory is not None:
        limit_memory(arguments.max_memory)
    try:
        request = read_json(arguments.request)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The request {str(arguments.request)!r} cannot be read: {error}."
        ) from error
    print(json.dumps({"agent": retrain(request).id}), flush=True)
    return 0
