"""Regressions over (picture, rung) cells: the columns, the fit, the choice of penalties.

One design serves agreement (logistic) and log size (linear). Its weights come back as one linear
map of the features per rung, which is all that a deployed head holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import REFERENCE, Ladder, kinds_of
from training.learn.logistic import covariance, fit_linear, fit_logistic, log_loss

__all__ = ["FOLDS", "Design", "Observations", "Penalties", "Regression", "Space", "smooth_basis"]

Array = NDArray[np.float64]

#: Principal components of the pooled activations that a head may use.
COMPONENTS = 32

#: Ridge penalties tried for each kind of feature, strong to weak; the first leaves it out.
PENALTIES = (math.inf, 1000.0, 300.0, 100.0, 30.0, 10.0)

#: Folds of the cross-validation.
FOLDS = 5

#: What a step to a codec's next rate is of the way between qualities 10 and 75.
_RATE = 0.3

_BASIS_PENALTY = 1e-2
_DEVIATION_PENALTY = 1.0


@dataclass(frozen=True)
class Observations:
    """What was seen: M cells (picture, rung) of N pictures.

    Attributes:
        features: float32 (N, D).
        groups: (N,) identity of the photo; cross-validation never splits one.
        row: int64 (M,), index of the picture.
        rung: int64 (M,), index into the ladder.
        agreement: float64 (M,) in [0, 1].
        size_ratio: float64 (M,) > 0.
    """

    features: NDArray[np.float32]
    groups: NDArray[np.object_]
    row: NDArray[np.int64]
    rung: NDArray[np.int64]
    agreement: Array
    size_ratio: Array

    @classmethod
    def of_grid(
        cls,
        features: NDArray[np.float32],
        groups: NDArray[np.object_],
        agreement: Array,
        size_ratio: Array,
    ) -> Observations:
        """Return the observations of a fully answered grid, agreement and size (N, K)."""
        count, rungs = agreement.shape
        row, rung = np.divmod(np.arange(count * rungs), rungs)
        return cls(features, groups, row, rung, agreement.ravel(), size_ratio.ravel())


@dataclass(frozen=True)
class Penalties:
    """Ridge penalties of the two kinds of features; infinite leaves the kind out."""

    confidence: float = math.inf
    activations: float = math.inf


@dataclass(frozen=True)
class Space:
    """z(x): standardised confidence, then principal components of standardised activations.

    The first component has unit variance, as every confidence statistic has.
    """

    mean: Array  # (D,)
    axes: Array  # (D, r), standardisation and scale included
    confidence: int

    @classmethod
    def of(cls, features: NDArray[np.float32], confidence: int) -> Space:
        """Learn the space from features (N, D) whose last ``confidence`` are statistics."""
        values = features.astype(np.float64)
        mean, std = values.mean(axis=0), values.std(axis=0)
        std = np.maximum(std, 1e-3 * max(float(std.max()), 1e-12))
        pooled = values.shape[1] - confidence
        rank = max(1, min(COMPONENTS, len(values) // 4, pooled))
        standard = ((values - mean) / std)[:, :pooled]
        _, strength, directions = np.linalg.svd(standard, full_matrices=False)
        scale = max(float(strength[0]) / np.sqrt(len(values)), 1e-12)
        axes = np.zeros((values.shape[1], confidence + rank))
        axes[pooled:, :confidence] = np.diag(1.0 / std[pooled:])
        axes[:pooled, confidence:] = directions[:rank].T / std[:pooled, None] / scale
        return cls(mean, axes, confidence)

    def project(self, features: NDArray[np.float32]) -> Array:  # (N, D) -> (N, r)
        """Return z of every picture."""
        return np.asarray((features - self.mean) @ self.axes)

    def lift(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Turn weights on z (K, r) into weights on features (K, D), with their bias."""
        lifted = weights @ self.axes.T
        return lifted, bias - lifted @ self.mean


class Design:
    """The regression's columns for M observed cells, and back to one linear map per rung."""

    def __init__(self, ladder: Ladder, space: Space, seen: Observations) -> None:
        self._basis, self._modes = smooth_basis(ladder), _modes(ladder)
        known = space.project(seen.features)[seen.row]  # (M, r)
        alone = [self._basis[seen.rung], np.eye(len(ladder))[seen.rung]]
        spoken = (self._modes[seen.rung][:, :, None] * known[:, None, :]).reshape(len(known), -1)
        self.columns = np.concatenate([*alone, spoken], axis=1)  # (M, P)
        self._rungs, self._rank, self._confidence = len(ladder), known.shape[1], space.confidence

    def ridge(self, penalties: Penalties) -> Array:  # (P,)
        """Return the penalty of every column; infinite for one that is left out."""
        known = np.full(self._rank, penalties.activations)
        known[: self._confidence] = penalties.confidence
        basis = np.full(self._basis.shape[1], _BASIS_PENALTY)
        deviation = np.full(self._rungs, _DEVIATION_PENALTY)
        return np.concatenate([basis, deviation, np.tile(known, self._modes.shape[1])])

    @property
    def typical(self) -> Array:
        """The rows of every rung for the average picture, (K, P): z is zero there."""
        alone = np.concatenate([self._basis, np.eye(self._rungs)], axis=1)
        return np.pad(alone, ((0, 0), (0, self.columns.shape[1] - alone.shape[1])))

    def per_rung(self, weights: Array) -> tuple[Array, Array]:
        """Return weights on z (K, r) and bias (K,)."""
        smooth, deviation, known = np.split(weights, np.cumsum([self._basis.shape[1], self._rungs]))
        spoken = known.reshape(self._modes.shape[1], self._rank)
        return self._modes @ spoken, self._basis @ smooth + deviation


