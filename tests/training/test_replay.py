from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.learn.replay import Batch, ReplayBuffer

DIMENSION = 3


def filled(capacity: int, count: int) -> ReplayBuffer:
    """A buffer after transitions 0 … count-1; every part of transition t tells its t."""
    memory = ReplayBuffer(capacity, DIMENSION)
    for t in range(count):
        features = np.full(DIMENSION, t, dtype=np.float32)
        memory.add(features, t % 10, -float(t), features + 0.5)
    return memory


def times(batch: Batch) -> list[int]:
    """Which transitions a batch holds, after checking that none was mixed with another."""
    t = batch.features[:, 0]
    assert np.array_equal(batch.features, np.repeat(t[:, None], DIMENSION, axis=1))
    assert np.array_equal(batch.next_features, batch.features + 0.5)
    assert np.array_equal(batch.rungs, t.astype(int) % 10)
    assert np.array_equal(batch.rewards, -t)
    return [int(time) for time in t]


@given(capacity=st.integers(1, 12), count=st.integers(1, 40))
def test_it_holds_the_last_transitions_and_no_more(capacity: int, count: int) -> None:
    memory = filled(capacity, count)
    model = list(range(count))[-capacity:]
    assert len(memory) == len(model)
    everything = memory.sample(capacity, np.random.default_rng(0))
    assert sorted(times(everything)) == model


@given(size=st.integers(1, 60), count=st.integers(1, 40), seed=st.integers(0, 9))
def test_a_batch_holds_different_transitions(size: int, count: int, seed: int) -> None:
    seen = times(filled(25, count).sample(size, np.random.default_rng(seed)))
    assert len(seen) == len(set(seen)) == min(size, count, 25)


def test_every_transition_is_drawn_equally_often() -> None:
    memory, rng = filled(10, 10), np.random.default_rng(0)
    drawn = np.bincount([t for _ in range(2000) for t in times(memory.sample(3, rng))])
    assert drawn == pytest.approx(600, abs=100)


def test_the_same_seed_draws_the_same_batch() -> None:
    memory = filled(50, 50)
    first, second = (memory.sample(8, np.random.default_rng(4)) for _ in range(2))
    assert times(first) == times(second)


def test_what_was_stored_does_not_change_with_the_callers_array() -> None:
    memory, features = ReplayBuffer(2, DIMENSION), np.ones(DIMENSION, dtype=np.float32)
    memory.add(features, 1, 0.5, features)
    features[:] = 9.0
    assert memory.sample(1, np.random.default_rng(0)).features.max() == 1.0


def test_a_batch_has_the_types_that_the_network_takes() -> None:
    batch = filled(4, 2).sample(2, np.random.default_rng(0))
    assert [array.dtype for array in batch] == [np.float32, np.int64, np.float32, np.float32]
