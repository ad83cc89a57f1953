"""Which blocks of an engine bear INT8? As many as decide the same; the others stay fp32.

Measured, not guessed: every block is quantised alone, the least harmful go first, and the longest
row of them that passes the parity gate on the calibration pictures is taken. The gate on the
probe set, which the search did not see, has the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agent import Agent
from edge_sdk.engine import OnnxEngine
from export.calibrate import calibrate
from export.gate import ParityReport, check_variant, measure_variant
from export.quantize import Calibration
from model_store.errors import GateFailed

__all__ = ["Quantized", "quantize"]


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """An INT8 engine that passed the gate.

    Attributes:
        model: ONNX of ``adacompress.engine/1``.
        blocks: what is INT8 in it.
        kept: blocks that stayed fp32.
        parity: on the probe set.
        whole: what the gate would have said with every block in INT8, on the calibration pictures.
    """

    model: bytes
    blocks: tuple[str, ...]
    kept: tuple[str, ...]
    parity: ParityReport
    whole: ParityReport


def quantize(
    agent: Agent,
    engine: bytes,
    pictures: NDArray[np.uint8],
    inputs: NDArray[np.uint8],
    *,
    symmetric: bool = False,
    tell: Callable[[str], Any] = lambda _: None,
) -> Quantized:
    """Quantise an agent's engine as far as its decisions allow.

    Args:
        agent: the agent with its fp32 engine.
        engine: that engine's file.
        pictures: uint8 (M, S, S, 3), to calibrate with and to search on.
        inputs: uint8 (N, S, S, 3), the probe set.
        symmetric: make the form that TensorRT takes.
        tell: called with a sentence now and then, the search takes a minute or two.

    Raises:
        GateFailed: not even one block can be quantised without changing decisions.
    """
    calibration = calibrate(engine, pictures)
    search = _Search(agent, calibration, pictures, symmetric)
    every = tuple(calibration.blocks)
    whole = search.report(every)
    tell(f"All in INT8: {whole.same_rung:.1%} of {whole.pictures} calibration pictures the same.")
    chosen = every if whole.passes else search.longest(tell)
    if not chosen:
        raise GateFailed(
            f"INT8 is refused: with all blocks {whole.same_rung:.1%} of {whole.pictures} pictures "
            f"get the same rung, pictures {list(whole.differing[:10])} differ, and no single block "
            "passes the gate either. Nothing was published; the fp32 engine stays."
        )
    model = calibration.quantized(chosen, symmetric=symmetric)
    parity = check_variant(agent, replace(agent, engine=OnnxEngine(model)), inputs)
    kept = tuple(block for block in every if block not in chosen)
    return Quantized(model=model, blocks=chosen, kept=kept, parity=parity, whole=whole)


class _Search:
    """Measures sets of blocks on the calibration pictures."""

    def __init__(
        self,
        agent: Agent,
        calibration: Calibration,
        pictures: NDArray[np.uint8],
        symmetric: bool,
    ) -> None:
        self._agent, self._calibration = agent, calibration
        self._pictures, self._symmetric = pictures, symmetric
        self._expected = agent.engine.run(pictures).features

    def report(self, blocks: tuple[str, ...]) -> ParityReport:
        """Return what the gate would say about these blocks in INT8."""
        variant = replace(self._agent, engine=self._engine(blocks))
        return measure_variant(self._agent, variant, self._pictures)

    def longest(self, tell: Callable[[str], Any]) -> tuple[str, ...]:
        """Return as many of the least harmful blocks as pass together, in the network's order."""
        order = sorted(self._calibration.blocks, key=self._harm)
        passing, failing = 0, len(order)
        while failing - passing > 1:  # more blocks do more harm: bisection
            middle = (passing + failing) // 2
            report = self.report(tuple(order[:middle]))
            tell(f"{middle} of {len(order)} blocks in INT8: {report.same_rung:.1%} the same.")
            passing, failing = (middle, failing) if report.passes else (passing, middle)
        return tuple(block for block in self._calibration.blocks if block in order[:passing])

    def _harm(self, block: str) -> float:
        """Return how far one block in INT8 moves the features, relative to their size."""
        got = self._engine((block,)).run(self._pictures).features
        return float(np.abs(got - self._expected).sum() / np.abs(self._expected).sum())

    def _engine(self, blocks: tuple[str, ...]) -> OnnxEngine:
        return OnnxEngine(self._calibration.quantized(blocks, symmetric=self._symmetric))
