"""How much an agent owes to chance and to the number of photos: many agents, learnt alike.

    trials = [run_trial(prefixes, everything, plan, photos=n, seed=seed).trial for seed in range(5)]
    points = summarise(trials)  # mean and spread at each number of photos

How one of them is learnt and measured is ``trial``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.learn.goal import Goal
from training.measure.trial import Trial
from training.measure.validity import Validity

__all__ = ["Study", "summarise"]

_WAYS = ("fixed", "static", "probing")


@dataclass(frozen=True)
class Study:
    """Many agents, and how often their certificate failed; ``None`` where nobody counted."""

    trials: tuple[Trial, ...]
    validity: Validity | None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "points": summarise(self.trials),
            "validity": self.validity and self.validity.as_dict(),
            "trials": [trial.as_dict() for trial in self.trials],
        }

    def sentences(self, goal: Goal) -> list[str]:
        """Say what came out, a line for every number of photos."""
        lines = [_line(point, goal.target) for point in summarise(self.trials)]
        return [*lines, self.validity.sentence] if self.validity else lines


def summarise(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return, for every number of photos, means and standard deviations over the trials."""
    return [
        _summary([trial for trial in trials if trial.photos == count])
        for count in sorted({trial.photos for trial in trials})
    ]


def _summary(trials: Sequence[Trial]) -> dict[str, Any]:
    places = ("agent", "best_fixed", "best_fixed_paper", "oracle", "dqn")
    known = [name for name in places if all(getattr(trial, name) for trial in trials)]
    return {
        "photos": trials[0].photos,
        "trials": len(trials),
        "answers": float(np.mean([trial.answers for trial in trials])),
        "certified": float(np.mean([trial.certified for trial in trials])),
        "ways": {way: sum(trial.way == way for trial in trials) for way in _WAYS},
        "policies": {
            name: {
                figure: _spread([getattr(getattr(trial, name), figure) for trial in trials])
                for figure in ("size_ratio", "agreement")
            }
            for name in known
        },
        "at_target": {
            way: _spread([trial.at_target[way] for trial in trials])
            for way in trials[0].at_target
            if all(way in trial.at_target for trial in trials)
        },
        # The guard: below 0 is cheaper than the best fixed rung that passes the same test.
        "agent_minus_best_fixed": _spread(
            [trial.agent.size_ratio - trial.best_fixed.size_ratio for trial in trials]
        ),
    }


def _line(point: dict[str, Any], target: float) -> str:
    """Return one number of photos in words."""
    agent, fixed = (point["policies"][name]["size_ratio"] for name in ("agent", "best_fixed"))
    best = min(point["at_target"].get(way, {"mean": 1.0})["mean"] for way in _WAYS[1:])
    return (
        f"{point['photos']} photos, {point['answers']:.0f} answers, {point['trials']} splits: size "
        f"{agent['mean']:.3f} ± {agent['sd']:.3f} at agreement "
        f"{point['policies']['agent']['agreement']['mean']:.3f}, best fixed rung "
        f"{fixed['mean']:.3f}; certified {point['certified']:.0%}; an exact trade-off would need "
        f"{best:.3f} for {target:g}."
    )


def _spread(values: Sequence[float]) -> dict[str, float]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "sd": deviation}
