"""An agent from stand-ins for a service, and learning that starts from a stored agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.ladder import FULL, PAPER
from edge_sdk.policy import OperatingPoint
from export.network import FactoredHead
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Store, StoredAgent
from model_store.errors import UsageError
from training.learn.coldstart import TEST, cold_start, start_from, worst_of
from training.learn.decisions import choices, scores
from training.learn.dqn import PaperParameters
from training.learn.fit import fit_bandit, fit_dqn
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.learn.policies import SAFEST, Fixed, Static
from training.measure.trial import size_at

MakeLabelled = Callable[..., Labelled]
Array = NDArray[np.float64]

COUNT, WIDTH = 400, 12
GOAL = Goal(backend="none", target=0.85, seed=3)
MODELS = ("one", "other")


# --- the cheapest step at which everybody agrees ----------------------------------------------


def shown(shares: Sequence[float], count: int = COUNT) -> Array:
    """Return agreement of which these shares are yes, rung by rung."""
    place = np.arange(count)[:, None] / count
    return np.asarray(place < np.array(shares)).astype(float)


def order(count: int = COUNT) -> Fixed:
    """Return a policy that goes from rung 3 down to rung 0."""
    return Fixed((3, 2, 1, 0), count)


def test_the_worst_recogniser_decides() -> None:
    kind, strict = shown([0.6, 0.95, 0.99, 1.0]), shown([0.5, 0.85, 0.97, 1.0])
    assert worst_of(order(), [kind], 0.9).rung == 1
    both = worst_of(order(), [kind, strict], 0.9)
    assert both.rung == 2
    assert worst_of(order(), [strict, kind], 0.9) == both
    assert both.achieved == pytest.approx(0.97, abs=1e-3)


def test_it_stays_a_standard_error_above_the_target() -> None:
    some = shown([0.0, 0.91, 0.99, 1.0])
    assert worst_of(order(), [some], 0.9).rung == 2  # 0.91 is 0.7 standard errors above
    assert worst_of(order(), [some], 0.89).rung == 1
    few = shown([0.0, 0.91, 0.99, 1.0], 40)
    assert worst_of(order(40), [few], 0.89).rung != 1


def test_what_comes_after_a_failure_is_not_looked_at() -> None:
    """Luck of a cheap step proves nothing of the dearer one that failed."""
    assert worst_of(order(), [shown([1.0, 0.5, 0.99, 1.0])], 0.9).rung == 2


def test_where_no_step_is_good_enough_the_safest_is_sent() -> None:
    steps = (SAFEST, 4.0, 1.0)
    truth = np.tile([0.1, 0.2, 0.3], (COUNT, 1)).astype(np.float32)
    predicted = Scores(np.zeros((COUNT, 1), np.float32), truth, truth, truth)
    point = worst_of(Static(predicted, steps), [shown([0.1, 0.2, 0.3])], 0.9)
    assert (point.trade_off, point.certified) == (SAFEST, False)


def test_a_point_says_that_it_is_no_certificate() -> None:
    point = worst_of(order(), [shown([0.6, 0.95, 0.99, 1.0])] * 3, 0.9)
    assert not point.certified
    assert (point.target, point.n, point.test) == (0.9, COUNT, TEST)
    assert "Not certified: no answer of the service was asked for. 3 local models" in point.note
    assert OperatingPoint.from_dict(point.as_dict()) == point


# --- the agent --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefix(stand_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The stand-in, with a classifier of its own; what is exported stays in a cache of ours."""
    made = type(stand_in)()
    last = torch.nn.Linear(WIDTH, 10)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        last.weight.copy_(torch.randn(last.weight.shape, generator=generator))
        last.bias.zero_()
    made.classifier = torch.nn.Sequential(torch.nn.Identity(), last)
    made.requires_grad_(requires_grad=False)
    made.eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield made


def looked(pictures: Labelled, seed: int) -> Labelled:
    """Add looks that stray the further from the picture the less likely it is to agree."""
    rng = np.random.default_rng(seed)
    values, agreed = pictures.features.values, pictures.table.agreement["any_hit"]
    strayed = np.where(agreed == 1.0, 0.01, 0.3)[..., None] * rng.normal(
        size=(*agreed.shape, WIDTH)
    )
    return replace(pictures, looks=(values[:, None] + strayed).astype(np.float32))


def said_otherwise(pictures: Labelled, seed: int) -> Labelled:
    """Return what another model says of the same pictures: mostly the same."""
    table = pictures.table
    turned = np.random.default_rng(seed).random(table.agreement["any_hit"].shape) < 0.03
    turned[:, [rung.quality == 75 for rung in PAPER]] = False
    agreed = table.agreement["any_hit"]
    return replace(
        pictures,
        table=replace(table, agreement={**table.agreement, "any_hit": np.abs(agreed - turned)}),
    )


@pytest.fixture(scope="module")
def parts(make_labelled: MakeLabelled) -> tuple[list[Labelled], list[Labelled]]:
    """What two models say of training and of other pictures."""
    train, held = looked(make_labelled(0, 120), 0), looked(make_labelled(1, 100), 1)
    return [train, said_otherwise(train, 2)], [held, said_otherwise(held, 3)]


@pytest.fixture(scope="module")
def cold(prefix: Any, parts: tuple[list[Labelled], list[Labelled]]) -> TrainingRun:
    return cold_start(prefix, *parts, GOAL, MODELS)


