"""Algorithm 1 of the paper to the letter: Deep Q-learning of a compression policy.

Kept as the faithful implementation and as the opponent in every comparison. Read it beside the
paper's listing: line numbers in comments are the paper's.

    head, trace = train_dqn(environment, PaperParameters(), rng=np.random.default_rng(0))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from export.network import DQNHead
from model_store.errors import UsageError
from training.learn.compute import one_thread
from training.learn.environment import Environment
from training.learn.replay import Batch, ReplayBuffer

__all__ = ["PaperParameters", "Trace", "train_dqn"]


@dataclass(frozen=True, kw_only=True)
class PaperParameters:
    """Table 1 of the paper in its own notation, then what it leaves open.

    ``c_ref``, ``r_th``, ``p_0``, ``omega`` and ``n`` belong to the device loop; they stand here
    because the table is one table.
    """

    c_ref: int = 75
    epsilon_min: float = 0.02
    gamma: float = 0.95
    mu_dec: float = 0.99
    r_th: float = 0.45
    K: int = 1000
    p_0: float = 0.2
    omega: float = -3.0
    T: int = 5
    n: int = 10

    # Not in the table. Where the authors published a value, it is theirs.
    N: int = 2000
    """Capacity of the replay memory D."""
    T_start: int = 128
    """Steps before the first training; "enough transitions in the memory buffer"."""
    epsilon_0: float = 1.0
    """Exploration before the first decay: "the agent firstly takes some random trials"."""
    batch: int = 256
    """Transitions in a mini-batch."""
    learning_rate: float = 0.002
    """Of Adam."""
    hidden: tuple[int, ...] = (64, 32, 32)
    """Widths of the hidden layers."""

    def __post_init__(self) -> None:
        for name in ("K", "T", "N", "T_start", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1 is allowed.")
        for name in ("gamma", "mu_dec", "epsilon_min", "epsilon_0"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed is 0 to 1.")


@dataclass
class Trace:
    """What happened at each of the K steps, for figures and tests."""

    epsilon: list[float] = field(default_factory=list)
    rung: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    size_ratio: list[float] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    """Transitions in D after the step."""
    trained_at: list[int] = field(default_factory=list)
    """Steps t, counted from 1, at which a gradient step was made."""
    loss: list[float] = field(default_factory=list)
    """One a gradient step."""


def train_dqn(
    environment: Environment,
    parameters: PaperParameters,
    *,
    rng: np.random.Generator,
    progress: Callable[[int], object] = lambda count: None,
) -> tuple[DQNHead, Trace]:
    """Run Algorithm 1 and return the action-value network with its trace.

    Args:
        environment: {X, M}.
        parameters: Table 1.
        rng: exploration, mini-batches and initial weights.
        progress: called with 1 after every step.
    """
    with one_thread():
        return _algorithm_1(environment, parameters, rng, progress)


def _algorithm_1(
    environment: Environment,
    parameters: PaperParameters,
    rng: np.random.Generator,
    progress: Callable[[int], object],
) -> tuple[DQNHead, Trace]:
    torch.manual_seed(int(rng.integers(2**63)))
    memory = ReplayBuffer(parameters.N, environment.dimension)  # line 1
    q = DQNHead(environment.dimension, environment.rungs, parameters.hidden)  # line 2
    optimizer = torch.optim.Adam(q.parameters(), lr=parameters.learning_rate)
    epsilon, trace = parameters.epsilon_0, Trace()
    features = environment.reset()  # line 3
    for t in range(1, parameters.K + 1):  # line 4
        if rng.random() < epsilon:  # lines 5-6, exploration
            rung = int(rng.integers(environment.rungs))
        else:  # lines 7-8
            rung = _best(q, features)
        step = environment.step(rung)  # lines 10-13
        memory.add(features, rung, step.reward, step.features)  # lines 15-17
        features = step.features
        _record(trace, epsilon, rung, step.reward, step.agreement, step.size_ratio, len(memory))
        if t % parameters.T == 0 and t >= parameters.T_start:  # line 18
            batch = memory.sample(parameters.batch, rng)  # line 19
            trace.loss.append(_gradient_step(q, optimizer, batch, parameters.gamma))  # 20, 22
            trace.trained_at.append(t)
            epsilon = max(parameters.mu_dec * epsilon, parameters.epsilon_min)  # line 21
        progress(1)
    return q.eval(), trace


def _best(q: DQNHead, features: np.ndarray) -> int:
    with torch.inference_mode():
        return int(q(torch.from_numpy(features)[None])[0].argmax())


def _gradient_step(
    q: DQNHead, optimizer: torch.optim.Optimizer, batch: Batch, gamma: float
) -> float:
    """Descend (y_j − Q(φ_j, c_j; θ))² with y_j = r_j + γ max_c' Q(φ_{j+1}, c'; θ), θ as it is now.

    The target is held fixed during the step, as in the paper's reference [37] (Mnih et al. 2013).
    """
    with torch.no_grad():
        ahead = q(torch.from_numpy(batch.next_features))[0].max(dim=1).values
        target = torch.from_numpy(batch.rewards) + gamma * ahead
    value = q(torch.from_numpy(batch.features))[0]
    chosen = value.gather(1, torch.from_numpy(batch.rungs)[:, None])[:, 0]
    loss = F.mse_loss(chosen, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def _record(trace: Trace, *values: float) -> None:
    names = ("epsilon", "rung", "reward", "agreement", "size_ratio", "stored")
    for name, value in zip(names, values, strict=True):
        getattr(trace, name).append(value)
