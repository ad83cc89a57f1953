"""What a trained agent says and does about pictures whose features are known; nothing is fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint
from export.network import FactoredHead
from export.probe_head import ProbeHead
from export.run import Head, TrainingRun
from training.learn.compute import one_thread
from training.learn.labelled import Labelled
from training.learn.operating import expected_point
from training.learn.policies import ByValue, Fixed, Policy, Probing, Static
from training.learn.probing import predictions
from training.learn.seen import Seen

__all__ = ["certified_or_expected", "choices", "policy", "policy_of", "scores"]


def policy(head: Head, probe: ProbeHead | None, point: OperatingPoint, pictures: Seen) -> Policy:
    """Return what an agent does with some pictures, at every trade-off."""
    predicted = scores(head, pictures.features)
    if point.rung is not None:
        return Fixed((point.rung,), len(pictures.features))
    if predicted.agreement is None:
        return ByValue(predicted)
    if probe is None or not point.max_probes:
        return Static(predicted)
    told = predictions(probe, pictures.looked())
    return Probing(predicted, told, pictures.size_ratio, point.max_probes, ladder=pictures.ladder)


def policy_of(run: TrainingRun, pictures: Labelled) -> Policy:
    """Return what a trained agent does with some pictures, at every trade-off."""
    return policy(run.head, run.probe, run.operating_point, pictures.seen("any_hit"))


def choices(run: TrainingRun, pictures: Labelled) -> NDArray[np.int64]:
    """Return the rung that a trained agent chooses for each picture, int64 (N,)."""
    return policy_of(run, pictures).at(run.operating_point)


@one_thread()
def scores(head: Head, features: NDArray[np.float32]) -> Scores:
    """Return a head's scores of features (N, D)."""
    with torch.inference_mode():
        outputs = head(torch.from_numpy(np.ascontiguousarray(features)))
    return Scores(features, *(output.numpy() for output in outputs))


def certified_or_expected(run: TrainingRun, held: Labelled, target: float) -> TrainingRun:
    """Return a run at its certified trade-off, or at one that its head expects to be right.

    To set it beside the paper's agents, which have no certificate either: the safest rung would
    show nothing.

    Args:
        run: of a bandit; a head that is not factored has no trade-off and stays as it is.
        held: pictures that the head did not learn from.
        target: agreement to expect.
    """
    if run.operating_point.certified or not isinstance(run.head, FactoredHead):
        return run
    point = expected_point(scores(run.head, held.features.values), target)
    return replace(run, operating_point=point)
