"""Which rungs of a picture to ask about: a few, spread over the ladder.

Which rungs are asked must not depend on the answers: a bisection asks where the answer is in doubt,
so half its answers are yes whatever the picture, and what is fitted to them learns that pictures do
not differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["stratified"]


def stratified(
    pictures: int, rungs: int, calls: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return ``calls`` rungs of every picture, one at random from each part of the ladder.

    Args:
        pictures: N.
        rungs: K, of the ladder.
        calls: answers a picture.
        rng: chooses.

    Returns:
        int64 (N, calls), rising in each row.
    """
    edges = np.linspace(0, rungs, calls + 1)
    return rng.uniform(edges[:-1], edges[1:], (pictures, calls)).astype(np.int64)
