"""How often a certificate fails, counted on 200 calibration sets; run with ``make bench``.

A large made-up population is given, so every agent's true agreement is known. That failures stay
below δ is no matter of speed, so this may fail. Read the shares, not the milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from training.learn.contest import Contest
from training.learn.operating import Goals
from training.learn.policies import Fixed, Policy, Static
from training.measure.validity import Validity, validity

Array = NDArray[np.float64]

#: The last rung decodes to the reference's pixels, and always agrees.
RUNGS = 12
COUNT, SPLITS, PICTURES = 40_000, 200, 200


@pytest.fixture(scope="module")
def population() -> tuple[Scores, Array, Array]:
    """Return what a head says that knows a part of the truth, the answers, and the sizes."""
    rng = np.random.default_rng(1)
    ease = rng.normal(0.0, 2.0, (COUNT, 1))
    logit = np.linspace(-2.0, 6.0, RUNGS) + ease
    answers = (rng.random(logit.shape) < _p(logit)).astype(float)
    answers[:, -1] = 1.0
    # It is as wrong about each picture as half of what there is to know, and too sure as well.
    told = _p(1.3 * (logit + rng.normal(0.0, 1.0, (COUNT, 1))))
    told[:, -1] = 1.0
    sizes = np.geomspace(0.08, 1.0, RUNGS) * rng.uniform(0.9, 1.1, (COUNT, 1))
    predicted = np.tile(np.geomspace(0.08, 1.0, RUNGS), (COUNT, 1))
    scores = Scores(
        np.zeros((COUNT, 1), np.float32),
        (told - predicted).astype(np.float32),
        told.astype(np.float32),
        predicted.astype(np.float32),
    )
    return scores, answers, sizes


def _p(logit: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


@pytest.mark.parametrize("thrifty", [True, False], ids=["bought", "grid"])
@pytest.mark.parametrize("winner", ["fixed", "static"])
@pytest.mark.parametrize("target", [0.9, 0.95])
def test_the_certificate_keeps_its_word(
    benchmark: Any,
    population: tuple[Scores, Array, Array],
    target: float,
    winner: str,
    thrifty: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores, answers, sizes = population
    policies: dict[str, Policy] = {
        "fixed": Fixed(tuple(range(RUNGS - 1, -1, -1)), COUNT),
        "static": Static(scores),
    }

    def count() -> Validity:
        return validity(
            policies,
            Contest(winner, {}),
            answers,
            sizes,
            Goals(target=target, delta=0.05, thrifty=thrifty),
            pictures=PICTURES,
            splits=SPLITS,
            rng=np.random.default_rng(0),
        )

    found = benchmark.pedantic(count, rounds=1)
    benchmark.extra_info["violations"] = found.violations
    with capsys.disabled():
        print(f"\n{winner}, {target:g}, {'bought' if thrifty else 'grid'}: {found.sentence}")
    assert found.certified > 0.3  # or nothing was tested
    assert found.size_ratio < 0.95
    assert found.violations <= found.delta
