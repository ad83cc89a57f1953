"""From scores to a rung: the operating point and the two decision rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from model_store.errors import UsageError

__all__ = ["OperatingPoint", "choose"]


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """The trade-off that meets an accuracy target, and what is known about it.

    Attributes:
        trade_off: λ, the bytes (in reference sizes) that one unit of agreement is worth; None for
            an agent whose Q-values decide by themselves (the paper's DQN).
        target: the user's agreement target t in (0, 1), or None.
        delta: the certificate's error probability δ: P(agreement < t) ≤ δ.
        certified: True if the test below was passed on held-out labels.
        test: the name of the statistical test, or "" if none was made.
        n: held-out images behind the certificate; ``n_effective`` after the design effect of
            several views of one photo.
        achieved: mean agreement on those images.
        max_probes: candidates that are looked at before sending, at most; 0 for none. The
            certificate holds for this number.
        rung: the one rung that is always sent, where no look at the picture beat that; else None.
        note: one sentence for the reader of the manifest.
    """

    trade_off: float | None
    target: float | None = None
    delta: float | None = None
    certified: bool = False
    test: str = ""
    n: int = 0
    n_effective: float = 0.0
    achieved: float | None = None
    max_probes: int = 0
    rung: int | None = None
    note: str = ""

    def times(self, factor: float) -> OperatingPoint:
        """Return the point with ``factor`` times the trade-off, if it has one."""
        if self.trade_off is None or factor == 1.0:
            return self
        return replace(self, trade_off=factor * self.trade_off)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; the inverse is :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> OperatingPoint:
        """Read an operating point from a manifest; unknown keys are ignored."""
        known = {name: mapping[name] for name in cls.__dataclass_fields__ if name in mapping}
        if "trade_off" not in known:
            raise UsageError(f"An operating point without 'trade_off': {dict(mapping)}.")
        return cls(**known)


def choose(
    scores: Scores, point: OperatingPoint, barred: Collection[int] = ()
) -> NDArray[np.int64]:
    """Choose a rung per picture, none of those that are ``barred``.

    ``argmax_k λ·agreement_k − size_ratio_k`` for a factored head, else ``argmax_k q_values_k``;
    without any probe, see ``edge_sdk.climb``.

    Returns:
        int64 (N,), indices into the ladder.
    """
    if point.rung is not None:
        return np.full(len(scores.q_values), point.rung)
    if point.trade_off is None:
        return _best(scores.q_values, barred)
    if scores.agreement is None or scores.size_ratio is None:
        raise UsageError(
            "The operating point has a trade-off, but the engine has no agreement and size heads."
        )
    value = point.trade_off * scores.agreement - scores.size_ratio
    return _best(value, barred)


def _best(value: NDArray[np.float32], barred: Collection[int]) -> NDArray[np.int64]:
    if barred:
        value = value.copy()
        value[:, [*barred]] = -np.inf
    return np.asarray(np.argmax(value, axis=1))
