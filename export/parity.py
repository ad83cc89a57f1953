"""The parity gate: an engine is published only if it decides as the training network does.

Not "close numbers" but "same decisions": the same rung for at least 99.5 % of the pictures, and
where it differs, two rungs whose value the network itself holds for nearly equal.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_sdk.engine import Engine, Scores
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.second_look import Probe
from export.gate import ParityReport, compare, passed
from export.probe_head import ProbeHead
from model_store.errors import GateFailed

__all__ = ["PROBE_GAP", "check_parity", "check_probe", "scores_of"]

#: Largest difference in a probe's predicted agreement.
PROBE_GAP = 1e-3


def scores_of(network: nn.Module, images: NDArray[np.uint8]) -> Scores:
    """Score pictures with the torch network, uint8 (N, S, S, 3)."""
    with torch.inference_mode():
        outputs = network(torch.from_numpy(images))
    return Scores(*(output.numpy() for output in outputs))


def check_parity(
    expected: Scores, engine: Engine, images: NDArray[np.uint8], point: OperatingPoint
) -> ParityReport:
    """Compare an engine's decisions with the training network's on the same pictures.

    Args:
        expected: from :func:`scores_of`.
        engine: the artefact under test.
        images: uint8 (N, S, S, 3).
        point: the operating point that decisions are made at.

    Raises:
        GateFailed: too many decisions differ, or one by more than the allowed gap; the engine's
            values are not finite; or there is no picture to prove anything with.
    """
    if len(images) == 0:
        raise GateFailed("There are no pictures to compare decisions on. Nothing was published.")
    got = engine.run(images)
    return passed(compare(expected, got, choose(expected, point), choose(got, point), point))


def check_probe(head: ProbeHead, probe: Probe, features: NDArray[np.float32]) -> None:
    """Compare a probe graph with its head on pairs of pictures, (M, D) features.

    Every picture stands for an encoding of the one before it, at every rung in turn.

    Raises:
        GateFailed: an agreement differs by more than ``PROBE_GAP``.
    """
    rungs = len(head.sizes)
    worst = 0.0
    for index, (original, candidate) in enumerate(
        zip(features, np.roll(features, 1, 0), strict=True)
    ):
        rung, size_ratio = index % rungs, 0.05 + 0.9 * (index % 7) / 7
        got = probe.run(original, candidate, rung, size_ratio)
        with torch.inference_mode():
            wanted = head(
                torch.from_numpy(original[None]),
                torch.from_numpy(np.ascontiguousarray(candidate[None])),
                torch.tensor([rung]),
                torch.tensor([size_ratio]),
            ).numpy()[0]
        difference = float(np.abs(got - wanted).max())
        worst = max(worst, difference if np.isfinite(difference) else np.inf)
    if not worst <= PROBE_GAP:
        raise GateFailed(
            f"The probe graph's agreement differs from the trained head's by up to {worst:.3g} "
            f"(allowed {PROBE_GAP}). Nothing was published."
        )
