"""The contest between ways of deciding: the simpler one wins unless another clearly foresees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.learn.contest import FOLDS, Contest, contest

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

COUNT, RUNGS = 150, 5


def singles(count: int = COUNT) -> NDArray[np.object_]:
    """Every picture is of a photo of its own."""
    return np.array([f"photo{index}" for index in range(count)], dtype=object)


class World:
    """Answers with known probabilities, and contestants that know a part of them.

    Args:
        seen: how much the picture itself tells, in logits.
        looked: how much a look at the encoding tells besides.
    """

    def __init__(self, seed: int, seen: float = 0.0, looked: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        base = np.linspace(-1.0, 2.0, RUNGS)
        static = base + seen * rng.normal(size=(COUNT, 1))
        whole = static + looked * rng.normal(size=(COUNT, RUNGS))
        self.agreement = (rng.random((COUNT, RUNGS)) < _p(whole)).astype(float)
        # Who learns more is a little wrong about more.
        errors = np.cumsum(rng.normal(0.0, 0.4, (2, COUNT, RUNGS)), axis=0)
        self.known = {"static": _p(static + errors[0]), "probing": _p(whole + errors[1])}
        self.fitted: list[tuple[Rows, Rows]] = []

    def predict(self, known: Rows, held: Rows) -> Mapping[str, Array]:
        self.fitted.append((known, held))
        means = np.tile(self.agreement[known].mean(axis=0), (len(held), 1))
        return {"fixed": means} | {kind: p[held] for kind, p in self.known.items()}

    def contest(self, seed: int = 0, **choices: Any) -> Contest:
        given = {"agreement": self.agreement, "groups": singles()} | choices
        return contest(self.predict, rng=np.random.default_rng(seed), **given)


def _p(logit: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


@pytest.mark.parametrize(
    ("told", "winner"),
    [
        ({}, "fixed"),
        ({"seen": 1.5}, "static"),
        ({"looked": 1.5}, "probing"),
        ({"seen": 1.5, "looked": 1.5}, "probing"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_foresees_more_wins(told: dict[str, float], winner: str, seed: int) -> None:
    assert World(seed, **told).contest().winner == winner


def test_what_foresees_worse_does_not_win_however_rich_it_is() -> None:
    world = World(0, seen=1.5)
    world.known["probing"] = np.random.default_rng(0).uniform(0.05, 0.95, (COUNT, RUNGS))
    assert world.contest().winner == "static"
    world.known["static"] = world.known["probing"]
    assert world.contest().winner == "fixed"


def test_where_two_do_alike_the_simpler_one_wins() -> None:
    world = World(0, seen=1.5)
    world.known["probing"] = world.known["static"].copy()
    assert world.contest().winner == "static"


def test_the_losses_are_nats_an_answer() -> None:
    world = World(0, seen=1.0, looked=1.0)
    found = world.contest().log_loss
    p, answered = np.clip(world.known["static"], 1e-4, 1.0 - 1e-4), world.agreement == 1.0
    assert found["static"] == pytest.approx(-np.log(np.where(answered, p, 1.0 - p)).mean())
    assert list(found) == ["fixed", "static", "probing"]
    assert found["fixed"] > found["static"] > found["probing"]


def test_a_contestant_that_is_surely_wrong_is_not_infinitely_wrong() -> None:
    world = World(0)
    world.known["static"] = 1.0 - world.agreement
    assert world.contest().log_loss["static"] == pytest.approx(-np.log(1e-4), rel=1e-3)


def test_every_picture_is_foreseen_once_by_those_who_did_not_see_its_photo() -> None:
    world, groups = World(0), singles(COUNT // 3).repeat(3)
    world.contest(groups=groups)
    assert len(world.fitted) == FOLDS
    assert sorted(np.concatenate([held for _, held in world.fitted])) == list(range(COUNT))
    for known, held in world.fitted:
        assert not set(groups[known]) & set(groups[held])
        assert len(known) + len(held) == COUNT


def test_the_same_seed_gives_the_same_contest() -> None:
    assert World(0, seen=1.0).contest(seed=4) == World(0, seen=1.0).contest(seed=4)
    assert World(0, seen=1.0).contest(seed=4) != World(0, seen=1.0).contest(seed=5)


def test_answers_that_nobody_bought_do_not_count() -> None:
    world = World(0, looked=1.5)
    asked = np.random.default_rng(0).random((COUNT, RUNGS)) < 0.4
    asked[:10] = False
    found = world.contest(agreement=np.where(asked, world.agreement, np.nan))
    assert found.winner == "probing"
    rows = asked.any(axis=1)
    p, answered = np.clip(world.known["probing"], 1e-4, 1.0 - 1e-4), world.agreement == 1.0
    loss = np.where(asked, -np.log(np.where(answered, p, 1.0 - p)), 0.0).sum(axis=1)
    assert found.log_loss["probing"] == pytest.approx((loss[rows] / asked[rows].sum(axis=1)).mean())


def test_without_any_answer_nobody_looks() -> None:
    world = World(0, looked=1.5)
    found = world.contest(agreement=np.full((COUNT, RUNGS), np.nan))
    assert found == Contest("fixed", {})


def test_of_one_photo_nothing_can_be_learnt() -> None:
    world = World(0, looked=1.5)
    found = world.contest(groups=np.array(["one"] * COUNT, dtype=object))
    assert found == Contest("fixed", {})
    assert world.fitted == []


def test_a_contest_travels_as_json() -> None:
    found = World(0, seen=1.0).contest()
    assert json.loads(json.dumps(found.as_dict())) == {
        "winner": "static",
        "log_loss": dict(found.log_loss),
    }
