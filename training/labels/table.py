"""Answers arranged for learning and measuring: one row a picture, one column a rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder
from model_store.errors import UsageError

__all__ = ["AnswerTable", "Rejected", "concatenate"]

#: Arrays with a row a picture; ``agreement`` holds more of them.
_BY_PICTURE = (
    "keys",
    "groups",
    "reference_bytes",
    "reference_wire",
    "bytes",
    "wire",
    "reference_score",
    "reference_label",
)


class Rejected(NamedTuple):
    """A picture without answers: it cannot be read, or the service refused it or failed on it.

    Attributes:
        position: where it stood among the pictures that were to be labelled.
        photo: the photo it is a view of.
        reason: why.
        kind: the error's name, such as ``BackendTooLarge``.
    """

    position: int
    photo: str
    reason: str
    kind: str


@dataclass(frozen=True)
class AnswerTable:
    """Sizes and agreements of N pictures on K rungs.

    Attributes:
        ladder: K rungs.
        keys: (N,) identity of each picture.
        groups: (N,) the photo it is a view of; statistics and splits go by it.
        reference_bytes: int64 (N,), JPEG file of the reference.
        reference_wire: int64 (N,), its request body.
        bytes: int64 (N, K), JPEG files.
        wire: int64 (N, K), request bodies.
        agreement: metric -> float64 (N, K) in [0, 1], see ``edge_sdk.agreement``; NaN where nobody
            asked.
        reference_score: float64 (N,), the reference's best label's score; 0 without labels.
        reference_label: (N,) that label, "" without labels.
        calls: answers that were bought for this table.
        from_ledger: answers that it found in the ledger.
        rejected: pictures without answers; they have no row, so whatever else is computed per
            picture must leave out their positions too.
    """

    ladder: Ladder
    keys: NDArray[np.object_]
    groups: NDArray[np.object_]
    reference_bytes: NDArray[np.int64]
    reference_wire: NDArray[np.int64]
    bytes: NDArray[np.int64]
    wire: NDArray[np.int64]
    agreement: Mapping[str, NDArray[np.float64]]
    reference_score: NDArray[np.float64]
    reference_label: NDArray[np.object_]
    calls: int = 0
    from_ledger: int = 0
    rejected: tuple[Rejected, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def on(self, ladder: Ladder) -> AnswerTable:
        """Return the columns of another ladder, whose rungs are all on this table's.

        Raises:
            UsageError: a rung is not.
        """
        absent = [rung.name for rung in ladder if rung not in self.ladder]
        if absent:
            raise UsageError(
                f"The table has no answers for {', '.join(absent)}; it has "
                f"{', '.join(rung.name for rung in self.ladder)}."
            )
        columns = [self.ladder.index(rung) for rung in ladder]
        return replace(
            self,
            ladder=ladder,
            bytes=self.bytes[:, columns],
            wire=self.wire[:, columns],
            agreement={name: values[:, columns] for name, values in self.agreement.items()},
        )

    def take(self, rows: NDArray[np.int64]) -> AnswerTable:
        """Return some of the pictures; what was paid and refused belongs to the whole table."""
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in _BY_PICTURE},
            agreement={name: values[rows] for name, values in self.agreement.items()},
            calls=0,
            from_ledger=0,
            rejected=(),
        )

    @property
    def size_ratio(self) -> NDArray[np.float64]:
        """Compressed over reference JPEG bytes, (N, K)."""
        return self.bytes / self.reference_bytes[:, None]

    @property
    def wire_ratio(self) -> NDArray[np.float64]:
        """Compressed over reference request bodies, (N, K)."""
        return self.wire / self.reference_wire[:, None]


def concatenate(tables: Sequence[AnswerTable]) -> AnswerTable:
    """Return the rows of several tables on one ladder, in order.

    Raises:
        UsageError: there is no table, or their ladders differ.
    """
    if not tables or any(table.ladder != tables[0].ladder for table in tables):
        raise UsageError(f"{len(tables)} tables cannot be joined; allowed are those of one ladder.")

    def stacked(name: str) -> Any:
        return np.concatenate([getattr(table, name) for table in tables])

    return AnswerTable(
        ladder=tables[0].ladder,
        **{name: stacked(name) for name in _BY_PICTURE},
        agreement={
            metric: np.concatenate([table.agreement[metric] for table in tables])
            for metric in tables[0].agreement
        },
        calls=sum(table.calls for table in tables),
        from_ledger=sum(table.from_ledger for table in tables),
        rejected=tuple(item for table in tables for item in table.rejected),
    )
