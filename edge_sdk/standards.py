"""What an agent is held to: the target that its certificate names, else the configured one.

loop_state = standards.begin(config, agent)     # its monitor rings below the target
steering = standards.steering(config, agent)    # its trade-off returns to the target
"""

from __future__ import annotations

from dataclasses import replace

from edge_sdk.agent import Agent
from edge_sdk.config import EdgeConfig
from edge_sdk.evidence import Betting
from edge_sdk.states import LoopState
from edge_sdk.steering import Steering

__all__ = ["begin", "steering"]


def begin(config: EdgeConfig, agent: Agent | None) -> LoopState:
    """Return the state in which an agent begins to be watched."""
    paper = config.monitor == "paper"
    return LoopState.start(
        agent.id if agent else "",
        config.loop if paper else _betting(config, _target(config, agent)),
        config.retrain_after,
    )


def steering(config: EdgeConfig, agent: Agent | None) -> Steering:
    """Return an agent's steering, which begins at its certified trade-off."""
    return Steering(config.steering, _target(config, agent))


def _target(config: EdgeConfig, agent: Agent | None) -> float:
    return (agent.operating_point.target if agent else None) or config.target_accuracy


def _betting(config: EdgeConfig, target: float) -> Betting:
    """Return the default monitor's parameters for a promised agreement."""
    defaults = Betting()
    return replace(
        defaults,
        target=target,
        A_0=min(config.loop.A_0 or defaults.A_0, target - 0.2 * (1.0 - target)),
        poor=min(defaults.poor, 0.7 * target),
        delta=config.delta,
        share=min(defaults.share, config.labels),
        r_th=config.loop.r_th,
    )
