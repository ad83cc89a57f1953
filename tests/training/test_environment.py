from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.learn.environment import TableEnvironment
from training.learn.reward import Reward

PICTURES, RUNGS = 7, 3


def environment(seed: int = 0, reward: Reward | None = None) -> TableEnvironment:
    """Pictures whose only feature is their number, with answers that name picture and rung."""
    rng = np.random.default_rng(1)
    return TableEnvironment(
        np.arange(PICTURES, dtype=np.float32)[:, None],
        rng.uniform(size=(PICTURES, RUNGS)),
        rng.uniform(0.1, 1.0, size=(PICTURES, RUNGS)),
        reward=reward or Reward(),
        rng=np.random.default_rng(seed),
    )


def walk(world: TableEnvironment, steps: int, rung: int = 0) -> list[int]:
    """The pictures that are met."""
    seen = [int(world.reset()[0])]
    return seen + [int(world.step(rung).features[0]) for _ in range(steps - 1)]


@given(seed=st.integers(0, 1000), rounds=st.integers(1, 5))
@settings(max_examples=30)
def test_every_picture_comes_once_a_round(seed: int, rounds: int) -> None:
    seen = walk(environment(seed), rounds * PICTURES)
    for start in range(0, len(seen), PICTURES):
        assert sorted(seen[start : start + PICTURES]) == list(range(PICTURES))


def test_the_order_changes_from_round_to_round_and_with_the_seed() -> None:
    seen = walk(environment(), 2 * PICTURES)
    assert seen[:PICTURES] != seen[PICTURES:]
    assert seen != walk(environment(seed=1), 2 * PICTURES)
    assert seen == walk(environment(), 2 * PICTURES)


def test_the_order_does_not_depend_on_the_actions() -> None:
    assert walk(environment(), 20, rung=0) == walk(environment(), 20, rung=2)


@given(alpha=st.floats(0, 10), beta=st.floats(-5, 5), rung=st.integers(0, RUNGS - 1))
def test_the_reward_is_that_of_the_picture_that_was_shown(
    alpha: float, beta: float, rung: int
) -> None:
    table = np.random.default_rng(1)
    agreement = table.uniform(size=(PICTURES, RUNGS))
    size_ratio = table.uniform(0.1, 1.0, size=(PICTURES, RUNGS))
    world = environment(reward=Reward(alpha, beta))
    picture = int(world.reset()[0])
    for _ in range(2 * PICTURES):
        step = world.step(rung)
        assert step.agreement == agreement[picture, rung]
        assert step.size_ratio == size_ratio[picture, rung]
        assert step.reward == pytest.approx(
            alpha * agreement[picture, rung] - size_ratio[picture, rung] + beta  # section 3.4
        )
        picture = int(step.features[0])


def test_reset_starts_a_new_round() -> None:
    world = environment()
    walk(world, 3)
    assert sorted(walk(world, PICTURES)) == list(range(PICTURES))


def test_it_tells_its_dimensions() -> None:
    world = environment()
    assert (world.dimension, world.rungs) == (1, RUNGS)


def test_the_default_reward_is_agreement_less_bytes() -> None:
    assert Reward()(np.array([1.0, 0.0]), np.array([0.25, 0.5])).tolist() == [0.75, -0.5]
