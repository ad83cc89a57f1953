"""The paper's agent, learnt from and asked about the very pictures that ours is.

It knows the pooled features alone; ours may know what a classifier makes of them as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_sdk.ladder import PAPER
from export.network import Prefix
from export.run import TrainingRun
from training.labels.table import concatenate
from training.learn.decisions import choices
from training.learn.dqn import Trace
from training.learn.features import Features
from training.learn.fit import fit_dqn
from training.learn.goal import Goal
from training.learn.labelled import Labelled

__all__ = ["learn_paper_agent", "paper_choices"]

_NO_INPUTS = (np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.int64))


def learn_paper_agent(
    plain: Prefix, train: Labelled, held: Labelled, goal: Goal
) -> tuple[TrainingRun, Trace]:
    """Train the paper's agent on every answer to the photos that ours was learnt from.

    Args:
        plain: the prefix of our agent, without classifier confidence.
        train: what our heads were fitted to; its inputs prove parity.
        held: what our agent was certified on.
        goal: of both.
    """
    features = np.concatenate([train.features.values, held.features.values])
    pooled = Features(features[:, : plain.dimension], train.features.inputs, train.features.rows)
    table = concatenate([train.table, held.table]).on(PAPER)
    return fit_dqn(plain, Labelled(pooled, table), goal)


def paper_choices(dqn: TrainingRun, pictures: Labelled) -> NDArray[np.int64]:
    """Return the rung that the paper's agent chooses for each picture, int64 (N,)."""
    width = dqn.expected.features.shape[1]
    pooled = Features(pictures.features.values[:, :width], *_NO_INPUTS)
    return choices(dqn, Labelled(pooled, pictures.table.on(PAPER)))
