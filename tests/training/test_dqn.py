from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from export.network import DQNHead
from model_store.errors import UsageError
from training.learn.dqn import PaperParameters, Trace, train_dqn
from training.learn.environment import Environment, Step, TableEnvironment
from training.learn.reward import Reward

#: Small enough for a second, trained as often as the paper's thousand steps.
QUICK: dict[str, Any] = {"K": 400, "T_start": 20, "T": 2, "batch": 32, "hidden": (16,)}


class Cycle:
    """States 0, 1, … in a circle, one-hot, whatever the action; rewards from a table (S, K)."""

    def __init__(self, rewards: Any) -> None:
        self._rewards = np.asarray(rewards, dtype=float)
        self.dimension, self.rungs = self._rewards.shape
        self._state = 0

    def reset(self) -> np.ndarray:
        self._state = 0
        return self._seen()

    def step(self, rung: int) -> Step:
        reward = float(self._rewards[self._state, rung])
        self._state = (self._state + 1) % self.dimension
        return Step(reward, 1.0, 1.0 - reward, self._seen())

    def _seen(self) -> np.ndarray:
        return np.asarray(np.eye(self.dimension, dtype=np.float32)[self._state])


def contexts(rng: np.random.Generator, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of four kinds, seen through noise, and the kind, which is the one rung to take."""
    kind = rng.integers(4, size=count)
    noise = rng.normal(0.0, 0.2, size=(count, 4))
    return (np.eye(4)[kind] + noise).astype(np.float32), kind


def world(features: np.ndarray, best: np.ndarray, seed: int = 0) -> TableEnvironment:
    return TableEnvironment(
        features,
        (np.arange(4)[None] >= best[:, None]).astype(float),  # cheaper rungs than this fail
        np.tile([0.1, 0.3, 0.5, 0.7], (len(best), 1)),
        reward=Reward(),
        rng=np.random.default_rng(seed),
    )


def run(
    environment: Environment, seed: int = 0, **parameters: Any
) -> tuple[DQNHead, Trace, PaperParameters]:
    given = PaperParameters(**parameters)
    return *train_dqn(environment, given, rng=np.random.default_rng(seed)), given


def q_values(head: DQNHead, features: Any) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(head(torch.as_tensor(features, dtype=torch.float32))[0])


# --- Table 1 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notation", "value"),
    [
        ("c_ref", 75),
        ("K", 1000),
        ("epsilon_min", 0.02),
        ("p_0", 0.2),
        ("gamma", 0.95),
        ("omega", -3),
        ("mu_dec", 0.99),
        ("T", 5),
        ("r_th", 0.45),
        ("n", 10),
    ],
)
def test_the_defaults_are_table_1(notation: str, value: float) -> None:
    assert getattr(PaperParameters(), notation) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("K", "T", "N", "T_start", "batch")),
        ("gamma", 1.5),
        ("epsilon_min", -0.1),
        ("epsilon_0", 2.0),
        ("mu_dec", float("nan")),
    ],
)
def test_a_parameter_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"^{name} is {value}; .*allowed"):
        PaperParameters(**{name: value})  # type: ignore[arg-type]


# --- Algorithm 1, line by line ----------------------------------------------------------------


@pytest.fixture(scope="module")
def traced() -> tuple[Trace, PaperParameters]:
    """A run long enough for ε to reach its floor."""
    features, best = contexts(np.random.default_rng(0))
    _, trace, given = run(
        world(features, best), K=700, N=300, T=3, T_start=100, mu_dec=0.97, batch=8, hidden=(8,)
    )
    return trace, given


def test_it_takes_exactly_k_steps(traced: tuple[Trace, PaperParameters]) -> None:
    trace, given = traced
    per_step = (trace.epsilon, trace.rung, trace.reward, trace.agreement, trace.size_ratio)
    assert [len(values) for values in per_step] == [given.K] * 5


def test_it_trains_every_t_steps_from_t_start_on(traced: tuple[Trace, PaperParameters]) -> None:
    trace, given = traced
    due = [t for t in range(1, given.K + 1) if t % given.T == 0 and t >= given.T_start]
    assert trace.trained_at == due
    assert len(trace.loss) == len(due)


def test_exploration_starts_at_one_and_stays_there_until_the_first_training(
    traced: tuple[Trace, PaperParameters],
) -> None:
    trace, given = traced
    assert set(trace.epsilon[: given.T_start]) == {1.0}


def test_exploration_decays_by_mu_dec_per_training_step_down_to_its_floor(
    traced: tuple[Trace, PaperParameters],
) -> None:
    trace, given = traced
    expected, epsilon = [], given.epsilon_0
    for t in range(1, given.K + 1):
        expected.append(epsilon)
        if t in trace.trained_at:  # line 21
            decayed = given.mu_dec * epsilon
            epsilon = decayed if decayed > given.epsilon_min else given.epsilon_min
    assert trace.epsilon == expected
    assert min(trace.epsilon) == given.epsilon_min


def test_the_memory_grows_to_n_and_no_further(traced: tuple[Trace, PaperParameters]) -> None:
    trace, given = traced
    assert trace.stored == [min(t, given.N) for t in range(1, given.K + 1)]


def test_while_exploring_every_rung_is_tried_equally_often() -> None:
    features, best = contexts(np.random.default_rng(0))
    _, trace, _ = run(world(features, best), K=4000, T_start=4000, hidden=(4,))
    assert np.bincount(trace.rung) == pytest.approx(1000, abs=120)


def test_without_exploration_the_network_decides() -> None:
    features, best = contexts(np.random.default_rng(0))
    head, trace, _ = run(world(features, best), K=50, T_start=50, epsilon_0=0.0, learning_rate=0.0)
    shown = world(features, best)
    # The weights are drawn from the run's generator, not the environment's: the order is the same.
    met = [shown.reset(), *(shown.step(0).features for _ in range(49))]
    assert trace.rung == q_values(head, np.stack(met)).argmax(axis=1).tolist()


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    features, best = contexts(np.random.default_rng(0))
    (first, trace, _), (again, same, _), (_, other, _) = (
        run(world(features, best), seed=seed, **QUICK) for seed in (3, 3, 4)
    )
    assert trace == same
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    assert trace.rung != other.rung


def test_the_global_generator_does_not_matter() -> None:
    features, best = contexts(np.random.default_rng(0))
    torch.manual_seed(1)
    _, first, _ = run(world(features, best), **QUICK)
    torch.manual_seed(2)
    _, second, _ = run(world(features, best), **QUICK)
    assert first == second


def test_progress_is_told_step_by_step() -> None:
    told: list[int] = []
    train_dqn(
        Cycle([[1.0]]),
        PaperParameters(K=7),
        rng=np.random.default_rng(0),
        progress=told.append,
    )
    assert told == [1] * 7


# --- the gradient step: lines 20 and 22 -------------------------------------------------------

#: One gradient step, at the last t, over every transition there is.
ONE_STEP: dict[str, Any] = {"K": 20, "T": 20, "T_start": 20, "batch": 99, "hidden": (5,)}
REWARDS = [[1.0, -0.5], [0.25, 2.0], [-1.0, 0.0]]


def temporal_difference(head: DQNHead, trace: Trace, gamma: float) -> torch.Tensor:
    """Mean (y − Q(φ, c))² over a run's transitions, by hand, y held fixed."""
    states = torch.eye(3)[torch.arange(20) % 3]
    ahead = torch.eye(3)[torch.arange(1, 21) % 3]
    target = torch.tensor(trace.reward) + gamma * head(ahead)[0].max(dim=1).values.detach()
    chosen = head(states)[0][torch.arange(20), torch.tensor(trace.rung)]
    return torch.mean((target - chosen) ** 2)


@pytest.mark.parametrize("gamma", [0.0, 0.95])
def test_the_target_is_reward_plus_discounted_best_value_ahead(gamma: float) -> None:
    head, trace, _ = run(Cycle(REWARDS), gamma=gamma, learning_rate=0.0, **ONE_STEP)
    assert trace.trained_at == [20]
    by_hand = float(temporal_difference(head, trace, gamma).detach())
    assert trace.loss == [pytest.approx(by_hand, rel=1e-5)]


def test_the_step_descends_with_the_target_held_fixed() -> None:
    before, trace, _ = run(Cycle(REWARDS), learning_rate=0.0, **ONE_STEP)
    after, _, given = run(Cycle(REWARDS), learning_rate=0.01, **ONE_STEP)
    temporal_difference(before, trace, given.gamma).backward()
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert old.grad is not None
        adams_first = 0.01 * old.grad / (old.grad.abs() + 1e-8)
        assert torch.allclose(new, old - adams_first, atol=1e-5)


def test_one_state_and_one_action_are_worth_the_discounted_sum() -> None:
    head, _, _ = run(Cycle([[0.5]]), gamma=0.9, learning_rate=0.02, **(QUICK | {"K": 1500}))
    assert q_values(head, [[1.0]])[0, 0] == pytest.approx(0.5 / (1.0 - 0.9), rel=0.03)


def test_values_look_one_state_ahead() -> None:
    gamma, rewards = 0.6, np.array([[1.0, 0.0], [0.0, 0.2], [0.5, -1.0]])
    head, _, _ = run(Cycle(rewards), gamma=gamma, learning_rate=0.01, **(QUICK | {"K": 1500}))
    expected = np.zeros_like(rewards)
    for _ in range(100):  # the Bellman equation of the circle, iterated
        expected = rewards + gamma * np.roll(expected.max(axis=1), -1)[:, None]
    # Rare actions are fitted less well than those that are taken.
    assert q_values(head, np.eye(3)) == pytest.approx(expected, abs=0.1)


# --- it learns --------------------------------------------------------------------------------

#: With γ = 0.95 the value of what comes next, which no action changes, drowns what the action
#: earns: a thousand steps as printed suffice for most pictures, not for nearly all.
GOOD_ENOUGH = [(0.95, 0.5), (0.0, 0.9)]
SEEDS = (0, 1, 2)


@pytest.mark.parametrize(("gamma", "share"), GOOD_ENOUGH)
def test_it_learns_the_best_rung_of_each_kind_of_picture(gamma: float, share: float) -> None:
    features, best = contexts(np.random.default_rng(0))
    unseen, wanted = contexts(np.random.default_rng(1))
    right = []
    for seed in SEEDS:  # all but γ as printed in Table 1
        head, trace, given = run(world(features, best, seed), seed=seed, gamma=gamma)
        assert np.mean(trace.reward[-200:]) > np.mean(trace.reward[: given.T_start]) + 0.1
        right.append(np.mean(q_values(head, unseen).argmax(axis=1) == wanted))
    assert np.mean(right) > share  # one in four by chance


@pytest.mark.parametrize(("gamma", "share"), GOOD_ENOUGH)
def test_it_finds_the_one_rung_that_is_best_for_all(gamma: float, share: float) -> None:
    features, kind = contexts(np.random.default_rng(0))
    right = []
    for seed in SEEDS:
        head, _, _ = run(world(features, np.full_like(kind, 2), seed), seed=seed, gamma=gamma)
        right.append(np.mean(q_values(head, features).argmax(axis=1) == 2))
    assert np.mean(right) > share
