from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_sdk.agreement import METRICS
from training.measure.confidence import by_confidence


def answers(scores: Any) -> Any:
    """Two rungs; the cheap one agrees where the service is sure."""
    scores = np.asarray(scores, dtype=float)
    agrees = np.column_stack([scores >= 0.6, np.ones(len(scores))]).astype(float)
    return SimpleNamespace(
        groups=np.arange(len(scores)),
        reference_score=scores,
        size_ratio=np.broadcast_to([0.2, 0.8], agrees.shape),
        agreement=dict.fromkeys(METRICS, agrees),
    )


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_pictures_are_taken_together_by_the_references_score() -> None:
    table = answers([0.0, 0.29, 0.3, 0.59, 0.6, 0.9, 1.0])
    choices = np.array([0, 1, 0, 0, 0, 0, 0])
    bins = by_confidence(table, choices, rng=rng())
    assert [(one.at_least, one.below, one.pictures) for one in bins] == [
        (0.0, 0.3, 2),
        (0.3, 0.6, 2),
        (0.6, 1.0, 3),
    ]
    assert [one.agreement["any_hit"].mean for one in bins] == [0.5, 0.0, 1.0]
    assert [one.size_ratio.mean for one in bins] == pytest.approx([0.5, 0.2, 0.2])
    sure = bins[-1].agreement["top1"]
    assert sure.lo < 1 == sure.hi  # three pictures prove little


def test_bins_without_pictures_are_left_out() -> None:
    bins = by_confidence(answers([0.7, 0.8]), np.zeros(2, np.int64), rng=rng())
    assert [one.at_least for one in bins] == [0.6]
    assert bins[0].as_dict()["agreement"]["eq1"]["mean"] == 1.0


def test_the_bins_add_up_to_the_whole() -> None:
    scores = rng().uniform(0, 1, 60)
    table, choices = answers(scores), rng().integers(0, 2, 60)
    bins = by_confidence(table, choices, rng=rng())
    total = sum(one.pictures * one.agreement["any_hit"].mean for one in bins)
    assert sum(one.pictures for one in bins) == 60
    assert total == pytest.approx(table.agreement["any_hit"][np.arange(60), choices].sum())
