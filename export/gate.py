"""What passes as the same decisions, and the pictures that this is proved on.

No torch and no onnx here: the gate is also asked on devices, about engines that were built there.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import probe
from edge_sdk.agent import Agent
from edge_sdk.assembly import load_agent
from edge_sdk.engine import OnnxEngine, Scores
from edge_sdk.parcel import UNLIMITED, Packer
from edge_sdk.policy import OperatingPoint
from edge_sdk.probe import Q_GAP
from edge_sdk.reading import Picture
from model_store import StoredAgent
from model_store.errors import GateFailed, UsageError

__all__ = [
    "MIN_SAME",
    "ParityReport",
    "check_unrounded",
    "check_variant",
    "compare",
    "fp32_agent",
    "measure_variant",
    "passed",
    "pictures_from_bytes",
    "pictures_to_bytes",
    "probe_set",
]

#: Share of pictures that must get the very same rung (``adacompress.engine/1``).
MIN_SAME = 0.995


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


def check_variant(reference: Agent, variant: Agent, images: NDArray[np.uint8]) -> ParityReport:
    """Compare whole decisions, second looks included, of two engines of one agent.

    Args:
        reference: the agent with the engine that passed :func:`check_parity`.
        variant: the same agent with the engine under test.
        images: uint8 (N, S, S, 3); where the agent looks at encodings, of these very pictures.

    Raises:
        GateFailed: as :func:`check_parity`.
    """
    return passed(measure_variant(reference, variant, images))


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
    return compare(expected, got, wanted, chosen, reference.operating_point)


def _decision(agent: Agent, pixels: NDArray[np.uint8]) -> int:
    image = Image.fromarray(pixels)
    return agent.decide(image, Packer(Picture(image), UNLIMITED).candidate).rung


def compare(
    expected: Scores,
    got: Scores,
    wanted: NDArray[np.int64],
    chosen: NDArray[np.int64],
    point: OperatingPoint,
) -> ParityReport:
    """Compare two engines' scores of the same pictures and the decisions made with them."""
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


def passed(report: ParityReport) -> ParityReport:
    """Return the report of an engine that may be published.

    Raises:
        GateFailed: it may not.
    """
    if report.passes:
        return report
    raise GateFailed(
        f"The engine differs from the trained network: {report.same_rung:.1%} of "
        f"{report.pictures} pictures get the same rung (at least {MIN_SAME:.1%} required), the "
        f"largest loss is {report.max_gap:.3g} (at most {Q_GAP}); pictures "
        f"{list(report.differing[:10])} differ. Nothing was published."
    )


def _value(scores: Scores, point: OperatingPoint) -> NDArray[np.float32]:
    if point.trade_off is None or scores.agreement is None or scores.size_ratio is None:
        return scores.q_values
    # λ scales the whole decision, so gaps are stated per unit of max(λ, 1).
    value = point.trade_off * scores.agreement - scores.size_ratio
    return np.asarray(value / max(point.trade_off, 1.0), dtype=np.float32)


def pictures_to_bytes(inputs: NDArray[np.uint8], expected: Scores) -> bytes:
    """Return a probe set, pictures and what the training network says about them, as an npz."""
    arrays = {name: getattr(expected, name) for name in Scores.__dataclass_fields__}
    buffer = io.BytesIO()
    given = {name: array for name, array in arrays.items() if array is not None}
    np.savez_compressed(buffer, allow_pickle=False, inputs=inputs, **given)
    return buffer.getvalue()


def pictures_from_bytes(data: bytes) -> tuple[NDArray[np.uint8], Scores]:
    """Read what :func:`pictures_to_bytes` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    inputs = arrays.pop("inputs")
    return inputs, Scores(**arrays)


def fp32_agent(stored: StoredAgent) -> Agent:
    """Return the agent with the engine that passed the first gate, whatever variants it has."""
    return replace(load_agent(stored), engine=OnnxEngine(stored.file("engine")))


def check_unrounded(stored: StoredAgent, option: str) -> None:
    """Check that an agent's engine is one that can be rounded, or built for a GPU.

    Raises:
        UsageError: it was learnt in INT8, for CPUs.
    """
    engine = OnnxEngine(stored.file("engine"))
    if engine.precision != "fp32":
        raise UsageError(
            f"The engine of agent {stored.manifest.id} is {engine.precision} already, learnt as "
            f"such for CPUs; {option} takes agents of `python -m training fit --precision fp32`."
        )


def probe_set(stored: StoredAgent) -> NDArray[np.uint8]:
    """Return the pictures that an agent's variants are proved on, uint8 (N, S, S, 3).

    An agent that a device re-trained has none: there were no pictures, only features. The
    synthetic ones have to do then.
    """
    if stored.manifest.entries("parity"):
        return pictures_from_bytes(stored.file("parity"))[0]
    return probe.pictures(OnnxEngine(stored.file("engine")).side)