def test_a_cold_agent_is_not_certified_and_says_what_it_was_learnt_from(cold: TrainingRun) -> None:
    point = cold.operating_point
    assert (point.certified, point.n, point.test) == (False, 100, TEST)
    assert "2 local models stand in for it" in point.note
    assert point.max_probes == GOAL.max_probes
    assert cold.probe is not None
    (static,) = cold.points  # for devices that cannot look
    assert (static.max_probes, static.certified) == (0, False)
    learning = cold.facts["training"]
    assert (learning["vocabulary"], learning["models"]) == ("imagenet", MODELS)
    assert learning["photos"] == 220
    assert cold.facts["backend"]["name"] == "none"


def test_every_stand_in_keeps_the_target_on_other_photos(
    cold: TrainingRun, parts: tuple[list[Labelled], list[Labelled]]
) -> None:
    for held in parts[1]:
        rungs = choices(cold, held)
        rows = np.arange(len(rungs))
        assert held.table.agreement["any_hit"][rows, rungs].mean() >= GOAL.target
        assert held.table.size_ratio[rows, rungs].mean() < 0.9


def test_without_looks_one_point_is_all(
    prefix: Any, parts: tuple[list[Labelled], list[Labelled]]
) -> None:
    blind = [[replace(one, looks=None) for one in part] for part in parts]
    run = cold_start(prefix, blind[0], blind[1], GOAL, MODELS)
    assert (run.probe, run.points, run.operating_point.max_probes) == (None, (), 0)
    assert run.facts["training"]["vocabulary"] == "none"
    unwilling = cold_start(prefix, *parts, replace(GOAL, max_probes=0), MODELS)
    assert (unwilling.probe, unwilling.points) == (None, ())


# --- starting from it -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(cold: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> StoredAgent:
    store = Store(tmp_path_factory.mktemp("store"))
    publish_run(cold, store, aliases=["current"])
    return store.load("current")


def test_a_cold_agent_is_published_as_it_is(stored: StoredAgent, cold: TrainingRun) -> None:
    points = [OperatingPoint.from_dict(one) for one in stored.manifest.operating_points]
    assert points == [cold.operating_point, *cold.points]
    assert stored.manifest.training["models"] == list(MODELS)
    assert stored.manifest.metrics["parity"]["same_rung"] == 1.0


def test_learning_starts_from_the_heads_of_a_stored_agent(
    cold: TrainingRun, stored: StoredAgent
) -> None:
    start = start_from(stored, PAPER, WIDTH)
    assert isinstance(start.static, FactoredHead)
    assert start.probe is not None
    assert cold.probe is not None
    for one, other in ((start.static, cold.head), (start.probe, cold.probe)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_a_probe_in_a_services_own_words_is_left_behind(cold: TrainingRun, tmp_path: Path) -> None:
    facts = {**cold.facts, "training": {**cold.facts["training"], "vocabulary": "service"}}
    store = Store(tmp_path)
    publish_run(replace(cold, facts=facts), store, aliases=["current"])
    start = start_from(store.load("current"), PAPER, WIDTH)
    assert start.static is not None
    assert start.probe is None


def test_an_agent_that_does_not_look_has_no_probe_to_start_from(
    cold: TrainingRun, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    point = replace(cold.operating_point, max_probes=0)
    plain = replace(cold, probe=None, points=(), operating_point=point)
    publish_run(plain, store, aliases=["current"])
    start = start_from(store.load("current"), PAPER, WIDTH)
    assert (start.static is not None, start.probe) == (True, None)


def test_an_agent_of_another_ladder_is_no_start(stored: StoredAgent) -> None:
    said = f"Agent {stored.id} has another ladder of 10 rungs.*Leave out --start"
    for ladder in (FULL, PAPER[:-1], PAPER[::-1]):
        with pytest.raises(UsageError, match=said):
            start_from(stored, ladder, WIDTH)


def test_an_agent_of_other_features_is_no_start(stored: StoredAgent) -> None:
    with pytest.raises(UsageError, match=f"Agent {stored.id} was learnt by the DQN or from other"):
        start_from(stored, PAPER, WIDTH + 7)


def test_the_papers_agent_is_no_start(
    prefix: Any, parts: tuple[list[Labelled], list[Labelled]], tmp_path: Path
) -> None:
    quick = PaperParameters(K=30, T_start=20, batch=16, hidden=(8,))
    run, _ = fit_dqn(prefix, parts[0][0], GOAL, quick)
    store = Store(tmp_path)
    publish_run(run, store, aliases=["current"])
    with pytest.raises(UsageError, match="was learnt by the DQN"):
        start_from(store.load("current"), PAPER, WIDTH)


def test_a_few_answers_and_a_start_do_better_than_a_few_answers_alone(
    prefix: Any, stored: StoredAgent, make_labelled: MakeLabelled
) -> None:
    train, held = looked(make_labelled(10, 15), 10), looked(make_labelled(11, 60), 11)
    others = looked(make_labelled(12, 200), 12)
    goal = replace(GOAL, backend="local:x", max_probes=0)
    start = start_from(stored, PAPER, WIDTH)
    needed = {}
    for name, given in (("start", (start,)), ("alone", ())):
        run, found = fit_bandit(prefix, train, held, goal, *given)
        assert found.heads.started == (name == "start")
        assert run.facts["training"]["started"] == (name == "start")
        policy = Static(scores(run.head, others.features.values))
        needed[name] = size_at(policy, others.table, 0.9, "any_hit")
    assert needed["start"] <= needed["alone"]
