"""A ladder for who owns the service: WebP files, the service's own view, and a codec's features.

    candidates = owner_candidates(view, (), backend.capabilities)
    ladder = chosen(agreement, size_ratio, candidates)  # after a few answers of each

Whole JPEG frames stay among the candidates, the reference's pixels always. Which of them are worth
having is asked of the service as in ``training.learn.prune``; what nobody has measured before
starts from a guess that those answers soon outweigh.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.backends.base import Capabilities
from edge_sdk.backends.limits import takes
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.ladder import CANDIDATES, Ladder, owned
from edge_sdk.rung import FEATURES, Rung
from edge_sdk.view import View
from model_store.errors import UsageError
from training.learn.prior import means
from training.learn.prune import prune

__all__ = ["LIMIT", "chosen", "feature_rungs", "owner_candidates", "prior_of", "with_features"]

#: Rungs kept besides those of features.
LIMIT = 18

#: A cropped or WebP file is taken to do as well as a JPEG frame this many times as large.
_WORTH = 2.0


def feature_rungs(codec: FeatureCodec | None, capabilities: Capabilities, service: str) -> Ladder:
    """Return a rung for every rate of a codec, cheapest first; none without a codec.

    Raises:
        UsageError: the service does not read the codec.
    """
    if codec is None:
        return ()
    rungs = tuple(Rung(format=FEATURES, codec=codec.id, rate=rate) for rate in range(codec.rates))
    if not takes(capabilities, rungs[0]):
        reads = ", ".join(capabilities.codecs) or "none"
        raise UsageError(
            f"{service} does not read the codec {codec.id} (it reads {reads}). Let the service "
            "answer with the tail that belongs to it, or leave out --codec."
        )
    return rungs


def owner_candidates(view: View | None, features: Ladder, capabilities: Capabilities) -> Ladder:
    """Return everything that a service's owner may send and the service reads, in any order."""
    return tuple(rung for rung in (*features, *owned(view)) if takes(capabilities, rung))


def with_features(features: Ladder, ladder: Ladder) -> Ladder:
    """Put the rungs of features first: they are the cheapest there are."""
    return *features, *(rung for rung in ladder if rung not in features)


def chosen(agreement: NDArray[Any], size_ratio: NDArray[Any], candidates: Ladder) -> Ladder:
    """Return the candidates worth having, all of features, cheapest first.

    Args:
        agreement: (N, K) in [0, 1], NaN where nobody asked.
        size_ratio: (N, K), of every candidate.
        candidates: K rungs, the reference's pixels among them.
    """
    sizes = size_ratio.mean(axis=0)
    kept = prune(agreement, size_ratio, candidates, prior_of(candidates, sizes), LIMIT)
    features = {rung for rung in candidates if not rung.has_pixels}
    order = np.argsort(sizes, kind="stable")
    return tuple(candidates[place] for place in order if candidates[place] in {*kept, *features})


def prior_of(candidates: Ladder, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean agreement to start from, (K,): as measured, or as a larger frame's.

    Args:
        candidates: K rungs.
        sizes: (K,), their mean size ratios.
    """
    measured = {rung.pixels: mean for rung, mean in zip(CANDIDATES, means(CANDIDATES), strict=True)}
    known = np.array([measured.get(rung.pixels, np.nan) for rung in candidates])
    there = np.flatnonzero(~np.isnan(known))
    there = there[np.argsort(sizes[there], kind="stable")]
    best = np.maximum.accumulate(known[there])
    guess = np.interp(np.log(_WORTH * sizes), np.log(sizes[there]), best)
    return np.where(np.isnan(known), guess, known)
