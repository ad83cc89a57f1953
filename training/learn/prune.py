"""A ladder for one service and scenery, chosen from many candidates by a few hundred answers.

Which rung is the smallest for an agreement depends on how closely a service looks: one bears half
the scale, another needs every pixel. Each candidate gets a handful of answers, which alone would
tell little; a smooth model over quality and scale, which starts from what local models did
(``training.learn.prior``), lets all answers speak for all rungs. It has no pictures in it: which
of the kept rungs a picture gets is what the heads learn later, from answers on those rungs.

It is meant for services unlike those that ``FULL`` was drawn from. On an ImageNet classifier it did
no better than ``FULL``, which therefore stays the default.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder
from export.network import always_agrees
from model_store.errors import UsageError
from training.learn.design import smooth_basis
from training.learn.logistic import covariance, fit_logistic

__all__ = ["LIMIT", "foreseen", "prune"]

Array = NDArray[np.float64]

#: Rungs kept, the reference's pixels among them.
LIMIT = 16

#: From 0.4 up so few answers disagree that the contest could not show that looking at pictures
#: pays; above the other bound there are the reference's own pixels.
_LEAST, _MOST = 0.2, 0.999

#: As much as to say that the smooth part is free; the prior counts as answers instead.
_SMOOTH_PENALTY = 1e-2
#: A rung may depart from the smooth part by about a third of a logit.
_DEVIATION_PENALTY = 8.0

#: A mean of 1 over a few photos is no certainty.
_CLIP = 0.005


def prune(
    agreement: Array,
    size_ratio: Array,
    candidates: Ladder,
    prior: Array,
    limit: int = LIMIT,
) -> Ladder:
    """Return the candidates that are worth having, cheapest first.

    Args:
        agreement: (N, K) in [0, 1], NaN where nobody asked.
        size_ratio: (N, K), of every candidate.
        candidates: K rungs in any order, the reference's pixels among them.
        prior: (K,) mean agreement to start from.
        limit: rungs kept at most, 2 or more.

    Raises:
        UsageError: no candidate decodes to the reference's pixels, or the limit is too small.
    """
    safest = np.flatnonzero(always_agrees(candidates))
    if not len(safest):
        raise UsageError("No candidate decodes to the reference's pixels; add REFERENCE.")
    if limit < 2:
        raise UsageError(f"A ladder of at most {limit} rungs is no choice; allowed is 2 or more.")
    sizes = np.log(size_ratio).mean(axis=0)
    last = int(safest[np.argmin(sizes[safest])])
    frontier = _frontier(sizes, foreseen(agreement, candidates, prior), last)
    kept = _thinned(frontier, sizes, last, limit)
    return tuple(candidates[rung] for rung in [*kept, last])


def foreseen(agreement: Array, candidates: Ladder, prior: Array) -> Array:
    """Return a cautious estimate of each candidate's mean agreement, (K,).

    It is lowered by its standard error: what is chosen because it looks best looks too good.

    Args:
        agreement: (N, K), NaN where nobody asked.
        candidates: K rungs.
        prior: (K,) mean agreement to start from.
    """
    same = np.array(always_agrees(candidates))
    clipped = np.clip(prior, _CLIP, 1.0 - _CLIP)
    start = np.log(clipped / (1.0 - clipped))
    row, rung = np.nonzero(~np.isnan(agreement) & ~same)  # those teach nothing about the others
    # The prior is one answer at each candidate: what about ten photos are asked.
    cell = np.concatenate([np.arange(len(candidates)), rung])
    target = np.concatenate([clipped, agreement[row, rung]])
    basis = smooth_basis(candidates)
    per_rung = np.concatenate([basis, np.eye(len(candidates))], axis=1)
    penalty = np.repeat([_SMOOTH_PENALTY, _DEVIATION_PENALTY], [basis.shape[1], len(candidates)])
    weights = fit_logistic(per_rung[cell], target, penalty, start[cell])
    spread = covariance(per_rung[cell], penalty, start[cell], weights)
    error = np.sqrt(np.einsum("kp,pq,kq->k", per_rung, spread, per_rung))
    logits = start + per_rung @ weights - error
    return np.where(same, 1.0, 1.0 / (1.0 + np.exp(-logits)))


def _frontier(sizes: Array, agreement: Array, last: int) -> list[int]:
    """Return the rungs that nothing as small agrees more than, cheapest first, without ``last``."""
    kept, best = [], _LEAST
    for rung in map(int, np.lexsort((-agreement, sizes))):
        if sizes[rung] < sizes[last] and best < agreement[rung] <= _MOST:
            kept.append(rung)
            best = float(agreement[rung])
    return kept


def _thinned(frontier: list[int], sizes: Array, last: int, limit: int) -> list[int]:
    """Leave out the rung between the closest neighbours, again and again; the cheapest stays."""
    kept = list(frontier)
    while len(kept) > limit - 1:
        steps = sizes[[*kept[2:], last]] - sizes[kept[:-1]]  # around each but the first
        del kept[1 + int(np.argmin(steps))]
    return kept
