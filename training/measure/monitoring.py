"""What watching costs: the extra calls of the estimator, replayed on answers that are known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_sdk.estimator import Estimator, LoopParameters

__all__ = ["calls_per_image"]


def calls_per_image(
    agreement: NDArray[np.float64], parameters: LoopParameters, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the calls that each picture takes in inference and estimation.

    Every picture is uploaded; with probability p_est the reference is uploaded as well, and p_est
    follows what is then observed (paper, section 3.5.2). The calls of a re-training are not in it.

    Args:
        agreement: (N,), what would be observed, in the order of the pictures.
        parameters: p_0, ω and n.
        rng: draws ξ.

    Returns:
        float64 (N,), 1 or 2.
    """
    watch, calls = Estimator(parameters), np.ones(len(agreement))
    for index, observed in enumerate(agreement):
        if rng.random() <= watch.p_est:
            calls[index] = 2.0
            watch = watch.observe(float(observed))
    return calls
