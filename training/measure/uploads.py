"""What an image puts on the wire: with the agent, and as the reference. Bytes and calls, no money.

Not here: prices (``cost``), and the calculator that readers of a report fill in (``calculator``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.measure import baselines
from training.measure.intervals import Interval, resample

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = ["Uploads", "saved_bytes", "uploads_of"]


@dataclass(frozen=True, kw_only=True)
class Uploads:
    """Means per image.

    Attributes:
        reference_bytes: of the reference's request body.
        bytes_saved: by the agent, the monitor's extra uploads taken off; below zero it sends more.
        extra_calls: the monitor's.
    """

    reference_bytes: float
    bytes_saved: Interval
    extra_calls: Interval

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def saved_bytes(
    table: AnswerTable, choices: NDArray[np.int64], calls: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what each picture saves on the wire, (N,); every call but one sends its reference."""
    return np.asarray(
        table.reference_wire * (2.0 - calls) - baselines.chosen(table.wire, choices),
        dtype=np.float64,
    )


def uploads_of(
    table: AnswerTable,
    choices: NDArray[np.int64],
    calls: NDArray[np.float64],
    *,
    rng: np.random.Generator,
) -> Uploads:
    """Measure what a policy puts on the wire.

    Args:
        table: answers on pictures that the policy never saw.
        choices: each picture's rung, (N,).
        calls: each picture's calls, (N,); all but one upload the reference.
        rng: source of the bootstrap.
    """
    saved = saved_bytes(table, choices, calls)
    draws = resample(table.groups, rng)
    bytes_saved, extra_calls = draws.figures(np.column_stack([saved, calls - 1.0]))
    return Uploads(
        reference_bytes=float(table.reference_wire.mean()),
        bytes_saved=bytes_saved,
        extra_calls=extra_calls,
    )
