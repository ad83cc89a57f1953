"""Methods with a knob: their settings, the best of them, and their place in the comparison."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_sdk.agreement import METRICS
from edge_sdk.ladder import PAPER, Rung
from model_store.errors import UsageError
from training.measure import baselines
from training.measure.evaluate import evaluate_policies
from training.measure.opponents import best_setting, by_similarity, fixed_settings
from training.measure.report import opponent_curve

LADDER = (Rung(10), Rung(25), Rung(50), Rung(75))


def answers(agreement: Any, sizes: Any = (0.1, 0.2, 0.4, 0.9), ladder: Any = LADDER) -> Any:
    agreement = np.asarray(agreement, dtype=float)
    n = len(agreement)
    ratio = np.broadcast_to(np.asarray(sizes, dtype=float), agreement.shape)
    return SimpleNamespace(
        ladder=ladder,
        keys=np.array([f"view{index}" for index in range(n)]),
        groups=np.array([f"photo{index}" for index in range(n)]),
        size_ratio=ratio,
        wire_ratio=ratio,
        agreement=dict.fromkeys(METRICS, agreement),
    )


TABLE = answers([[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1]])


def test_a_ladders_settings_are_its_rungs() -> None:
    opponent = fixed_settings(TABLE)
    assert list(opponent.choices) == ["q10", "q25", "q50", "q75"]
    assert opponent.place("q25", "any_hit") == pytest.approx((0.2, 0.75))
    points = opponent_curve(opponent)
    assert [point.name for point in points] == list(opponent.choices)
    assert [point.size_ratio for point in points] == pytest.approx([0.1, 0.2, 0.4, 0.9])
    assert [point.agreement for point in points] == [0.25, 0.75, 0.5, 1.0]


def test_a_search_by_similarity_chooses_for_every_picture() -> None:
    seen = np.array([[0.9, 0.95, 0.97, 0.99]] * 2 + [[0.2, 0.5, 0.7, 0.99]] * 2)
    opponent = by_similarity(TABLE, seen, (0.5, 0.9))
    assert opponent.choices["SSIM ≥ 0.50"].tolist() == [0, 0, 1, 1]
    assert opponent.choices["SSIM ≥ 0.90"].tolist() == [0, 0, 3, 3]
    assert opponent.place("SSIM ≥ 0.90", "any_hit") == pytest.approx((0.5, 0.75))


@pytest.mark.parametrize(
    ("target", "setting"), [(0.2, "q10"), (0.5, "q25"), (0.76, "q75"), (1.0, "q75")]
)
def test_the_best_setting_is_the_cheapest_that_meets_the_target(
    target: float, setting: str
) -> None:
    assert best_setting(fixed_settings(TABLE), target) == setting


def test_the_best_setting_must_pass_the_certificate_too() -> None:
    asked: list[float] = []

    def strict(agreement: np.ndarray, groups: np.ndarray) -> bool:
        asked.append(float(agreement.mean()))
        return bool(agreement.mean() > 0.9) and len(groups) == 4

    assert best_setting(fixed_settings(TABLE), 0.5, certificate=strict) == "q75"
    assert asked == [0.75, 0.5, 1.0]


def test_without_a_setting_that_meets_the_target_the_safest_is_best() -> None:
    table = answers([[0, 1, 1, 0], [0, 0, 0, 0]])
    assert best_setting(fixed_settings(table), 0.9) == "q25"


def compared(**opponents: Any) -> dict[str, Any]:
    paper = answers(np.ones((4, 10)), np.linspace(0.2, 1.1, 10), PAPER)
    return dict(
        evaluate_policies(
            TABLE,
            baselines.oracle(TABLE),
            known=TABLE,
            paper=paper,
            known_paper=paper,
            target=0.7,
            rng=np.random.default_rng(0),
            opponents=opponents,
        )
    )


def test_an_opponent_is_measured_at_its_best_setting_and_changes_no_other_figure() -> None:
    alone, together = compared(), compared(deepn_jpeg=fixed_settings(TABLE))
    assert alone.items() <= together.items()
    assert together["deepn_jpeg"].rung == "q25"
    assert together["deepn_jpeg"].agreement == together["fixed:q25"].agreement


def test_an_opponent_on_other_pictures_is_refused() -> None:
    with pytest.raises(UsageError, match="different pictures"):
        compared(perceptual=fixed_settings(answers(np.ones((5, 4)))))
