"""Ridge-penalised linear and logistic regression with an offset, by Newton's method.

Small and exact: a few thousand rows, a few hundred columns, the same result on every run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["covariance", "fit_linear", "fit_logistic", "log_loss"]

Array = NDArray[np.float64]

_MAX_STEPS = 50
_TOLERANCE = 1e-9

#: Multiplications in a block of :func:`_gram`; OpenBLAS spreads larger products over threads.
_BLOCK = 2**18


def fit_linear(design: Array, target: Array, penalty: Array, offset: Array) -> Array:
    """Minimise ||target − offset − design·w||² + Σ penalty·w².

    Args:
        design: (M, P).
        target: (M,).
        penalty: (P,) > 0.
        offset: (M,), what is already explained.

    Returns:
        w, (P,).
    """
    gram = _gram(design, np.ones(len(design))) + np.diag(penalty)
    return np.asarray(np.linalg.solve(gram, design.T @ (target - offset)))


def fit_logistic(design: Array, target: Array, penalty: Array, offset: Array) -> Array:
    """Minimise the Bernoulli log-loss of sigmoid(offset + design·w) + Σ penalty·w² / 2.

    Args:
        design: (M, P).
        target: (M,) in [0, 1]; fractions are soft labels.
        penalty: (P,) > 0.
        offset: (M,), in logits.

    Returns:
        w, (P,).
    """
    weights = np.zeros(design.shape[1])
    value = _objective(design, target, penalty, offset, weights)
    for _ in range(_MAX_STEPS):
        step = _newton_step(design, target, penalty, offset, weights)
        size = 1.0
        while size > 1e-6:  # halve until it goes down: the objective is convex
            trial = weights + size * step
            trial_value = _objective(design, target, penalty, offset, trial)
            if trial_value <= value:
                break
            size /= 2.0
        gained = value - trial_value
        if trial_value <= value:
            weights, value = trial, trial_value
        if gained <= _TOLERANCE * max(1.0, abs(value)):
            break
    return weights


def covariance(design: Array, penalty: Array, offset: Array, weights: Array) -> Array:
    """Return the Laplace approximation of the weights' posterior covariance, (P, P)."""
    return np.asarray(np.linalg.inv(_curvature(design, penalty, offset, weights)[1]))


def log_loss(logits: Array, target: Array) -> Array:
    """Return the Bernoulli log-loss in nats, element by element."""
    return np.asarray(np.logaddexp(0.0, logits) - target * logits)


def _objective(
    design: Array, target: Array, penalty: Array, offset: Array, weights: Array
) -> float:
    loss = log_loss(offset + design @ weights, target).sum()
    return float(loss + 0.5 * np.dot(penalty, weights**2))


def _newton_step(
    design: Array, target: Array, penalty: Array, offset: Array, weights: Array
) -> Array:
    probability, hessian = _curvature(design, penalty, offset, weights)
    gradient = design.T @ (target - probability) - penalty * weights
    return np.asarray(np.linalg.solve(hessian, gradient))


def _curvature(design: Array, penalty: Array, offset: Array, weights: Array) -> tuple[Array, Array]:
    logits = np.clip(offset + design @ weights, -30.0, 30.0)
    probability = 1.0 / (1.0 + np.exp(-logits))
    weight = probability * (1.0 - probability)
    return probability, _gram(design, weight) + np.diag(penalty)


def _gram(design: Array, weight: Array) -> Array:
    """Return designᵀ·diag(weight)·design, (P, P), in blocks of rows.

    In one piece, the library's threads would share it. Where other processes or a container's limit
    leave fewer cores than it counts, they wait for each other ten times as long as they compute.
    """
    columns = design.shape[1]
    rows = max(8, _BLOCK // max(1, columns**2))
    total = np.zeros((columns, columns))
    for start in range(0, len(design), rows):
        block = design[start : start + rows]
        total += (block * weight[start : start + rows, None]).T @ block
    return total
