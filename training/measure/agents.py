"""A published agent's policy: what its own engine and probe say, at every trade-off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agent import Agent
from edge_sdk.codec import Scales, encode, framed
from edge_sdk.engine import Scores
from edge_sdk.ladder import REFERENCE
from edge_sdk.preprocess import to_input
from edge_sdk.reading import load
from edge_sdk.view import View as Shown
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
    scores = _without(_stacked([row[0] for row in rows]), agent.barred)
    if scores.agreement is None:
        return ByValue(scores)
    if not probing:
        return Static(scores)
    told, sizes = np.stack([row[1] for row in rows]), np.stack([row[2] for row in rows])
    return Probing(scores, told, sizes, point.max_probes, ladder=agent.ladder)


_NOTHING = (np.zeros(0, np.float32), np.zeros(0))


def _told(
    agent: Agent, view: View, original: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return predictions (K, K) from a probe of every rung, and the rungs' size ratios (K,)."""
    assert agent.probe is not None  # the caller has looked
    image, engine = view.open(), agent.engine
    scales = Scales(image, agent.codec)
    known: dict[Shown | None, NDArray[np.float32]] = {None: original}
    for shown in {rung.view for rung in agent.ladder if rung.view}:
        known[shown] = engine.run(to_input(framed(image, shown), engine.side)).features[0]
    reference = len(encode(scales, REFERENCE))
    told = np.zeros((len(agent.ladder), len(agent.ladder)), dtype=np.float32)
    sizes = np.full(len(agent.ladder), _NEVER)
    for index, rung in enumerate(agent.ladder):
        if index in agent.barred:
            continue
        file = encode(scales, rung)
        sizes[index] = len(file) / reference
        if rung.has_pixels:
            candidate = engine.run(to_input(load(file).image, engine.side)).features[0]
            told[index] = agent.probe.run(known[rung.view], candidate, index, sizes[index])
    return told, sizes


#: Size ratio of what is not to be chosen.
_NEVER = 1e9


def _without(scores: Scores, barred: frozenset[int]) -> Scores:
    """Return scores with which no rung is chosen that the service does not read."""
    if not barred:
        return scores
    columns = [*barred]
    worst = {"q_values": -_NEVER, "agreement": 0.0, "size_ratio": _NEVER}
    changed = {}
    for name, value in worst.items():
        if (known := getattr(scores, name)) is not None:
            changed[name] = known.copy()
            changed[name][:, columns] = value
    return replace(scores, **changed)


def _stacked(rows: Sequence[Scores]) -> Scores:
    known = [name for name in Scores.__dataclass_fields__ if getattr(rows[0], name) is not None]
    return Scores(**{name: np.concatenate([getattr(row, name) for row in rows]) for name in known})
