"""Certificates counted on populations whose truth is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from edge_sdk.engine import Scores
from training.learn.contest import Contest
from training.learn.operating import Goals
from training.learn.policies import GRID, SAFEST, Fixed, Policy, Probing, Static
from training.measure.validity import Validity, validity

Array = NDArray[np.float64]

#: The last rung always agrees.
RUNGS, COUNT = 6, 1000


def population(seed: int = 0, *, hopeless: bool = False) -> tuple[Scores, Array, Array]:
    """Return what a perfect head says of all pictures, their answers and their sizes."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0.0, 1.5, (COUNT, 1))
    truth = 1.0 / (1.0 + np.exp(-(np.linspace(-2.0, 5.0, RUNGS) + ease)))
    truth = 0.5 * truth if hopeless else truth
    truth[:, -1] = 1.0
    answers = (rng.random(truth.shape) < truth).astype(float)
    sizes = np.tile(np.geomspace(0.1, 1.0, RUNGS), (COUNT, 1))
    scores = Scores(
        np.zeros((COUNT, 1), np.float32),
        (truth - sizes).astype(np.float32),
        truth.astype(np.float32),
        sizes.astype(np.float32),
    )
    return scores, answers, sizes


def measured(
    winner: str = "static",
    *,
    hopeless: bool = False,
    splits: int = 60,
    pictures: int = 200,
    seed: int = 0,
    thrifty: bool = True,
    target: float = 0.9,
    **more: Any,
) -> Validity:
    scores, answers, sizes = population(hopeless=hopeless)
    policies: dict[str, Policy] = {
        "fixed": Fixed(tuple(range(RUNGS - 1, -1, -1)), COUNT),
        "static": Static(scores, (SAFEST, *GRID[::8])),
    }
    if winner == "probing":  # a look tells what the original told
        told = np.repeat(answers[:, None].astype(np.float32), RUNGS, axis=1)
        policies["probing"] = Probing(scores, told, sizes, 1, (SAFEST, *GRID[::20]))
    return validity(
        policies,
        Contest(winner, {}),
        answers,
        sizes,
        Goals(target=target, delta=0.05, thrifty=thrifty),
        pictures=pictures,
        splits=splits,
        rng=np.random.default_rng(seed),
        **more,
    )


@pytest.mark.parametrize("winner", ["fixed", "static"])
@pytest.mark.parametrize("thrifty", [True, False])
def test_no_more_certificates_fail_than_chance_allows(winner: str, thrifty: bool) -> None:
    found = measured(winner, splits=100, thrifty=thrifty)
    assert found.violations * 100 <= binom.ppf(0.999, 100, found.delta)
    assert found.certified > 0.3  # or nothing was tested
    assert found.size_ratio < 0.9
    assert found.agreement >= 0.9
    assert found.kept == (found.violations <= 0.05)
    assert found.violations <= found.most <= 1.0


def test_an_agent_that_looks_is_tested_as_well() -> None:
    found = measured("probing", splits=8, pictures=150)
    assert found.certified == 1.0
    assert found.violations == 0.0  # its looks tell the truth
    assert found.size_ratio < measured(splits=8, pictures=150).size_ratio


@pytest.mark.parametrize("winner", ["fixed", "static"])
def test_where_nothing_but_the_safest_rung_agrees_no_promise_is_broken(winner: str) -> None:
    found = measured(winner, hopeless=True, splits=20)
    assert found.violations == 0.0
    assert found.agreement > 0.95
    assert found.size_ratio > 0.95


def test_certified_is_what_is_cheaper_than_the_safest_rung() -> None:
    assert measured("fixed", hopeless=True, splits=5).certified == 0.0


def test_too_few_pictures_send_the_safest_rung_and_break_no_promise() -> None:
    found = measured(splits=20, pictures=10)
    assert (found.certified, found.violations, found.agreement) == (0.0, 0.0, 1.0)
    assert found.size_ratio == pytest.approx(1.0)
    assert found.kept
    assert 0.0 < found.most < 0.2


def test_more_pictures_save_more() -> None:
    few, many = (measured(splits=20, pictures=count) for count in (60, 600))
    assert many.size_ratio < few.size_ratio
    assert many.agreement < few.agreement


def test_the_same_seed_counts_the_same_and_every_set_is_told() -> None:
    steps: list[int] = []
    one, again = measured(splits=7, progress=steps.append), measured(splits=7)
    assert steps == [1] * 7
    assert one == again
    assert measured(splits=7, seed=1) != one


def test_it_travels_as_json_and_says_what_was_promised() -> None:
    found = measured(splits=7)
    document = json.loads(json.dumps(found.as_dict()))
    assert document["kept"] is found.kept
    assert (document["splits"], document["pictures"], document["target"]) == (7, 200, 0.9)
    assert "On 7 random sets of 200 calibration pictures" in found.sentence
    assert "below 0.9 in" in found.sentence
    assert "promised is at most 5%" in found.sentence
