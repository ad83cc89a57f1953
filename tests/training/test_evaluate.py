from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_sdk.agreement import METRICS
from edge_sdk.ladder import PAPER, Ladder, Rung
from model_store.errors import UsageError
from training.measure import baselines
from training.measure.evaluate import evaluate, evaluate_policies, gap_interval
from training.measure.verdict import judge

LADDER: Ladder = (
    Rung(quality=10, scale=0.5),
    Rung(quality=15),
    Rung(quality=35),
    Rung(quality=75),
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def answers(ladder: Ladder = LADDER, *, photos: int = 40, seed: int = 1) -> Any:
    """A made-up answer table: each picture has a difficulty, costlier rungs survive more of it."""
    draw = rng(seed)
    groups = np.repeat([f"photo{index}" for index in range(photos)], 3)
    n, rungs = len(groups), len(ladder)
    strength = np.linspace(0.3, 1.0, rungs)
    difficulty = np.repeat(draw.random(photos), 3) * 0.6 + draw.random(n) * 0.4
    agrees = (strength >= difficulty[:, None]).astype(float)
    reference = draw.integers(30_000, 60_000, n)
    size = (reference[:, None] * strength**2 * draw.uniform(0.8, 0.96, (n, 1))).astype(int)
    return SimpleNamespace(
        ladder=ladder,
        keys=np.array([f"view{index}" for index in range(n)]),
        groups=groups,
        difficulty=difficulty,
        size_ratio=size / reference[:, None],
        wire_ratio=(size + 200) / (reference[:, None] + 200),
        agreement={
            "any_hit": agrees,
            "eq1": 0.5 + 0.5 * agrees,
            "top1": agrees,
            "jaccard": 0.4 + 0.6 * agrees,
        },
    )


def everything(**changes: Any) -> dict[str, Any]:
    table, paper = answers(), answers(PAPER)
    arguments: dict[str, Any] = {
        "known": answers(seed=2),
        "paper": paper,
        "known_paper": answers(PAPER, seed=2),
        "target": 0.8,
        "dqn": baselines.fixed(paper, 4),
        "rng": rng(),
    }
    return dict(evaluate_policies(table, baselines.oracle(table), **(arguments | changes)))


def test_figures_are_means_over_the_chosen_rungs() -> None:
    table = answers()
    choices = baselines.random_rungs(table, rng())
    result = evaluate(table, choices, rng=rng())
    rows = np.arange(len(choices))
    assert result.size_ratio.mean == pytest.approx(table.size_ratio[rows, choices].mean())
    assert result.wire_ratio.mean == pytest.approx(table.wire_ratio[rows, choices].mean())
    for metric in METRICS:
        expected = table.agreement[metric][rows, choices].mean()
        figure = result.agreement[metric]
        assert figure.mean == pytest.approx(expected)
        assert figure.lo < figure.mean < figure.hi
    assert result.calls_per_image.as_dict() == {"mean": 1, "lo": 1, "hi": 1}


def test_calls_may_differ_per_picture() -> None:
    table = answers()
    calls = 1.0 + np.tile([0.0, 1.0], len(table.keys) // 2)
    result = evaluate(table, baselines.fixed(table, 0), rng=rng(), calls_per_image=calls)
    assert result.calls_per_image.mean == pytest.approx(1.5)
    assert result.calls_per_image.lo < 1.5 < result.calls_per_image.hi


def test_choices_of_other_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="one rung for each picture"):
        evaluate(answers(), np.zeros(3, dtype=np.int64), rng=rng())


def test_policies_have_the_names_of_the_report() -> None:
    fixed = {f"fixed:{rung.name}" for rung in LADDER}
    named = {"reference", "best_fixed_paper", "best_fixed", "random", "dqn", "agent", "oracle"}
    assert set(everything()) == named | fixed
    assert set(everything(dqn=None)) == (named | fixed) - {"dqn"}


def test_reference_costs_and_agrees_exactly_one() -> None:
    reference = everything()["reference"].as_dict()
    one = {"mean": 1.0, "lo": 1.0, "hi": 1.0}
    assert reference == {
        "size_ratio": one,
        "wire_ratio": one,
        "agreement": dict.fromkeys(METRICS, one),
        "calls_per_image": one,
    }


def test_best_fixed_rung_is_chosen_on_pictures_it_is_not_measured_on() -> None:
    lenient, strict = answers(seed=2), answers(seed=2)
    lenient.agreement["any_hit"] = np.ones_like(lenient.agreement["any_hit"])
    strict.agreement["any_hit"] = np.zeros_like(strict.agreement["any_hit"])
    strict.agreement["any_hit"][:, 3] = 1.0
    assert everything(known=lenient)["best_fixed"].rung == "q10@0.5"
    assert everything(known=strict)["best_fixed"].rung == "q75"
    assert everything()["best_fixed_paper"].rung.endswith("-plain")


def test_best_fixed_works_under_the_same_certificate() -> None:
    assert everything(certificate=lambda agreement, groups: False)["best_fixed"].rung == "q75"


def test_same_seed_gives_the_same_results_with_or_without_the_dqn() -> None:
    full, less = everything(), everything(dqn=None)
    assert full == everything()
    assert less.items() <= full.items()


def test_tables_of_different_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="different pictures"):
        everything(paper=answers(PAPER, photos=39), dqn=None)