@dataclass(frozen=True)
class Regression:
    """One target over the design: agreement (logistic) or log size ratio (linear)."""

    design: Design
    target: Array  # (M,)
    offset: Array  # (M,)
    rows: NDArray[np.bool_]  # (M,), observations that count
    logistic: bool

    def fit(self, penalties: Penalties, rows: NDArray[np.bool_] | None = None) -> Array:  # (P,)
        """Return the weights; those of what is left out are zero."""
        ridge = self.design.ridge(penalties)
        used, rows = np.isfinite(ridge), self.rows if rows is None else rows
        weights = np.zeros(len(ridge))
        if rows.any():
            solve = fit_logistic if self.logistic else fit_linear
            columns = self.design.columns[np.ix_(rows, used)]
            weights[used] = solve(columns, self.target[rows], ridge[used], self.offset[rows])
        return weights

    def standard_error(self, weights: Array, penalties: Penalties) -> Array:
        """Return how unsure the logit of each rung is for the average picture, (K,)."""
        ridge = self.design.ridge(penalties)
        used = np.isfinite(ridge)
        columns = self.design.columns[np.ix_(self.rows, used)]
        spread = covariance(columns, ridge[used], self.offset[self.rows], weights[used])
        typical = self.design.typical[:, used]
        return np.sqrt(np.einsum("kp,pq,kq->k", typical, spread, typical))

    def loss(self, folds: NDArray[np.int64], penalties: Penalties) -> Array:
        """Return the cross-validated loss of each observation that counts."""
        loss = np.zeros(len(self.target))
        for fold in range(FOLDS):
            held = folds == fold
            weights = self.fit(penalties, self.rows & ~held)
            value = self.offset[held] + self.design.columns[held] @ weights
            difference = (value - self.target[held]) ** 2
            loss[held] = log_loss(value, self.target[held]) if self.logistic else difference
        return loss[self.rows]

    def choose(self, folds: NDArray[np.int64]) -> Penalties:
        """Let confidence speak first, then activations, each only if it clearly helps."""
        chosen = Penalties()
        for kind in ("confidence", "activations"):
            options = [replace(chosen, **{kind: penalty}) for penalty in PENALTIES]
            losses = [self.loss(folds, option) for option in options]
            best = min(range(len(options)), key=lambda index: float(losses[index].sum()))
            if _clearly_positive(losses[0] - losses[best], folds[self.rows]):
                chosen = options[best]
        return chosen


def _clearly_positive(gain: Array, folds: NDArray[np.int64]) -> bool:
    """Tell whether a gain exceeds one standard error over the folds.

    A head without features is the fallback that cannot lose to a fixed rung, so features must win.
    """
    means = np.array([gain[folds == fold].mean() for fold in np.unique(folds)])
    if len(means) < 2:
        return False
    return bool(means.mean() > means.std(ddof=1) / np.sqrt(len(means)))


def smooth_basis(ladder: Ladder) -> Array:  # (K, 4 for each kind of rungs)
    """Return 1, quality, scale and their product, about zero and of order one.

    Each kind of rungs (``edge_sdk.ladder.kinds_of``) has its own four: WebP's qualities are not
    JPEG's, and half the sides of a small square are not half the sides of a frame.
    """
    quality, scale = _coordinates(ladder)
    own = np.stack([np.ones_like(quality), quality, scale, quality * scale], axis=1)
    kinds = np.array(kinds_of(ladder))
    parts = [own * (kinds == kind)[:, None] for kind in np.unique(kinds)]
    # What is the same for all rungs of a kind tells nothing; the first kind's were always there.
    return np.concatenate([parts[0], *(part[:, part.any(axis=0)] for part in parts[1:])], axis=1)


def _modes(ladder: Ladder) -> Array:  # (K, 3, and 1 for each further kind)
    """Return what may depend on the picture: the height and the slopes, the height by kind."""
    quality, scale = _coordinates(ladder)
    kinds = np.array(kinds_of(ladder))
    heights = [(kinds == kind).astype(np.float64) for kind in np.unique(kinds)[1:]]
    return np.stack([np.ones_like(quality), quality, scale, *heights], axis=1)


def _coordinates(ladder: Ladder) -> tuple[Array, Array]:  # 2 x (K,)
    """Return log quality, 1 at the reference's, and log scale; of features the rate and nothing."""
    quality = [
        np.log(rung.quality / REFERENCE.quality) + 1.0
        if rung.rate is None
        else _RATE * rung.rate - 1.0
        for rung in ladder
    ]
    return np.array(quality), np.log2([rung.scale for rung in ladder])
