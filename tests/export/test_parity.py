"""The gate: same decisions pass, others do not, and no proof is no pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.ladder import PAPER
from edge_sdk.policy import OperatingPoint
from edge_sdk.probe import Q_GAP
from export.gate import MIN_SAME
from export.network import Network
from export.parity import PROBE_GAP, check_parity, check_probe, scores_of
from export.probe_head import ProbeHead
from export.run import TrainingRun
from model_store.errors import GateFailed

Answer = NDArray[np.float32]

COUNT = 400
PLAIN = OperatingPoint(trade_off=None)


class Told:
    """An engine that answers the scores it is told."""

    side, ladder, provider = 4, PAPER, "fake"

    def __init__(self, scores: Scores) -> None:
        self.scores = scores

    def run(self, images: NDArray[np.uint8]) -> Scores:
        return self.scores


def images(count: int = COUNT) -> NDArray[np.uint8]:
    return np.zeros((count, 4, 4, 3), dtype=np.uint8)


@pytest.fixture
def trained() -> Scores:
    """Scores of 400 pictures; rung 3 leads by 0.5, rung 7 is the second."""
    q_values = np.zeros((COUNT, len(PAPER)), dtype=np.float32)
    q_values[:, 3], q_values[:, 7] = 1.0, 0.5
    return Scores(np.zeros((COUNT, 2), dtype=np.float32), q_values)


def swapped(trained: Scores, rows: int, gap: float) -> tuple[Scores, Scores]:
    """Return scores where rung 7 is ``gap`` behind, and an engine's that prefers it in ``rows``."""
    near, other = trained.q_values.copy(), trained.q_values.copy()
    near[:rows, 7] = 1.0 - gap
    other[:rows, 7] = 1.001
    return replace(trained, q_values=near), replace(trained, q_values=other)


def test_the_same_decisions_pass_whatever_the_numbers(trained: Scores) -> None:
    other = replace(trained, q_values=trained.q_values * 0.9 + 0.05)
    report = check_parity(trained, Told(other), images(), PLAIN)
    assert (report.pictures, report.same_rung, report.max_gap) == (COUNT, 1.0, 0.0)
    assert report.max_difference == pytest.approx(0.05, abs=1e-6)
    assert report.differing == ()


def test_near_ties_may_go_the_other_way_in_one_picture_of_200(trained: Scores) -> None:
    expected, got = swapped(trained, rows=2, gap=0.9 * Q_GAP)
    report = check_parity(expected, Told(got), images(), PLAIN)
    assert report.same_rung == MIN_SAME
    assert report.max_gap == pytest.approx(0.9 * Q_GAP, rel=1e-3)
    assert report.differing == (0, 1)


def test_more_near_ties_fail(trained: Scores) -> None:
    expected, got = swapped(trained, rows=3, gap=0.5 * Q_GAP)
    with pytest.raises(GateFailed, match=r"99\.2% of 400.*pictures \[0, 1, 2\] differ"):
        check_parity(expected, Told(got), images(), PLAIN)


def test_a_single_loss_beyond_the_gap_fails(trained: Scores) -> None:
    expected, got = swapped(trained, rows=1, gap=1.1 * Q_GAP)
    with pytest.raises(GateFailed, match=r"largest loss is 0\.022 \(at most 0\.02\)"):
        check_parity(expected, Told(got), images(), PLAIN)


def test_few_pictures_must_all_be_decided_alike(trained: Scores) -> None:
    few = Scores(trained.features[:10], trained.q_values[:10])
    expected, got = swapped(few, rows=1, gap=0.1 * Q_GAP)
    with pytest.raises(GateFailed):
        check_parity(expected, Told(got), images(10), PLAIN)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_fail_even_where_argmax_is_right(
    bad: float, trained: Scores
) -> None:
    wrong = trained.q_values.copy()
    wrong[5, 3] = bad
    with pytest.raises(GateFailed):
        check_parity(trained, Told(replace(trained, q_values=wrong)), images(), PLAIN)


def test_a_gate_without_pictures_is_closed(trained: Scores) -> None:
    nothing = Scores(trained.features[:0], trained.q_values[:0])
    with pytest.raises(GateFailed, match="no pictures"):
        check_parity(nothing, Told(nothing), images(0), PLAIN)


