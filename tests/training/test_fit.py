from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import PAPER
from edge_sdk.policy import OperatingPoint
from edge_sdk.scenery import STRANGE, Glimpse, Signature
from export.network import DQNHead, FactoredHead
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Store
from model_store.errors import UsageError
from training.learn.decisions import choices, scores
from training.learn.dqn import PaperParameters, Trace
from training.learn.fit import FitResult, fit_bandit, fit_dqn
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.learn.policies import SAFEST
from training.learn.provenance import fingerprint

GOAL = Goal(backend="local:stand-in", scenery="field", seed=3, target=0.9)
QUICK = PaperParameters(K=60, T_start=20, batch=16, hidden=(8,))

MakeLabelled = Callable[..., Labelled]


@pytest.fixture(scope="module")
def train(make_labelled: MakeLabelled) -> Labelled:
    return make_labelled(0, 120)


@pytest.fixture(scope="module")
def held(make_labelled: MakeLabelled) -> Labelled:
    return make_labelled(1, 90)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of our own: fitting keeps the exported prefix there."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def bandit(
    cache: Path, stand_in: Any, train: Labelled, held: Labelled
) -> tuple[TrainingRun, FitResult]:
    return fit_bandit(stand_in, train, held, GOAL)


@pytest.fixture(scope="module")
def dqn(cache: Path, stand_in: Any, train: Labelled) -> tuple[TrainingRun, Trace]:
    return fit_dqn(stand_in, train, GOAL, QUICK)


