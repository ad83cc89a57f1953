"""Methods with one knob that the agent is compared with, such as DeepN-JPEG and a search by SSIM.

Each is measured on the very pictures and answers that the agent is measured on, at every setting of
its knob, and at the cheapest setting that keeps the target under the agent's own certificate. Not
here: fixed rungs of the ladders, which everybody has (``baselines``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from training.measure import baselines
from training.measure.perceptual import THRESHOLDS, cheapest_similar

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = ["Opponent", "best_setting", "by_similarity", "fixed_settings"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Opponent:
    """What a method does with N pictures.

    Attributes:
        table: answers on its own ladder.
        choices: setting to each picture's rung, (N,).
    """

    table: AnswerTable
    choices: Mapping[str, Ints]

    def place(self, setting: str, metric: str) -> tuple[float, float]:
        """Return mean size ratio and agreement at a setting."""
        rungs = self.choices[setting]
        size = baselines.chosen(self.table.size_ratio, rungs).mean()
        return float(size), float(baselines.chosen(self.table.agreement[metric], rungs).mean())


def fixed_settings(table: AnswerTable) -> Opponent:
    """Return the method whose settings are a ladder's rungs, the same for every picture."""
    return Opponent(
        table,
        {rung.name: baselines.fixed(table, place) for place, rung in enumerate(table.ladder)},
    )


def by_similarity(
    table: AnswerTable,
    similarity: NDArray[np.float64],
    thresholds: Sequence[float] = THRESHOLDS,
) -> Opponent:
    """Return the method that sends every picture at its first rung that looks like the original.

    Args:
        table: answers, the rungs cheapest first.
        similarity: (N, K), from ``perceptual.similarities``.
        thresholds: the settings.
    """
    return Opponent(
        table, {f"SSIM ≥ {least:.2f}": cheapest_similar(similarity, least) for least in thresholds}
    )


def best_setting(
    opponent: Opponent,
    target: float,
    *,
    metric: str = baselines.METRIC,
    certificate: baselines.Certificate | None = None,
) -> str:
    """Return the cheapest setting that meets ``target``, the safest one if none does.

    It is found in hindsight, on the pictures that it is measured on, which favours the opponent.

    Args:
        opponent: the method.
        target: agreement wanted, in [0, 1].
        metric: which agreement.
        certificate: asked in addition, see ``baselines.best_fixed``.
    """
    places = {setting: opponent.place(setting, metric) for setting in opponent.choices}
    cheapest_first = sorted(places, key=lambda setting: places[setting][0])
    for setting in cheapest_first:
        values = baselines.chosen(opponent.table.agreement[metric], opponent.choices[setting])
        if values.mean() < target:
            continue
        if certificate is None or certificate(values, opponent.table.groups):
            return setting
    return max(cheapest_first, key=lambda setting: places[setting][1])
