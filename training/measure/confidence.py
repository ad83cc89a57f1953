"""Agreement where the service was sure of the reference, and where it was not.

A best label with a score of .2 is nearly arbitrary: disagreeing with it says little of an encoding.
One number over both kinds of pictures hides that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agreement import METRICS
from training.measure import baselines
from training.measure.intervals import Interval, resample

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = ["EDGES", "ConfidenceBin", "by_confidence"]

#: Scores of the reference's best label between which pictures are taken together. Fixed ones, not
#: thirds of the pictures, so that the rows of two runs mean the same.
EDGES = (0.0, 0.3, 0.6, 1.0)


@dataclass(frozen=True, kw_only=True)
class ConfidenceBin:
    """The agent on the pictures whose reference scored ``at_least`` and less than ``below``.

    Attributes:
        at_least: inclusive.
        below: exclusive, but for the last bin.
        pictures: how many there are.
        size_ratio: mean of JPEG bytes / reference bytes.
        agreement: each metric's mean agreement.
    """

    at_least: float
    below: float
    pictures: int
    size_ratio: Interval
    agreement: Mapping[str, Interval]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "at_least": self.at_least,
            "below": self.below,
            "pictures": self.pictures,
            "size_ratio": self.size_ratio.as_dict(),
            "agreement": {name: figure.as_dict() for name, figure in self.agreement.items()},
        }


def by_confidence(
    table: AnswerTable, choices: NDArray[np.int64], *, rng: np.random.Generator
) -> tuple[ConfidenceBin, ...]:
    """Measure a policy on the pictures of each bin; bins without pictures are left out.

    Args:
        table: answers on pictures that the policy never saw.
        choices: each picture's rung, (N,).
        rng: source of the bootstrap.
    """
    member = np.digitize(table.reference_score, EDGES[1:-1])
    sizes = baselines.chosen(table.size_ratio, choices)
    agrees = [baselines.chosen(table.agreement[metric], choices) for metric in METRICS]
    bins = []
    for place in np.unique(member).tolist():
        rows = member == place
        draws = resample(table.groups[rows], rng)
        shares = draws.proportions(np.column_stack(agrees)[rows])
        bins.append(
            ConfidenceBin(
                at_least=EDGES[place],
                below=EDGES[place + 1],
                pictures=int(rows.sum()),
                size_ratio=draws.figures(sizes[rows, None])[0],
                agreement=dict(zip(METRICS, shares, strict=True)),
            )
        )
    return tuple(bins)