def test_the_decision_compared_is_the_operating_points(trained: Scores) -> None:
    agreement = np.zeros_like(trained.q_values)
    agreement[:, 9] = 1.0
    size_ratio = np.full_like(agreement, 0.1)
    expected = replace(trained, agreement=agreement, size_ratio=size_ratio)
    shy = replace(expected, agreement=0.4 * agreement)
    small = size_ratio.copy()
    small[:, 0] = 0.05
    got = replace(shy, size_ratio=small)
    check_parity(expected, Told(got), images(), OperatingPoint(trade_off=1.0))
    with pytest.raises(GateFailed):
        check_parity(expected, Told(got), images(), OperatingPoint(trade_off=0.1))


@pytest.mark.parametrize(("trade_off", "passes"), [(1.0, False), (10.0, False), (0.5, True)])
def test_the_gap_is_stated_per_unit_of_the_trade_off(
    trade_off: float, passes: bool, trained: Scores
) -> None:
    agreement, size_ratio = np.zeros_like(trained.q_values), np.ones_like(trained.q_values)
    agreement[:, 3], agreement[:, 7] = 0.97, 0.94  # 0.03 λ apart: beyond the gap from λ = 2/3 on
    expected = replace(trained, agreement=agreement, size_ratio=size_ratio)
    other = agreement.copy()
    other[0, 7] = 0.98
    engine, point = Told(replace(expected, agreement=other)), OperatingPoint(trade_off=trade_off)
    if passes:
        assert check_parity(expected, engine, images(), point).max_gap == pytest.approx(0.015)
    else:
        with pytest.raises(GateFailed, match=r"largest loss is 0\.03"):
            check_parity(expected, engine, images(), point)


# --- the probe's gate -------------------------------------------------------------------------


class Looking:
    """A probe that answers as its head does, and then something is done to the answer."""

    def __init__(self, head: ProbeHead, change: Callable[[Answer], Answer]) -> None:
        self.head, self.change = head, change
        self.rungs: list[int] = []

    def run(self, original: Answer, candidate: Answer, rung: int, size_ratio: float) -> Answer:
        self.rungs.append(rung)
        pair = (torch.from_numpy(np.array(one[None])) for one in (original, candidate))
        with torch.inference_mode():
            told = self.head(*pair, torch.tensor([rung]), torch.tensor([size_ratio]))
        return self.change(told.numpy()[0])


def test_a_probe_that_answers_as_its_head_passes_at_every_rung(probing_run: TrainingRun) -> None:
    assert probing_run.probe is not None
    probe = Looking(probing_run.probe, lambda told: told + 0.5 * np.float32(PROBE_GAP))
    check_probe(probing_run.probe, probe, probing_run.expected.features)
    assert set(probe.rungs) == set(range(len(PAPER)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told - 2 * np.float32(PROBE_GAP), r"0\.002 \(allowed 0\.001\)"),
        (lambda told: told * np.float32(np.nan), "inf"),
        (lambda told: np.where(np.arange(10) == 3, np.inf, told), "inf"),
    ],
)
def test_a_probe_that_answers_otherwise_fails(
    change: Callable[[Answer], Answer], said: str, probing_run: TrainingRun
) -> None:
    assert probing_run.probe is not None
    with pytest.raises(GateFailed, match=rf"by up to {said}.*Nothing was published"):
        check_probe(
            probing_run.probe, Looking(probing_run.probe, change), probing_run.expected.features
        )


def test_one_picture_that_differs_is_enough(probing_run: TrainingRun) -> None:
    assert probing_run.probe is not None
    probe = Looking(probing_run.probe, lambda told: told)
    probe.change = lambda told: told + np.float32(len(probe.rungs) == 40) * np.float32(0.01)
    with pytest.raises(GateFailed):
        check_probe(probing_run.probe, probe, probing_run.expected.features)


# --- what is compared -------------------------------------------------------------------------


def test_the_report_travels_as_json(trained: Scores) -> None:
    expected, got = swapped(trained, rows=1, gap=0.01)
    report = check_parity(expected, Told(got), images(), PLAIN)
    written: dict[str, Any] = json.loads(json.dumps(report.as_dict()))
    assert written["differing"] == [0]
    assert written["pictures"] == COUNT


def test_the_networks_scores_are_named_as_the_engines(
    run_of_training: TrainingRun, tiny_prefix: Any
) -> None:
    inputs = run_of_training.inputs[:3]
    scores = scores_of(Network(tiny_prefix, run_of_training.head), inputs)
    assert scores.features.shape == (3, 8)
    assert scores.agreement is not None
    assert scores.size_ratio is not None
    np.testing.assert_allclose(scores.q_values, scores.agreement - scores.size_ratio, atol=1e-6)
