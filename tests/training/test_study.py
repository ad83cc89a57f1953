"""Agents learnt alike from many splits of one set of answers, without weights or a service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.agreement import METRICS
from edge_sdk.estimator import TABLE_1
from edge_sdk.ladder import PAPER
from model_store.errors import UsageError
from training.labels.table import AnswerTable, concatenate
from training.learn.decisions import choices, policy_of
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.learn.policies import Fixed
from training.measure import baselines
from training.measure.comparison import Answers, compare_with_baselines
from training.measure.report import PhotoSet, Report
from training.measure.study import Study, summarise
from training.measure.trial import TEST_SHARE, Place, Plan, Trained, Trial, run_trial, size_at
from training.measure.validity import Validity

MakeLabelled = Callable[..., Labelled]

TOTAL, PHOTOS = 220, 120
#: A third of the ladder's rungs is asked about.
CALLS = 3
PLAN = Plan(
    goal=Goal(backend="local:stand-in", target=0.85, max_probes=0),
    ladder=PAPER,
    calls=(CALLS, 0),
    train_share=1 / 3,
    opponent=False,
)


@pytest.fixture(scope="module")
def everything(make_labelled: MakeLabelled) -> Labelled:
    return make_labelled(0, TOTAL)


@pytest.fixture(scope="module")
def learn(
    stand_in: Any, everything: Labelled, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Trained]]:
    """Run a trial; the exported prefix is kept in a cache of our own."""

    def run(plan: Plan = PLAN, *, photos: int = PHOTOS, seed: int = 0) -> Trained:
        return run_trial((stand_in, stand_in), everything, plan, photos=photos, seed=seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield run


@pytest.fixture(scope="module")
def trained(learn: Callable[..., Trained]) -> Trained:
    return learn()


# --- one trial --------------------------------------------------------------------------------


def test_a_trial_learns_certifies_and_measures_on_different_photos(trained: Trained) -> None:
    parts = trained.parts
    counts = [len(set(part.table.groups)) for part in (parts.train, parts.held, parts.test)]
    assert counts == [40, 80, round(TEST_SHARE * TOTAL)]
    names = [name for p in (parts.train, parts.held, parts.test) for name in p.table.groups]
    assert len(set(names)) == len(names)


def test_a_trial_pays_for_far_fewer_answers_than_the_grid(trained: Trained) -> None:
    trial = trained.trial
    references, sampled = PHOTOS, 40 * CALLS
    assert references + 1 < trial.answers < PHOTOS * len(PAPER) / 2
    assert trained.run.facts["training"]["labels_bought"] == trial.answers
    assert trial.answers >= references + sampled // 2


def test_a_trial_finds_a_certified_agent_between_oracle_and_reference(trained: Trained) -> None:
    trial = trained.trial
    assert trial.certified
    assert trial.certified == trained.run.operating_point.certified
    assert trial.way in ("fixed", "static")
    assert trial.agent.agreement >= 0.8
    assert trial.agent.size_ratio < 1.0
    assert trial.oracle.agreement == 1.0
    assert trial.oracle.size_ratio < trial.best_fixed.size_ratio
    assert trial.best_fixed == trial.best_fixed_paper  # the ladder is the paper's
    assert trial.dqn is None
    assert trained.paper_choices() is None
    assert trained.contest is trained.found.contest


def test_hindsight_needs_least_where_more_is_known(trained: Trained) -> None:
    found = trained.trial.at_target
    assert set(found) == {"static", "fixed", "fixed_paper", "oracle"}
    assert found["oracle"] < found["static"] < found["fixed"] == found["fixed_paper"]


def test_the_seed_decides_a_trial(learn: Callable[..., Trained], trained: Trained) -> None:
    assert learn().trial == trained.trial
    other = learn(seed=1)
    assert other.trial != trained.trial
    assert other.trial.seed == 1
    assert other.run.facts["training"]["seed"] == 1
    assert other.trial.at_target != trained.trial.at_target


def test_the_same_photos_measure_however_many_are_learnt_from(
    learn: Callable[..., Trained], trained: Trained
) -> None:
    fewer = learn(photos=30)
    assert set(fewer.parts.test.table.groups) == set(trained.parts.test.table.groups)
    assert fewer.trial.photos == 30
    assert fewer.trial.answers < trained.trial.answers
    assert not fewer.trial.certified or fewer.trial.agent.agreement > 0.8


def test_every_way_of_deciding_is_about_pictures_it_was_not_fitted_to(trained: Trained) -> None:
    policies = trained.policies(0)
    assert set(policies) == {"fixed", "static"}
    held, test = trained.parts.held, trained.parts.test
    assert isinstance(policies["fixed"], Fixed)
    assert len(policies["static"].rungs(1.0)) == len(held.table) + len(test.table)


def test_the_papers_agent_learns_from_the_same_photos(learn: Callable[..., Trained]) -> None:
    found = learn(replace(PLAN, opponent=True), photos=40)
    assert found.dqn is not None
    assert found.dqn.algorithm == "dqn"
    chosen = found.paper_choices()
    assert chosen is not None
    test = found.parts.test.table
    rows = np.arange(len(test))
    assert found.trial.dqn is not None
    assert found.trial.dqn.size_ratio == pytest.approx(test.size_ratio[rows, chosen].mean())
    agreed = test.agreement["any_hit"][rows, chosen].mean()
    assert found.trial.dqn.agreement == pytest.approx(agreed)
    # Every answer to the photos that ours learns from, which the paper's agent needs.
    assert found.dqn.facts["training"]["photos"] == 40


@pytest.mark.parametrize("photos", [3, 4, 5, 8])
def test_hardly_any_photos_give_the_safest_rung(photos: int, learn: Callable[..., Trained]) -> None:
    trial = learn(photos=photos).trial
    assert not trial.certified
    assert trial.agent.agreement == 1.0


@pytest.mark.parametrize("photos", [-1, 0, 2, 133, 10_000])
def test_a_number_of_photos_that_there_are_not_is_a_clear_error(
    photos: int, learn: Callable[..., Trained]
) -> None:
    said = f"learn from {photos} photos; allowed is 3 to 132, because 88 of 220 only measure"
    with pytest.raises(UsageError, match=said):
        learn(photos=photos)


# --- hindsight --------------------------------------------------------------------------------


def test_a_policy_of_fixed_rungs_needs_what_their_mixture_needs(everything: Labelled) -> None:
    table = everything.table
    cheapest_last = tuple(int(one) for one in np.argsort(-table.size_ratio.mean(axis=0)))
    policy = Fixed(cheapest_last, len(table))
    for target in (0.5, 0.9, 0.99):
        needed = baselines.size_at_agreement(baselines.fixed_points(table), target)
        assert size_at(policy, table, target, "any_hit") == pytest.approx(needed)


def test_a_target_below_the_cheapest_step_costs_what_that_costs(everything: Labelled) -> None:
    table = everything.table
    policy = Fixed((7, 0), len(table))
    assert size_at(policy, table, 0.001, "any_hit") == pytest.approx(table.size_ratio[:, 0].mean())
    rising = [size_at(policy, table, target, "any_hit") for target in (0.5, 0.8, 0.95, 1.0)]
    assert rising == sorted(rising)


# --- many trials ------------------------------------------------------------------------------


def made(photos: int, seed: int, size: float, *, dqn: bool = False, way: str = "static") -> Trial:
    at_target = {"static": size - 0.05, "fixed": 0.5, "fixed_paper": 0.6, "oracle": 0.1}
    return Trial(
        seed=seed,
        photos=photos,
        answers=6 * photos + seed,
        way=way,
        certified=seed != 1,
        agent=Place(size_ratio=size, agreement=0.96),
        best_fixed=Place(size_ratio=0.5, agreement=0.97),
        best_fixed_paper=Place(size_ratio=0.6, agreement=0.97),
        oracle=Place(size_ratio=0.1, agreement=1.0),
        dqn=Place(size_ratio=0.7, agreement=0.8) if dqn else None,
        at_target=at_target | ({"probing": size - 0.1} if way == "probing" else {}),
    )


TRIALS = (
    made(100, 0, 0.3, dqn=True, way="probing"),
    made(100, 1, 0.4, dqn=True, way="probing"),
    made(50, 0, 0.4, way="probing"),
    made(50, 1, 0.5),
    made(50, 2, 0.6, way="fixed"),
)
KEPT = Validity(
    splits=200,
    pictures=80,
    target=0.95,
    delta=0.05,
    certified=0.9,
    violations=0.015,
    most=0.04,
    size_ratio=0.31,
    agreement=0.97,
)


def test_points_go_by_the_number_of_photos_with_means_and_deviations() -> None:
    few, many = summarise(TRIALS)
    assert [(one["photos"], one["trials"]) for one in (few, many)] == [(50, 3), (100, 2)]
    assert few["answers"] == 301.0
    assert few["certified"] == pytest.approx(2 / 3)
    assert few["ways"] == {"fixed": 1, "static": 1, "probing": 1}
    assert few["policies"]["agent"]["size_ratio"] == pytest.approx({"mean": 0.5, "sd": 0.1})
    assert few["agent_minus_best_fixed"] == pytest.approx({"mean": 0.0, "sd": 0.1})
    assert many["policies"]["dqn"]["agreement"] == pytest.approx({"mean": 0.8, "sd": 0.0})


def test_what_not_every_trial_has_has_no_mean() -> None:
    few, many = summarise(TRIALS)
    assert "dqn" not in few["policies"]
    assert "probing" not in few["at_target"]
    assert many["at_target"]["probing"]["mean"] == pytest.approx(0.25)


def test_one_trial_has_no_deviation() -> None:
    (point,) = summarise(TRIALS[:1])
    assert point["agent_minus_best_fixed"]["sd"] == 0.0
    assert point["trials"] == 1


def test_a_study_says_a_line_for_every_number_of_photos_and_one_of_the_certificate() -> None:
    goal = Goal(backend="local:x", target=0.95)
    lines = Study(TRIALS, KEPT).sentences(goal)
    assert len(lines) == 3
    assert lines[0].startswith("50 photos, 301 answers, 3 splits: size 0.500 ± 0.100")
    assert "certified 67%" in lines[0]
    assert lines[1].endswith("an exact trade-off would need 0.250 for 0.95.")
    assert lines[2] == KEPT.sentence
    assert Study(TRIALS, None).sentences(goal) == lines[:2]


def test_a_study_travels_as_json(trained: Trained) -> None:
    document = json.loads(json.dumps(Study((trained.trial,), KEPT).as_dict()))
    assert set(document) == {"points", "validity", "trials"}
    assert document["trials"][0]["agent"]["size_ratio"] == trained.trial.agent.size_ratio
    assert document["validity"]["kept"] is True
    assert Study((trained.trial,), None).as_dict()["validity"] is None


# --- in the report ----------------------------------------------------------------------------


def every_metric(table: AnswerTable) -> AnswerTable:
    """Return the table with the metrics that the made-up service lacks, too."""
    return replace(table, agreement=dict.fromkeys(METRICS, table.agreement["any_hit"]))


@pytest.fixture(scope="module")
def report(trained: Trained) -> Report:
    parts, goal = trained.parts, PLAN.goal
    known = every_metric(concatenate([parts.train.table, parts.held.table]))
    test = replace(parts.test, table=every_metric(parts.test.table))
    found = compare_with_baselines(
        Answers(test.table, known),
        Answers(test.table, known),
        choices(trained.run, test),
        policy=policy_of(trained.run, test),
        target=goal.target,
        loop=TABLE_1,
        rng=np.random.default_rng(0),
    )
    photo_set = PhotoSet(photos=1, views=1, fingerprint="ab" * 32)
    return Report(
        command="python -m training study",
        seed=0,
        photos=dict.fromkeys(("train", "calibration", "test"), photo_set),
        backend={"name": "local:stand-in", "model_version": None, "min_score": 0.0},
        ladder=PAPER,
        operating_point=trained.run.operating_point,
        policies=found.policies,
        gap_closed=found.gap_closed,
        verdict=found.verdict,
        quality_verdict=found.quality_verdict,
        labels_bought=1,
        cost_usd=0.0,
        curve=found.curve,
        sceneries={},
        versions={},
        timings_s={},
        study=Study(TRIALS, KEPT),
    )


@pytest.fixture(scope="module")
def schema() -> Any:
    text = resources.files("training.measure").joinpath("report.schema.json").read_text("utf-8")
    return json.loads(text)


def test_a_report_with_a_study_and_without_a_device_is_valid(report: Report, schema: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = report.to_json()
    jsonschema.validate(document, schema)
    assert (document["decision_ms"], document["decision_encode_ratio"]) == (None, None)
    assert [point["photos"] for point in document["study"]["points"]] == [50, 100]
    jsonschema.validate(replace(report, study=Study(TRIALS, None)).to_json(), schema)
    jsonschema.validate(replace(report, study=None).to_json(), schema)


@pytest.mark.parametrize(
    "broken",
    [
        {"points": [], "validity": None, "trials": []},
        {"points": [{"photos": 5}], "validity": None, "trials": [{}]},
        {"validity": None},
        {**Study(TRIALS, KEPT).as_dict(), "validity": {"kept": True}},
        "many",
    ],
)
def test_the_schema_refuses_other_studies(broken: Any, report: Report, schema: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report.to_json() | {"study": broken}, schema)


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&nbsp;", " ")


def test_the_page_has_the_section_and_its_figures(report: Report) -> None:
    pytest.importorskip("matplotlib")
    page = replace(report, study=Study(TRIALS, None)).to_html()
    assert "What more photos buy" in words(page)
    assert 'id="learning-wide-' in page
    assert 'id="learning-narrow-' in page
    assert '<tr><th scope="row">50</th><td>301</td>' in page
    assert "0.700<small>at 0.800</small>" in page  # the paper's agent
    assert "choosing / encoding" not in words(page)
    assert "What more photos buy" not in replace(report, study=None).to_html()


def test_the_page_tells_whether_the_certificate_kept_its_word(report: Report) -> None:
    pytest.importorskip("matplotlib")
    assert "the true agreement was below 0.95 in 1.5 %" in words(report.to_html()).replace(
        "1.5%", "1.5 %"
    )


def test_the_learning_curve_is_left_beside_the_report(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    replace(report, study=Study(TRIALS, None)).write(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["curve.svg", "learning.svg", "report.html", "report.json"]
    assert (tmp_path / "learning.svg").read_text("utf-8").startswith("<svg")