# --- goals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("target", 1.5, "The target accuracy is 1.5; allowed is above 0 and below 1"),
        ("target", 0.0, "The target accuracy is 0.0; allowed is above 0 and below 1"),
        ("delta", 1.0, "The delta is 1.0; allowed is above 0 and below 1"),
        ("metric", "f1", "The metric 'f1' is unknown; allowed: .*any_hit"),
    ],
)
def test_a_goal_that_makes_no_sense_is_a_clear_error(field: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Goal(**{"backend": "local:x", field: value})


def test_another_ladder_takes_its_looks_along(make_labelled: MakeLabelled) -> None:
    pictures = make_labelled(0, 5)
    looks = np.arange(5 * 10 * 12, dtype=np.float32).reshape(5, 10, 12)
    part = replace(pictures, looks=looks).on((PAPER[7], PAPER[2]))
    assert part.looks is not None
    np.testing.assert_array_equal(part.looks, looks[:, [7, 2]])
    np.testing.assert_array_equal(part.table.bytes, pictures.table.bytes[:, [7, 2]])
    assert pictures.on(PAPER[:2]).looks is None
    seen = part.seen("any_hit")
    assert seen.looks is part.looks
    assert seen.labels.tolist() == ["cat"] * 5


def test_where_all_is_known_nothing_is_bought(make_labelled: MakeLabelled) -> None:
    pictures = make_labelled(0, 5)
    rungs = np.array([0, 1, 2, 3, 4])
    known = pictures.table.agreement["any_hit"][np.arange(5), rungs]
    np.testing.assert_array_equal(pictures.observer("any_hit")(rungs), known)
    assert pictures.refreshed() is pictures


# --- the default agent ------------------------------------------------------------------------


def test_the_bandit_meets_its_target_with_a_certificate(
    bandit: tuple[TrainingRun, FitResult],
) -> None:
    run, _ = bandit
    point = run.operating_point
    assert run.algorithm == "bandit"
    assert (point.certified, point.target, point.n) == (True, 0.9, 90)
    assert point.achieved is not None
    assert point.achieved >= 0.9


def test_the_bandit_spends_bytes_where_they_are_needed(
    bandit: tuple[TrainingRun, FitResult], make_labelled: MakeLabelled
) -> None:
    unseen = make_labelled(2, 300)
    chosen = choices(bandit[0], unseen)
    rows = np.arange(300)
    assert unseen.table.agreement["any_hit"][rows, chosen].mean() > 0.87
    spent = unseen.table.size_ratio[rows, chosen]
    bright = unseen.features.values.mean(axis=1)
    assert spent[bright > 0.65].mean() < 0.5 * spent[bright < 0.35].mean()


def test_too_few_held_out_pictures_mean_the_safest_rung(
    cache: Path, stand_in: Any, train: Labelled, make_labelled: MakeLabelled
) -> None:
    run, _ = fit_bandit(stand_in, train, make_labelled(5, 20), replace(GOAL, target=0.95))
    assert (run.operating_point.certified, run.operating_point.trade_off) == (False, SAFEST)
    assert "at least 39 more" in run.operating_point.note
    assert {PAPER[k].quality for k in choices(run, train)} == {75}


def test_the_metric_of_the_goal_is_what_counts(
    cache: Path, stand_in: Any, train: Labelled, held: Labelled
) -> None:
    """Nothing ever agrees by top1 here, the safest rung neither."""
    run, _ = fit_bandit(stand_in, train, held, replace(GOAL, metric="top1"))
    assert not run.operating_point.certified
    agreement = scores(run.head, train.features.values).agreement
    assert agreement is not None
    assert np.delete(agreement, 7, axis=1).max() < 0.1


def test_the_same_seed_fits_the_same_agent(
    cache: Path,
    stand_in: Any,
    train: Labelled,
    held: Labelled,
    bandit: tuple[TrainingRun, FitResult],
) -> None:
    run, report = fit_bandit(stand_in, train, held, GOAL)
    assert report == bandit[1]
    assert run.operating_point == bandit[0].operating_point
    assert run.facts == bandit[0].facts
    pairs = zip(run.head.parameters(), bandit[0].head.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


# --- the paper's agent ------------------------------------------------------------------------


def test_the_dqn_lets_its_values_decide(dqn: tuple[TrainingRun, Trace], train: Labelled) -> None:
    run, trace = dqn
    assert run.algorithm == "dqn"
    assert len(trace.reward) == QUICK.K
    assert run.operating_point.trade_off is None
    assert "states no accuracy target" in run.operating_point.note
    best = scores(run.head, train.features.values).q_values.argmax(axis=1)
    assert np.array_equal(choices(run, train), best)


def test_the_dqn_is_paid_by_the_goals_reward(dqn: tuple[TrainingRun, Trace]) -> None:
    trace, reward = dqn[1], GOAL.reward
    expected = reward(np.array(trace.agreement), np.array(trace.size_ratio))
    assert trace.reward == pytest.approx(expected)


def test_the_dqn_takes_table_1_unless_told_otherwise(
    cache: Path, stand_in: Any, train: Labelled
) -> None:
    steps: list[int] = []
    _, trace = fit_dqn(stand_in, train, GOAL, progress=steps.append)
    assert len(trace.reward) == sum(steps) == PaperParameters().K == 1000


# --- what is handed to export -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bandit", "dqn"])
def test_a_run_is_published_as_it_was_trained(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, train: Labelled
) -> None:
    run: TrainingRun = request.getfixturevalue(kind)[0]
    store = Store(tmp_path)
    manifest, parity = publish_run(run, store, aliases=["current"])
    assert parity.same_rung == 1.0
    assert manifest.algorithm == kind
    assert manifest.id.startswith("field-")
    assert OperatingPoint.from_dict(manifest.operating_points[0]) == run.operating_point
    engine = OnnxEngine(store.load("current").file("engine"))
    assert engine.ladder == PAPER
    seen = engine.run(train.features.inputs)
    assert seen.features == pytest.approx(train.features.values[:12], abs=1e-5)
    assert seen.q_values == pytest.approx(scores(run.head, seen.features).q_values, abs=1e-4)


def test_the_parity_pictures_are_scored_by_the_network_itself(
    bandit: tuple[TrainingRun, FitResult], train: Labelled
) -> None:
    run = bandit[0]
    assert np.array_equal(run.inputs, train.features.inputs)
    assert run.expected.features == pytest.approx(train.features.values[:12], abs=1e-6)
    expected = scores(run.head, train.features.values[:12])
    assert run.expected.q_values == pytest.approx(expected.q_values, abs=1e-5)


def test_the_facts_tell_where_the_agent_comes_from(
    bandit: tuple[TrainingRun, FitResult], train: Labelled, held: Labelled
) -> None:
    facts = bandit[0].facts
    training = facts["training"]
    assert facts["backend"] == {
        "name": "local:stand-in",
        "model_version": None,
        "min_score": 0.0,
        "metric": "any_hit",
    }
    assert facts["reward"] == {"alpha": 1.0, "beta": 0.0}
    assert (training["photos"], training["images"], training["seed"]) == (210, 210, 3)
    assert training["labels_bought"] == train.table.calls + held.table.calls == 210 * 11
    assert training["prefix"]["side"] == 16
    assert training["prefix"]["confidence"] == 0
    assert facts["scenery"]["name"] == "field"
    assert {"torch", "numpy", "python"} <= set(facts["versions"])


def test_the_scenery_recognises_its_own_pictures(
    bandit: tuple[TrainingRun, FitResult], held: Labelled
) -> None:
    signature = Signature.from_dict(bandit[0].facts["scenery"]["signature"])
    own = [Glimpse(row) for row in held.features.values[:12]]
    other = [Glimpse(row + 2.0) for row in held.features.values[:12]]
    assert signature.strangeness(own) < STRANGE < signature.strangeness(other)


def test_the_fingerprint_is_of_the_pictures_whatever_their_order(
    train: Labelled, held: Labelled
) -> None:
    assert fingerprint([train.table, held.table]) == fingerprint([held.table, train.table])
    assert fingerprint([train.table]) != fingerprint([train.table, held.table])


def test_the_prefix_is_exported_once(bandit: tuple[TrainingRun, FitResult], cache: Path) -> None:
    (kept,) = (cache / "adacompress" / "prefix").iterdir()
    assert kept.read_bytes() == bandit[0].prefix


def test_scores_of_both_heads_have_the_outputs_of_their_engines() -> None:
    features = np.zeros((3, 4), dtype=np.float32)
    factored, plain = scores(FactoredHead(4, PAPER), features), scores(DQNHead(4, 10), features)
    assert factored.agreement is not None
    assert factored.agreement.shape == (3, 10)
    assert plain.agreement is None
    assert plain.q_values.shape == (3, 10)
