"""What is known of pictures that heads are fitted to and judged by; nothing is learnt here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder
from edge_sdk.view import View
from training.learn.bandit import Observations
from training.learn.probing import Looks

__all__ = ["Seen"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of N pictures.

    Attributes:
        ladder: K rungs, cheapest first.
        features: float32 (N, D).
        groups: (N,) photo of each.
        agreement: float64 (N, K), NaN where nobody asked.
        size_ratio: float64 (N, K).
        labels: (N,) the service's best label of each reference, "" for none.
        looks: float32 (N, K, D), NaN of rungs that nobody looked at, or None.
        framed: view -> float32 (N, D), of what the ladder's views show of the pictures.
    """

    ladder: Ladder
    features: NDArray[np.float32]
    groups: NDArray[np.object_]
    agreement: Array
    size_ratio: Array
    labels: NDArray[np.object_]
    looks: NDArray[np.float32] | None
    framed: Mapping[View, NDArray[np.float32]] = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64]) -> Seen:
        """Return some of the pictures."""
        return replace(
            self,
            features=self.features[rows],
            groups=self.groups[rows],
            agreement=self.agreement[rows],
            size_ratio=self.size_ratio[rows],
            labels=self.labels[rows],
            looks=None if self.looks is None else self.looks[rows],
            framed={view: values[rows] for view, values in self.framed.items()},
        )

    def joined(self, other: Seen) -> Seen:
        """Return these pictures, then others on the same ladder."""
        looks = None
        if self.looks is not None and other.looks is not None:
            looks = np.concatenate([self.looks, other.looks])
        return Seen(
            ladder=self.ladder,
            features=np.concatenate([self.features, other.features]),
            groups=np.concatenate([self.groups, other.groups]),
            agreement=np.concatenate([self.agreement, other.agreement]),
            size_ratio=np.concatenate([self.size_ratio, other.size_ratio]),
            labels=np.concatenate([self.labels, other.labels]),
            looks=looks,
            framed={
                view: np.concatenate([self.framed[view], other.framed[view]])
                for view in self.framed.keys() & other.framed.keys()
            },
        )

    @property
    def observations(self) -> Observations:
        """The answered cells."""
        row, rung = np.nonzero(~np.isnan(self.agreement))
        return Observations(
            self.features,
            self.groups,
            row,
            rung,
            self.agreement[row, rung],
            self.size_ratio[row, rung],
        )

    def looked(self) -> Looks:
        """Return originals and encodings; somebody must have looked."""
        assert self.looks is not None
        framed = {
            place: self.framed[rung.view]
            for place, rung in enumerate(self.ladder)
            if rung.view is not None and rung.view in self.framed
        }
        return Looks(self.features, self.looks, self.size_ratio, framed)

    @property
    def photos(self) -> NDArray[np.int64]:
        """The number of each picture's photo, (N,)."""
        return np.asarray(np.unique(self.groups.astype(str), return_inverse=True)[1])

    def rung_means(self, count: int) -> Array:
        """Return each rung's mean agreement, drawn a little to one half, for ``count`` pictures."""
        asked = ~np.isnan(self.agreement)
        agreed = np.where(asked, self.agreement, 0.0).sum(axis=0)
        return np.tile((agreed + 0.5) / (asked.sum(axis=0) + 1.0), (count, 1))
