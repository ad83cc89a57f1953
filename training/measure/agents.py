"""A published agent's policy: what its own engine and probe say, at every trade-off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agent import Agent
from edge_sdk.codec import encode, load
from edge_sdk.engine import Scores
from edge_sdk.ladder import REFERENCE
from edge_sdk.preprocess import to_input
from training.learn.features import WORKERS
from training.learn.policies import ByValue, Fixed, Policy, Probing, Static
from training.photos import View

__all__ = ["policy_of"]


def policy_of(
    agent: Agent,
    views: Sequence[View],
    *,
    progress: Callable[[int], object] = lambda count: None,
) -> Policy:
    """Return what an agent does with pictures; for a probing one, every encoding is looked at.

    Args:
        agent: loaded from a store.
        views: the pictures.
        progress: called with 1 after every picture.
    """
    point = agent.operating_point
    if point.rung is not None:
        return Fixed((point.rung,), len(views))
    probing = agent.probe is not None and point.max_probes > 0

    def one(view: View) -> tuple[Scores, NDArray[np.float32], NDArray[np.float64]]:
        scores = agent.engine.run(to_input(view.open(), agent.engine.side))
        return scores, *(_told(agent, view, scores.features[0]) if probing else _NOTHING)

    rows = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="deciding") as pool:
        for row in pool.map(one, views):
            rows.append(row)
            progress(1)
    scores = _stacked([row[0] for row in rows])
    if scores.agreement is None:
        return ByValue(scores)
    if not probing:
        return Static(scores)
    told, sizes = np.stack([row[1] for row in rows]), np.stack([row[2] for row in rows])
    return Probing(scores, told, sizes, point.max_probes)


_NOTHING = (np.zeros(0, np.float32), np.zeros(0))


def _told(
    agent: Agent, view: View, original: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return predictions (K, K) from a probe of every rung, and the rungs' size ratios (K,)."""
    assert agent.probe is not None  # the caller has looked
    image, engine = view.open(), agent.engine
    reference = len(encode(image, REFERENCE))
    told, sizes = [], []
    for index, rung in enumerate(agent.ladder):
        jpeg = encode(image, rung)
        candidate = engine.run(to_input(load(jpeg).image, engine.side)).features[0]
        sizes.append(len(jpeg) / reference)
        told.append(agent.probe.run(original, candidate, index, sizes[-1]))
    return np.stack(told), np.array(sizes)


def _stacked(rows: Sequence[Scores]) -> Scores:
    known = [name for name in Scores.__dataclass_fields__ if getattr(rows[0], name) is not None]
    return Scores(**{name: np.concatenate([getattr(row, name) for row in rows]) for name in known})
