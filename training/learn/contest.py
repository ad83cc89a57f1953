"""Which way of deciding pays here: always the same rung, a look at the picture, or a second look?

Decided by cross-validation on the training photos' answers, so that the calibration photos stay
unseen: who foresees the answers better, by log-loss, needs fewer bytes for the same agreement. The
simpler way wins a tie. What looks better by chance alone costs little: whoever looks is compared
with one fixed rung once more when it is certified (``training.learn.operating``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FOLDS", "Contest", "Predict", "contest"]

Array = NDArray[np.float64]

#: Folds; each fits every contestant once more.
FOLDS = 3

#: (rows to learn from, rows to foresee) -> kind -> agreement (rows, K), simplest kind first.
Predict = Callable[[NDArray[np.int64], NDArray[np.int64]], Mapping[str, Array]]

_FLOOR = 1e-4


@dataclass(frozen=True)
class Contest:
    """How the kinds did.

    Attributes:
        winner: ``fixed``, ``static`` or ``probing``.
        log_loss: kind -> cross-validated log-loss, nats an answer.
    """

    winner: str
    log_loss: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """Return a JSON-ready mapping."""
        return {"winner": self.winner, "log_loss": dict(self.log_loss)}


def contest(
    predict: Predict,
    agreement: Array,
    groups: NDArray[np.object_],
    rng: np.random.Generator,
) -> Contest:
    """Compare the kinds on photos that they were not fitted to.

    Args:
        predict: fits all kinds on some rows and foresees others.
        agreement: (N, K), NaN where nobody asked.
        groups: (N,) photo of each picture.
        rng: assigns photos to folds.
    """
    _, photo = np.unique(groups.astype(str), return_inverse=True)
    fold = (rng.permutation(int(photo.max()) + 1) % FOLDS)[photo]
    losses: dict[str, Array] = {}
    for number in range(FOLDS):
        held = np.flatnonzero(fold == number)
        known = np.flatnonzero(fold != number)
        if not len(held) or not len(known):
            continue
        for kind, foreseen in predict(known, held).items():
            mine = losses.setdefault(kind, np.full(len(fold), np.nan))
            mine[held] = _loss(foreseen, agreement[held])
    answered = {kind: one[~np.isnan(one)] for kind, one in losses.items()}
    mean = {kind: float(one.mean()) for kind, one in answered.items() if len(one)}
    return Contest(_winner(losses), mean)


def _loss(foreseen: Array, agreement: Array) -> Array:
    """Return each picture's mean log-loss over its answers, NaN without any."""
    p = np.clip(foreseen, _FLOOR, 1.0 - _FLOOR)
    cells = -(agreement * np.log(p) + (1.0 - agreement) * np.log1p(-p))
    asked = ~np.isnan(cells)
    count = asked.sum(axis=1)
    return np.where(
        count > 0, np.where(asked, cells, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan
    )


def _winner(losses: Mapping[str, Array]) -> str:
    kinds = iter(losses.items())
    winner, best = next(kinds, ("fixed", np.zeros(0)))
    for kind, loss in kinds:
        gain = (best - loss)[~np.isnan(best - loss)]
        if len(gain) > 1 and gain.mean() > 0.0:
            winner, best = kind, loss
    return winner
