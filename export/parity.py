"""The parity gate: an engine is published only if it decides as the training network does.

Not "close numbers" but "same decisions": the same rung for at least 99.5 % of the pictures, and
where it differs, two rungs whose value the network itself holds for nearly equal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from edge_sdk.agent import Agent
from edge_sdk.codec import Picture
from edge_sdk.engine import Engine, Scores
from edge_sdk.parcel import UNLIMITED, Packer
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.probe import Q_GAP
from edge_sdk.second_look import Probe
from export.probe_head import ProbeHead
from model_store.errors import GateFailed

__all__ = [
    "MIN_SAME",
    "PROBE_GAP",
    "ParityReport",
    "check_parity",
    "check_probe",
    "check_variant",
    "measure_variant",
    "scores_of",
]

#: Share of pictures that must get the very same rung (``adacompress.engine/1``).
MIN_SAME = 0.995

#: Largest difference in a probe's predicted agreement.
PROBE_GAP = 1e-3


@dataclass(frozen=True)
class ParityReport:
    """What the gate measured.

    Attributes:
        pictures: number of pictures compared.
        same_rung: share with the same decision.
        max_gap: largest loss of value at a differing decision, in units of the decision's value.
        max_difference: largest absolute difference of any Q-value.
        differing: indices of the pictures that differ.
    """

    pictures: int
    same_rung: float
    max_gap: float
    max_difference: float
    differing: tuple[int, ...]

    @property
    def passes(self) -> bool:
        """Whether an engine with these decisions may be published."""
        finite = np.isfinite(self.max_difference)  # a NaN would be its row's argmax
        return bool(finite and self.same_rung >= MIN_SAME and self.max_gap <= Q_GAP)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "differing": list(self.differing)}


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
    return _passed(_report(expected, got, choose(expected, point), choose(got, point), point))


def check_variant(reference: Agent, variant: Agent, images: NDArray[np.uint8]) -> ParityReport:
    """Compare whole decisions, second looks included, of two engines of one agent.

    Args:
        reference: the agent with the engine that passed :func:`check_parity`.
        variant: the same agent with the engine under test.
        images: uint8 (N, S, S, 3); where the agent looks at encodings, of these very pictures.

    Raises:
        GateFailed: as :func:`check_parity`.
    """
    return _passed(measure_variant(reference, variant, images))


def measure_variant(reference: Agent, variant: Agent, images: NDArray[np.uint8]) -> ParityReport:
    """Return what :func:`check_variant` would judge.

    Raises:
        GateFailed: there is no picture to prove anything with.
    """
    if len(images) == 0:
        raise GateFailed("There are no pictures to compare decisions on. Nothing was published.")
    expected, got = reference.engine.run(images), variant.engine.run(images)
    wanted, chosen = (
        np.array([_decision(agent, image) for image in images]) for agent in (reference, variant)
    )
    return _report(expected, got, wanted, chosen, reference.operating_point)


def _decision(agent: Agent, pixels: NDArray[np.uint8]) -> int:
    image = Image.fromarray(pixels)
    return agent.decide(image, Packer(Picture(image), UNLIMITED).candidate).rung


def _report(
    expected: Scores,
    got: Scores,
    wanted: NDArray[np.int64],
    chosen: NDArray[np.int64],
    point: OperatingPoint,
) -> ParityReport:
    value, rows = _value(expected, point), np.arange(len(wanted))
    gaps = value[rows, wanted] - value[rows, chosen]
    differing = np.flatnonzero(wanted != chosen)
    return ParityReport(
        pictures=len(wanted),
        same_rung=1.0 - len(differing) / len(wanted),
        max_gap=max(0.0, float(gaps.max())),
        max_difference=float(np.abs(expected.q_values - got.q_values).max()),
        differing=tuple(int(index) for index in differing),
    )


def _passed(report: ParityReport) -> ParityReport:
    if report.passes:
        return report
    raise GateFailed(
        f"The engine differs from the trained network: {report.same_rung:.1%} of "
        f"{report.pictures} pictures get the same rung (at least {MIN_SAME:.1%} required), the "
        f"largest loss is {report.max_gap:.3g} (at most {Q_GAP}); pictures "
        f"{list(report.differing[:10])} differ. Nothing was published."
    )


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


def _value(scores: Scores, point: OperatingPoint) -> NDArray[np.float32]:
    if point.trade_off is None or scores.agreement is None or scores.size_ratio is None:
        return scores.q_values
    # λ scales the whole decision, so gaps are stated per unit of max(λ, 1).
    value = point.trade_off * scores.agreement - scores.size_ratio
    return np.asarray(value / max(point.trade_off, 1.0), dtype=np.float32)
