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

The agent picks the rung that looks best, so it would pick the luckiest estimate (the winner's
curse). Each rung's logit is therefore lowered by its own standard error, which fades with labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder
from export.network import FactoredHead, always_agrees
from model_store.errors import UsageError
from training.learn.design import FOLDS, Design, Observations, Penalties, Regression, Space
from training.learn.reward import Reward

__all__ = ["FitReport", "Observations", "Penalties", "fit_factored"]

Array = NDArray[np.float64]

#: Standard errors by which the logit of a rung's agreement is lowered.
PESSIMISM = 1.0


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
    space = Space.of(seen.features, confidence)
    design = Design(ladder, space, seen)
    logit_offset, size_offset = _offsets(base, seen)
    folds = _folds(seen, rng)
    # Rungs that agree by construction teach nothing about the others.
    learnable = ~np.array(always_agrees(ladder))[seen.rung]
    agreement = Regression(design, seen.agreement, logit_offset, learnable, logistic=True)
    log_size = np.log(seen.size_ratio)
    every = np.ones_like(learnable)
    size = Regression(design, log_size, size_offset, every, logistic=False)
    agreement_penalties, size_penalties = agreement.choose(folds), size.choose(folds)
    head = FactoredHead(seen.features.shape[1], ladder, alpha=reward.alpha, beta=reward.beta)
    with torch.no_grad():
        for layer, regression, penalties, start in (
            (head.agreement_logit, agreement, agreement_penalties, base and base.agreement_logit),
            (head.log_size, size, size_penalties, base and base.log_size),
        ):
            fitted = regression.fit(penalties)
            weights, bias = design.per_rung(fitted)
            if regression.logistic:
                bias = bias - PESSIMISM * regression.standard_error(fitted, penalties)
            weights, bias = space.lift(weights, bias)
            layer.weight.copy_(torch.from_numpy(weights))
            layer.bias.copy_(torch.from_numpy(bias))
            if start is not None:
                layer.weight.add_(start.weight)
                layer.bias.add_(start.bias)
    losses = [agreement.loss(folds, one) for one in (Penalties(), agreement_penalties)]
    # There is no loss at all if only rungs that agree by construction were tried.
    alone, chosen = (float(loss.mean()) if loss.size else 0.0 for loss in losses)
    return head.eval(), FitReport(agreement_penalties, size_penalties, (alone, chosen))


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
