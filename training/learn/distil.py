"""A classifier in the service's own words, learnt from its paid answers about references.

A probe asks whether compression changes what the picture *is*. MobileNetV2's ImageNet classes are
one vocabulary for that; a service that knows other things is better spoken to in its own.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from training.learn.compute import one_thread

__all__ = ["MIN_PICTURES", "classifier_of"]

#: A label that fewer pictures have as their best one is no class of its own.
MIN_PICTURES = 3

_COMPONENTS = 48
_PENALTY = 3.0
_STEPS = 60


@one_thread()
def classifier_of(
    features: NDArray[np.float32], best_labels: NDArray[np.object_]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return weight (V, P) and bias (V,) of a multinomial logistic regression, or None.

    Args:
        features: (N, P), pooled activations of the original pictures.
        best_labels: (N,) the service's best label of each reference, "" for none.

    None is returned where fewer than six labels are common enough to be told apart: a probe needs
    the sixth best class.
    """
    names, index, counts = np.unique(
        best_labels.astype(str), return_inverse=True, return_counts=True
    )
    common = np.flatnonzero((counts >= MIN_PICTURES) & (names != ""))
    if len(common) < 6:
        return None
    rows = np.isin(index, common)
    target = torch.from_numpy(np.searchsorted(common, index[rows]))
    mean, axes = _principal(features[rows].astype(np.float64))
    weight, bias = _fit((features[rows] - mean) @ axes, target, len(common))
    lifted = weight @ torch.from_numpy(axes.T)
    shifted = bias - lifted @ torch.from_numpy(mean)
    return lifted.float(), shifted.float()


def _principal(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (P,) and whitening axes (P, r)."""
    mean = values.mean(axis=0)
    _, strength, directions = np.linalg.svd(values - mean, full_matrices=False)
    rank = min(_COMPONENTS, len(values) // 3, int((strength > 1e-6).sum()))
    deviation = strength[:rank] / np.sqrt(len(values))
    return mean, directions[:rank].T / deviation


def _fit(
    known: NDArray[np.float64], target: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    columns = torch.from_numpy(known)
    weight = torch.zeros(classes, columns.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = torch.nn.functional.cross_entropy(
            columns @ weight.T + bias, target, reduction="sum"
        )
        value = value + 0.5 * _PENALTY * (weight * weight).sum()
        value.backward()
        return value

    solver.step(loss)
    return weight.detach(), bias.detach()
