"""Figures that a manifest carries, to recognise an agent by: measured on its calibration photos.

The operating point was chosen on those very photos; what judges an agent is ``evaluate``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.run import TrainingRun
from training.learn.decisions import choices
from training.learn.labelled import Labelled
from training.measure.evaluate import evaluate

__all__ = ["with_metrics"]


def with_metrics(run: TrainingRun, held: Labelled) -> TrainingRun:
    """Return the run with ``metrics`` among its facts, every figure with its interval.

    Args:
        run: what training left.
        held: photos that the head was not fitted to, on the agent's ladder.
    """
    rng = np.random.default_rng(run.facts["training"]["seed"])
    found = evaluate(held.table, choices(run, held), rng=rng).as_dict()
    metrics = {**found, "measured_on": "calibration photos"}
    return replace(run, facts={**run.facts, "metrics": metrics})
