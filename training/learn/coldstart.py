"""An agent before any answer was paid for: learnt from local models that stand in for the service.

Recognisers differ in what they say, and agree in what compression does to them: whether the margin
between a picture's best class and its competitors survives an encoding. So heads that were fitted
to several local models' answers decide for a service that nobody has asked yet. Nothing certifies
that this holds for the service; the operating point says so. It is the cheapest trade-off at which
*every* stand-in keeps the target on photos that the heads were not fitted to, by a standard error.

What was learnt is also what learning from paid answers may start from (``heads.Start``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder, ladder_from_dicts
from edge_sdk.policy import OperatingPoint
from export.network import FactoredHead, Prefix
from export.run import TrainingRun, head_from_bytes, probe_from_bytes
from model_store import StoredAgent
from model_store.errors import UsageError
from training.learn.goal import Goal
from training.learn.heads import Heads, Start
from training.learn.labelled import Labelled
from training.learn.policies import SAFEST, Policy
from training.learn.provenance import run_of
from training.learn.seen import Seen

__all__ = ["TEST", "cold_start", "start_from", "worst_of"]

TEST = "worst of the local models, less a standard error"

Floats = NDArray[np.float64]


def cold_start(
    prefix: Prefix,
    train: Sequence[Labelled],
    held: Sequence[Labelled],
    goal: Goal,
    models: Sequence[str],
) -> TrainingRun:
    """Return an agent for a service that was never asked.

    Args:
        prefix: made the features.
        train: what each local model said of the same training pictures; the first one's looks and
            features are everybody's.
        held: likewise of other photos.
        goal: what is aimed at, not promised.
        models: their names.
    """
    rng = np.random.default_rng(goal.seed)
    heads = Heads.of(prefix, _pooled(train, goal.metric), goal.reward, rng)
    policies = heads.policies(held[0].seen(goal.metric), goal.max_probes)
    answers = [part.table.agreement[goal.metric] for part in held]
    looking = worst_of(policies.get("probing", policies["static"]), answers, goal.target)
    static = worst_of(policies["static"], answers, goal.target)
    run = run_of(prefix, heads.static, train[0], looking, goal, [train[0], held[0]])
    learning = {**run.facts["training"], "vocabulary": heads.vocabulary, "models": models}
    run = replace(run, facts={**run.facts, "training": learning})
    if not looking.max_probes:
        return run
    return replace(run, probe=heads.probe, points=(static,))


def worst_of(policy: Policy, answers: Sequence[Floats], target: float) -> OperatingPoint:
    """Return the cheapest step at which every recogniser keeps ``target``; the safest if none does.

    Args:
        policy: for N pictures.
        answers: agreement (N, K) of each recogniser, complete.
        target: agreement.
    """
    rows, best, seen = np.arange(len(answers[0])), SAFEST, 1.0
    for step in policy.steps:
        rungs = policy.rungs(step)
        kept = [agreement[rows, rungs] for agreement in answers]
        worst = min(float(one.mean() - one.std() / np.sqrt(len(one))) for one in kept)
        if worst < target:
            break
        best, seen = step, min(float(one.mean()) for one in kept)
    return replace(
        policy.point(best),
        target=target,
        n=len(rows),
        achieved=round(seen, 6),
        test=TEST,
        note=f"Not certified: no answer of the service was asked for. {len(answers)} local models "
        "stand in for it.",
    )


def start_from(agent: StoredAgent, ladder: Ladder, dimension: int) -> Start:
    """Return what learning may start from: the heads of a stored agent.

    Args:
        agent: of a store.
        ladder: that is learnt for.
        dimension: D, of the features that are learnt from.

    Raises:
        UsageError: the agent has another ladder, other features, or no factored head.
    """
    manifest, name = agent.manifest, agent.manifest.id
    if ladder_from_dicts(manifest.ladder) != ladder:
        raise UsageError(
            f"Agent {name} has another ladder of {len(manifest.ladder)} rungs; learning starts "
            "from an agent with the same one. Leave out --start, or give its --ladder."
        )
    head = head_from_bytes(agent.file("head"), ladder)
    if not isinstance(head, FactoredHead) or head.agreement_logit.in_features != dimension:
        raise UsageError(
            f"Agent {name} was learnt by the DQN or from other features; learning starts from one "
            "of `fit` or `coldstart`. Leave out --start."
        )
    spoken = manifest.training.get("vocabulary")  # what the service's own words mean is its own
    if spoken != "imagenet" or not manifest.entries("probe-head"):
        return Start(head)
    return Start(head, probe_from_bytes(agent.file("probe-head"), ladder))


def _pooled(parts: Sequence[Labelled], metric: str) -> Seen:
    """Return what all models said, one after the other, of the same pictures."""
    pooled = parts[0].seen(metric)
    for part in parts[1:]:
        pooled = pooled.joined(part.seen(metric))
    return pooled
