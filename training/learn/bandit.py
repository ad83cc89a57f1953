"""The default learner: a contextual bandit over ordered rungs (γ = 0).

The next picture does not depend on the action, so there is nothing to bootstrap: agreement and size
of each rung are plain regressions on the features. Rungs share what they can. The logit of
agreement of picture x at rung k is

    ψ(k)·a + δ_k + (1, log q_k, log s_k) ⊗ z(x) · w

with ψ a smooth basis in log quality and log scale, so that one answered rung teaches the others,
δ_k a small deviation, and z(x) what is known of the picture: the confidence of the prefix's own
classifier, and the leading principal components of the pooled activations. How strongly each may
speak is chosen by cross-validation over photos; what does not help is left out, and in the end the
agent falls back to what the rungs alone tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.ladder import REFERENCE, Ladder
from export.network import FactoredHead, always_agrees
from model_store.errors import UsageError
from training.learn.logistic import fit_linear, fit_logistic, log_loss
from training.learn.reward import Reward

__all__ = ["FitReport", "Observations", "Penalties", "fit_factored"]

Array = NDArray[np.float64]

#: Principal components of the pooled activations that a head may use.
COMPONENTS = 32

#: Ridge penalties tried for each kind of feature, strong to weak; the first leaves it out.
PENALTIES = (math.inf, 1000.0, 300.0, 100.0, 30.0, 10.0)

FOLDS = 5

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
class FitReport:
    """How a head was fitted.

    Attributes:
        agreement: penalties chosen for the agreement head.
        size: penalties chosen for the size head.
        log_loss: cross-validated loss of agreement, nats per observation: (rungs alone, chosen).
    """

    agreement: Penalties
    size: Penalties
    log_loss: tuple[float, float]


def fit_factored(
    seen: Observations,
    ladder: Ladder,
    reward: Reward,
    *,
    rng: np.random.Generator,
    confidence: int = 0,
    base: FactoredHead | None = None,
) -> tuple[FactoredHead, FitReport]:
    """Fit agreement and size of every rung.

    Args:
        seen: what was labelled, in full or in part.
        ladder: K rungs.
        reward: α and β of the head's Q-values.
        rng: assigns photos to folds.
        confidence: how many trailing features are confidence statistics.
        base: an agent's head to start from; only the difference to it is learnt, which is what
            makes a few dozen pictures of a new scenery enough.

    Raises:
        UsageError: nothing was observed.
    """
    if len(seen.row) == 0:
        raise UsageError("There are no labelled pictures to learn from; label at least a few.")
    space = _Space.of(seen.features, confidence)
    design = _Design(ladder, space, seen)
    logit_offset, size_offset = _offsets(base, seen)
    folds = _folds(seen, rng)
    # Rungs that agree by construction teach nothing about the others.
    learnable = ~np.array(always_agrees(ladder))[seen.rung]
    agreement = _Regression(design, seen.agreement, logit_offset, learnable, logistic=True)
    log_size = np.log(seen.size_ratio)
    every = np.ones_like(learnable)
    size = _Regression(design, log_size, size_offset, every, logistic=False)
    agreement_penalties, size_penalties = agreement.choose(folds), size.choose(folds)
    head = FactoredHead(seen.features.shape[1], ladder, alpha=reward.alpha, beta=reward.beta)
    with torch.no_grad():
        for layer, regression, penalties, start in (
            (head.agreement_logit, agreement, agreement_penalties, base and base.agreement_logit),
            (head.log_size, size, size_penalties, base and base.log_size),
        ):
            weights, bias = space.lift(*design.per_rung(regression.fit(penalties)))
            layer.weight.copy_(torch.from_numpy(weights))
            layer.bias.copy_(torch.from_numpy(bias))
            if start is not None:
                layer.weight.add_(start.weight)
                layer.bias.add_(start.bias)
    losses = (agreement.loss(folds, Penalties()), agreement.loss(folds, agreement_penalties))
    report = FitReport(
        agreement_penalties, size_penalties, (float(losses[0].mean()), float(losses[1].mean()))
    )
    return head.eval(), report


@dataclass(frozen=True)
class _Space:
    """z(x): standardised confidence, then principal components of standardised activations.

    The first component has unit variance, as every confidence statistic has.
    """

    mean: Array  # (D,)
    axes: Array  # (D, r), standardisation and scale included
    confidence: int

    @classmethod
    def of(cls, features: NDArray[np.float32], confidence: int) -> _Space:
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
        return np.asarray((features - self.mean) @ self.axes)

    def lift(self, weights: Array, bias: Array) -> tuple[Array, Array]:
        """Turn weights on z (K, r) into weights on features (K, D), with their bias."""
        lifted = weights @ self.axes.T
        return lifted, bias - lifted @ self.mean


class _Design:
    """The regression's columns for M observed cells, and back to one linear map per rung."""

    def __init__(self, ladder: Ladder, space: _Space, seen: Observations) -> None:
        self._basis, self._modes = _basis(ladder), _basis(ladder)[:, :3]
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

    def per_rung(self, weights: Array) -> tuple[Array, Array]:
        """Return weights on z (K, r) and bias (K,)."""
        smooth, deviation, known = np.split(weights, np.cumsum([self._basis.shape[1], self._rungs]))
        spoken = known.reshape(self._modes.shape[1], self._rank)
        return self._modes @ spoken, self._basis @ smooth + deviation


@dataclass(frozen=True)
class _Regression:
    """One target over the design: agreement (logistic) or log size ratio (linear)."""

    design: _Design
    target: Array  # (M,)
    offset: Array  # (M,)
    rows: NDArray[np.bool_]  # (M,), observations that count
    logistic: bool

    def fit(self, penalties: Penalties, rows: NDArray[np.bool_] | None = None) -> Array:  # (P,)
        ridge = self.design.ridge(penalties)
        used, rows = np.isfinite(ridge), self.rows if rows is None else rows
        weights = np.zeros(len(ridge))
        if rows.any():
            solve = fit_logistic if self.logistic else fit_linear
            columns = self.design.columns[np.ix_(rows, used)]
            weights[used] = solve(columns, self.target[rows], ridge[used], self.offset[rows])
        return weights

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


def _basis(ladder: Ladder) -> Array:  # (K, 4)
    """1, log quality, log scale and their product, about zero and of order one."""
    quality = np.log([rung.quality / REFERENCE.quality for rung in ladder]) + 1.0
    scale = np.log2([rung.scale for rung in ladder])
    return np.stack([np.ones_like(quality), quality, scale, quality * scale], axis=1)


def _offsets(base: FactoredHead | None, seen: Observations) -> tuple[Array, Array]:
    if base is None:
        return np.zeros(len(seen.row)), np.zeros(len(seen.row))
    with torch.inference_mode():
        features = torch.from_numpy(np.ascontiguousarray(seen.features))
        logit = base.agreement_logit(features).numpy().astype(np.float64)
        log_size = base.log_size(features).numpy().astype(np.float64)
    return logit[seen.row, seen.rung], log_size[seen.row, seen.rung]


def _folds(seen: Observations, rng: np.random.Generator) -> NDArray[np.int64]:
    """Fold number of every observed cell; the views of a photo share one."""
    _, photo = np.unique(seen.groups.astype(str), return_inverse=True)
    number = rng.permutation(int(photo.max()) + 1) % FOLDS
    return np.asarray(number[photo][seen.row])
