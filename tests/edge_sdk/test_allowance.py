from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.allowance import WINDOW, Allowance


def greedy(
    allowance: Allowance, references: list[int], saving: list[float], extra: float
) -> tuple[np.ndarray, np.ndarray]:
    """Buy an extra upload of ``extra`` references with every picture that may have one."""
    uploaded, bought = [], []
    for reference, saved in zip(references, saving, strict=True):
        buys = allowance.affords(1)
        sent = int(reference * (1.0 - saved)) + (int(extra * reference) if buys else 0)
        allowance.used(uploaded=sent, reference=reference, extra=int(buys), steady=False)
        uploaded.append(sent)
        bought.append(buys)
    return np.array(uploaded), np.array(bought)


def windows(values: np.ndarray) -> np.ndarray:
    sums = np.concatenate([[0], np.cumsum(values)])
    return np.asarray(sums[WINDOW:] - sums[:-WINDOW])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 1.0), st.floats(0.0, 0.3))
def test_no_window_of_1000_pictures_exceeds_the_cap(seed: int, extra: float, save: float) -> None:
    rng = np.random.default_rng(seed)
    references = rng.integers(20_000, 60_000, 2500).tolist()
    saving = (rng.random(2500) * save * (np.arange(2500) % 700 < 400)).tolist()
    uploaded, bought = greedy(Allowance(0.02, 10_000, 0.02), references, saving, extra)
    assert (windows(uploaded) <= 1.02 * windows(np.array(references))).all()
    assert bought.any()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 300))
def test_no_window_of_1000_pictures_has_more_extra_calls(most: int) -> None:
    references, saving = [30_000] * 2500, [0.9] * 2500
    _, bought = greedy(Allowance(0.02, most, 0.02), references, saving, 0.3)
    assert windows(bought).max() <= most
    assert bought.sum() >= most


def test_what_has_no_end_is_paid_from_a_share_of_the_pictures() -> None:
    allowance, bought = Allowance(0.02, 1000, 0.02), 0
    for _ in range(5000):
        buys = allowance.affords(1, steady=True)
        bought += buys
        sent = 15_000 + 30_000 * buys
        allowance.used(uploaded=sent, reference=30_000, extra=int(buys), steady=True)
    assert 100 <= bought <= 100 + 20


def test_unknown_references_are_taken_to_have_saved_nothing() -> None:
    allowance = Allowance(0.02, 1000, 0.02)
    allowance.used(uploaded=30_000, reference=30_000, extra=0, steady=False)
    for _ in range(15):
        allowance.used(uploaded=60_000, reference=30_000, extra=1, steady=False)
    assert not allowance.affords(2)
    for _ in range(500):
        allowance.used(uploaded=5_000, reference=None, extra=0, steady=False)
    assert not allowance.affords(2)
    allowance.used(uploaded=5_000, reference=30_000, extra=0, steady=False)
    allowance.used(uploaded=5_000, reference=30_000, extra=0, steady=False)
    assert allowance.affords(2)


def test_without_slack_nothing_is_bought() -> None:
    allowance = Allowance(0.0, 1000, 0.02)
    allowance.used(uploaded=1, reference=30_000, extra=0, steady=False)
    assert not allowance.affords(1)


def test_the_paper_has_no_cap() -> None:
    allowance = Allowance(None, 0, 0.02)
    allowance.used(uploaded=90_000, reference=30_000, extra=9, steady=True)
    assert allowance.affords(9, steady=True)
