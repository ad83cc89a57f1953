"""Does this engine decide here as it did where it was published?

A manifest carries the Q-values of a few synthetic pictures. They are computed from a formula, not
stored and not random, so a device can make them again and compare before it trusts an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.engine import Engine
from edge_sdk.errors import EngineError

__all__ = ["Q_GAP", "check", "expectation", "pictures"]

#: Number of synthetic pictures.
COUNT = 8

#: Two rungs whose Q-values differ by less may swap places between machines: another CPU, runtime
#: or precision rounds differently. In units of the reward, i.e. of reference sizes.
Q_GAP = 0.02


def pictures(side: int) -> NDArray[np.uint8]:
    """Return the synthetic pictures, uint8 (COUNT, side, side, 3): coloured gratings."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float64) / side
    stack = np.empty((COUNT, side, side, 3), dtype=np.uint8)
    for index in range(COUNT):
        for channel in range(3):
            waves = np.sin((2 + 3 * index) * x * np.pi + channel) * np.cos(
                (1 + 2 * index) * y * np.pi - index
            )
            stack[index, :, :, channel] = np.rint(127.5 + 100.0 * waves * np.exp(-x * (index % 3)))
    return stack


def expectation(engine: Engine) -> dict[str, Any]:
    """Return what a manifest stores: rungs and Q-values of :func:`pictures`, as JSON lists."""
    q_values = engine.run(pictures(engine.side)).q_values.astype(float)
    return {"rungs": q_values.argmax(axis=1).tolist(), "q_values": q_values.round(6).tolist()}


def check(engine: Engine, expected: Mapping[str, Any]) -> None:
    """Compare an engine with its manifest's expectation.

    Raises:
        EngineError: a picture gets another rung, and not because two rungs are nearly equal.
    """
    try:
        wanted = np.asarray(expected.get("q_values", ()), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EngineError(f"The manifest's probe cannot be read: {error}.") from error
    got = engine.run(pictures(engine.side)).q_values.astype(np.float64)
    if wanted.shape != got.shape:
        raise EngineError(f"The probe has shape {wanted.shape}, the engine answers {got.shape}.")
    chosen = np.argmax(got, axis=1)
    gaps = wanted.max(axis=1) - wanted[np.arange(len(wanted)), chosen]
    gaps[~np.isfinite(got).all(axis=1)] = np.inf  # a NaN would be its row's argmax
    worst = int(np.argmax(gaps))
    if not gaps[worst] <= Q_GAP:
        raise EngineError(
            f"The engine decides otherwise here than where it was published: probe picture {worst} "
            f"gets rung {int(chosen[worst])}, a Q-value {gaps[worst]:.3g} below the expected best "
            f"(allowed {Q_GAP}). Export it again for this machine."
        )