def test_the_oracle_beats_the_fixed_rungs_and_the_verdict_says_so() -> None:
    table = answers()
    verdict = judge(table, baselines.oracle(table), rng=rng(), target=0.95)
    assert verdict.outcome == "better"
    assert verdict.difference.hi < 0 < verdict.saving.lo
    assert verdict.size_ratio < verdict.fixed_size_ratio
    assert verdict.sentence.startswith("The agent beats the best fixed rung: it sends ")
    assert " % fewer bytes than" in verdict.sentence
    assert "40 photos it never saw" in verdict.sentence


def test_a_wasteful_agent_is_told_to_use_the_fixed_rung() -> None:
    table = answers()
    easy = table.difficulty < np.median(table.difficulty)
    verdict = judge(table, np.where(easy, 3, 0).astype(np.int64), rng=rng(), target=0.95)
    assert verdict.outcome == "worse"
    assert verdict.difference.lo > 0
    assert verdict.sentence.startswith("The agent does not beat the best fixed rung")
    assert "Use the fixed rung." in verdict.sentence
    assert "is below the target of 0.95" in verdict.sentence


def test_a_fixed_rung_is_not_better_than_itself() -> None:
    table = answers()
    verdict = judge(table, baselines.fixed(table, 3), rng=rng())
    assert verdict.outcome == "unclear"
    assert verdict.difference.mean == pytest.approx(0.0, abs=1e-12)
    assert "as many bytes as" in verdict.sentence
    assert "includes zero" in verdict.sentence


def test_an_interval_with_zero_is_said_plainly() -> None:
    table = answers(photos=12)
    mixed = np.where(rng(3).random(len(table.keys)) < 0.5, 1, 2).astype(np.int64)
    verdict = judge(table, mixed, rng=rng())
    assert verdict.outcome == "unclear"
    assert verdict.difference.lo < 0 < verdict.difference.hi
    assert "the interval includes zero" in verdict.sentence


def test_too_few_photos_give_no_verdict() -> None:
    table = answers(photos=4)
    verdict = judge(table, baselines.oracle(table), rng=rng())
    assert verdict.outcome == "unclear"
    assert verdict.sentence.startswith("No verdict, 4 photos are too few")


def test_gap_has_an_interval_around_its_point() -> None:
    table = answers()
    oracle = gap_interval(table, baselines.oracle(table), rng=rng())
    assert oracle is not None
    assert oracle.mean == pytest.approx(1.0)
    part = gap_interval(table, baselines.random_rungs(table, rng()), rng=rng())
    assert part is not None
    assert part.lo < part.mean < part.hi < 1


def test_no_gap_is_none() -> None:
    table = answers()
    table.agreement["any_hit"] = np.ones_like(table.agreement["any_hit"])
    assert gap_interval(table, baselines.fixed(table, 0), rng=rng()) is None
