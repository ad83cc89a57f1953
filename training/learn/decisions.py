"""What a trained agent says and does about pictures whose features are known; nothing is fitted."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint
from export.probe_head import ProbeHead
from export.run import Head
from training.learn.compute import one_thread
from training.learn.policies import ByValue, Fixed, Policy, Probing, Static
from training.learn.probing import predictions
from training.learn.seen import Seen

__all__ = ["policy", "scores"]


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


@one_thread()
def scores(head: Head, features: NDArray[np.float32]) -> Scores:
    """Return a head's scores of features (N, D)."""
    with torch.inference_mode():
        outputs = head(torch.from_numpy(np.ascontiguousarray(features)))
    return Scores(features, *(output.numpy() for output in outputs))
