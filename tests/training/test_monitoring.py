from __future__ import annotations

import numpy as np

from edge_sdk.estimator import TABLE_1, LoopParameters
from training.measure.monitoring import calls_per_image


def test_a_good_agent_is_looked_at_with_the_initial_probability() -> None:
    calls = calls_per_image(np.ones(5000), TABLE_1, np.random.default_rng(0))
    assert set(calls) == {1.0, 2.0}
    assert abs(calls.mean() - 1.2) < 0.02


def test_a_loss_of_agreement_raises_the_calls() -> None:
    agreement = np.r_[np.ones(500), np.zeros(500)]
    calls = calls_per_image(agreement, TABLE_1, np.random.default_rng(0))
    assert calls[600:].mean() > 1.9


def test_without_estimation_every_image_takes_one_call() -> None:
    never = LoopParameters(p_0=0.0, p_min=1e-12)
    assert calls_per_image(np.ones(100), never, np.random.default_rng(0)).tolist() == [1.0] * 100
