from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint, choose
from model_store.errors import UsageError
from training.learn.calibrate import (
    agreement_needed,
    calibrate,
    design_effect,
    exact_tail,
    images_needed,
)
from training.learn.policies import GRID, SAFEST, Static

SIZES = np.array([0.1, 0.25, 0.5, 0.9])


def predicted(agreement: np.ndarray) -> Scores:
    """Scores of a head that predicts this agreement (N, K) and knows the sizes."""
    size = np.tile(SIZES, (len(agreement), 1))
    return Scores(
        features=np.zeros((len(agreement), 1), dtype=np.float32),
        q_values=(agreement - size).astype(np.float32),
        agreement=agreement.astype(np.float32),
        size_ratio=size.astype(np.float32),
    )


def singles(count: int) -> np.ndarray:
    """Every picture is of a photo of its own."""
    return np.array([f"photo{index}" for index in range(count)], dtype=object)


def certify(observed: Any, head: Any = None, **given: Any) -> OperatingPoint:
    observed = np.asarray(observed, dtype=float)
    head = predicted(observed if head is None else np.asarray(head, dtype=float))
    groups = given.pop("groups", singles(len(observed)))
    shares = not np.isin(observed, (0.0, 1.0)).all()
    return calibrate(
        Static(head),
        lambda rungs: observed[np.arange(len(observed)), rungs],
        groups,
        effect=design_effect(observed, groups),
        shares=shares,
        **({"target": 0.95} | given),
    )


# --- the exact tail ---------------------------------------------------------------------------


@given(
    n=st.integers(1, 3000),
    share=st.floats(0.0, 1.0, exclude_max=True),
    target=st.floats(0.01, 0.999),
)
def test_the_tail_is_the_binomial_distribution(n: int, share: float, target: float) -> None:
    errors = math.floor(share * n)
    expected = binom.cdf(errors, n, 1.0 - target)
    assert exact_tail(errors, n, target) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(n=st.floats(1.0, 500.0), share=st.floats(0.0, 1.0), target=st.floats(0.01, 0.999))
def test_fractions_are_rounded_against_us(n: int, share: float, target: float) -> None:
    errors, trials = math.ceil(share * n - 1e-9), math.floor(n + 1e-9)
    expected = binom.cdf(errors, trials, 1.0 - target)
    assert exact_tail(share * n, n, target) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_rounding_noise_is_no_fraction() -> None:
    assert (1.0 - 0.95) * 60 > 3.0  # in floating point
    assert exact_tail((1.0 - 0.95) * 60, 60, 0.9) == exact_tail(3, 60, 0.9)
    assert exact_tail(0, 59 * (1 - 1e-12), 0.95) == exact_tail(0, 59, 0.95)


@pytest.mark.parametrize(("errors", "n"), [(5, 5), (7, 5), (0, 0), (0.5, 0.9)])
def test_nothing_right_proves_nothing(errors: float, n: float) -> None:
    assert exact_tail(errors, n, 0.5) == 1.0


@pytest.mark.parametrize(
    ("target", "delta", "needed"), [(0.95, 0.05, 59), (0.9, 0.05, 29), (0.99, 0.05, 299)]
)
def test_faultless_pictures_that_are_needed(target: float, delta: float, needed: int) -> None:
    assert images_needed(target, delta) == needed
    assert needed == math.ceil(math.log(delta) / math.log(target))


@given(n=st.integers(1, 400), target=st.floats(0.5, 0.99), delta=st.floats(0.01, 0.3))
@settings(max_examples=60)
def test_the_agreement_needed_is_the_least_that_is_enough(
    n: int, target: float, delta: float
) -> None:
    errors = round((1.0 - agreement_needed(n, target, delta)) * n)
    assert errors == 0 or exact_tail(errors, n, target) <= delta
    assert exact_tail(errors + 1, n, target) > delta


def test_of_no_pictures_all_must_agree() -> None:
    assert agreement_needed(0, 0.9, 0.05) == 1.0


# --- certificates -----------------------------------------------------------------------------


def test_a_head_that_knows_gets_the_cheapest_trade_off() -> None:
    """Half of the pictures bear the cheapest rung, half need the third."""
    observed = np.repeat([[1, 1, 1, 1], [0, 0, 1, 1]], 50, axis=0)
    point = certify(observed)
    chosen = choose(predicted(observed.astype(float)), point)
    assert chosen.tolist() == [0] * 50 + [2] * 50
    assert (point.certified, point.target, point.delta) == (True, 0.95, 0.05)
    assert (point.n, point.n_effective, point.achieved) == (100, 100.0, 1.0)
    assert "exact binomial tail" in point.test
    assert point.note == "Every held-out picture is of another photo."


def test_a_head_that_errs_is_held_back() -> None:
    """It believes in the cheapest rung, which fails for one picture in five."""
    observed = np.tile([[1.0, 1, 1, 1]] * 4 + [[0.0, 0, 1, 1]], (40, 1))
    believed = np.tile([0.99, 0.991, 0.995, 1.0], (200, 1))
    point = certify(observed, believed)
    assert point.certified
    assert set(choose(predicted(believed), point)) <= {2, 3}


def test_the_search_stops_at_the_first_failure() -> None:
    """A cheaper trade-off that would pass again is not looked at: no correction is paid."""
    observed = np.tile([1.0, 0.0, 1.0, 1.0], (300, 1))
    believed = np.tile([0.5, 0.8, 0.99, 1.0], (300, 1))
    point = certify(observed, believed)
    assert set(choose(predicted(believed), point)) == {2}
    cheap = OperatingPoint(trade_off=GRID[-1])
    assert observed[0, choose(predicted(believed), cheap)[0]] == 1.0


@pytest.mark.parametrize(("have", "certified"), [(58, False), (59, True)])
def test_with_too_few_pictures_it_says_how_many_are_missing(have: int, certified: bool) -> None:
    point = certify(np.ones((have, 4)))
    assert point.certified == certified
    if not certified:
        assert point.trade_off == SAFEST
        assert (point.n, point.achieved) == (have, None)
        assert "at least 1 more" in point.note
        assert point.note.startswith("Not certified: 58 held-out pictures are too few")
        assert "safest rung" in point.note


@pytest.mark.parametrize("have", [0, 1, 20])
def test_a_handful_of_pictures_falls_back_to_the_safest_rung(have: int) -> None:
    point = certify(np.ones((have, 4)))
    assert (point.certified, point.trade_off) == (False, SAFEST)
    assert f"at least {59 - have} more" in point.note


@pytest.mark.parametrize(("have", "certified"), [(71, False), (72, True)])
def test_a_test_that_may_spend_half_of_delta_needs_more(have: int, certified: bool) -> None:
    assert 0.95**72 <= 0.025 < 0.95**71
    assert certify(np.ones((have, 4)), spend=0.5).certified == certified
    assert certify(np.ones((have, 4)), spend=0.5).delta == 0.05


def test_only_the_steps_that_are_given_are_asked_about_in_their_order() -> None:
    head, asked = predicted(np.tile([0.5, 0.8, 0.99, 1.0], (100, 1))), []

    def observe(rungs: np.ndarray) -> np.ndarray:
        asked.append(sorted(set(rungs.tolist())))
        return (rungs > 0).astype(float)

    steps = (SAFEST, 2.0, 0.01, 0.001)
    point = calibrate(Static(head), observe, singles(100), target=0.9, steps=steps)
    assert asked == [[3], [2], [0]]  # the first failure is the last question
    assert (point.trade_off, point.n_effective) == (2.0, 100.0)


def test_views_of_one_photo_ask_for_more() -> None:
    """Three views a photo that always agree with each other are worth one."""
    observed = np.repeat([[1, 1, 1, 1]] * 30 + [[0, 1, 1, 1]] * 15, 3, axis=0)
    point = certify(observed, groups=np.repeat(singles(45), 3))
    assert (point.certified, point.n_effective) == (False, 45.0)
    assert f"at least {3 * 59 - 135} more" in point.note


def test_a_ladder_whose_safest_rung_disagrees_is_not_told_to_label_more() -> None:
    observed = np.ones((500, 4))
    observed[:100, 3] = 0.0
    point = certify(observed, np.tile([0.1, 0.2, 0.3, 1.0], (500, 1)))
    assert (point.certified, point.trade_off) == (False, SAFEST)
    assert "the safest rung agrees on 80.0% of 500" in point.note
    assert "more are needed" not in point.note


def test_the_safest_point_takes_a_certain_rung_whatever_it_costs() -> None:
    nearly = np.tile(np.array([0.99, 0.999, 0.99995, 1.0]), (3, 1))  # sigmoid(10) < 0.99996
    assert choose(predicted(nearly), OperatingPoint(trade_off=SAFEST)).tolist() == [3] * 3


@pytest.mark.parametrize(("have", "certified"), [(77, False), (78, True)])
def test_shares_of_labels_pay_for_not_being_binomial(have: int, certified: bool) -> None:
    """Bentkus: e times the binomial tail, so log(0.05 / e) / log(0.95) faultless pictures."""
    observed = np.ones((have, 4))
    observed[0, 0] = 0.5
    believed = np.tile([0.1, 0.2, 0.3, 1.0], (have, 1))
    point = certify(observed, believed)
    assert point.certified == certified
    assert certified or "at least 1 more" in point.note


def test_several_views_of_a_photo_are_admitted_in_the_note() -> None:
    rng = np.random.default_rng(0)
    observed = np.repeat((rng.random((100, 4)) < [0.4, 0.7, 0.99, 1.0]).astype(float), 2, axis=0)
    point = certify(observed, groups=np.repeat(singles(100), 2))
    assert point.certified
    assert "2.00 of them count as one" in point.note
    assert "approximate" in point.note


@pytest.mark.parametrize("target", [1.5, 1.0, 0.0, -0.2, float("nan")])
def test_a_target_that_is_no_share_is_a_clear_error(target: float) -> None:
    with pytest.raises(UsageError) as caught:
        certify(np.ones((60, 4)), target=target)
    assert str(caught.value) == (
        f"The target accuracy is {target}; allowed is a share above 0 and below 1."
    )


def test_a_delta_that_is_no_share_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match=r"The delta is 2\.0; allowed is a share"):
        certify(np.ones((60, 4)), delta=2.0)


# --- validity ---------------------------------------------------------------------------------

WORLDS, DELTA, TARGET = 300, 0.05, 0.9
#: Violations that chance allows if the certificate holds exactly: δ and three standard errors.
ALLOWED = WORLDS * DELTA + 3.0 * math.sqrt(WORLDS * DELTA * (1.0 - DELTA))


class World:
    """Eight kinds of pictures with true agreement curves, and a head that knows them badly."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        rising = np.sort(self.rng.beta(4.0, 0.8, size=(8, len(SIZES))), axis=1)
        rising[:, -1] = 1.0  # the reference's own pixels
        self.truth = rising
        errs = self.rng.normal(0.0, 1.0, size=rising.shape) + 0.7  # too sure, mostly
        logit = np.log(rising / np.maximum(1.0 - rising, 1e-3)) + errs
        self.believed = np.where(rising == 1.0, 1.0, np.minimum(1 / (1 + np.exp(-logit)), 0.9999))

    def certify(self, photos: int, views: int = 1) -> OperatingPoint:
        """Certify on so many photos; all views of a photo get the same answers."""
        kind = self.rng.integers(8, size=photos)
        observed = self.rng.random((photos, 1)) < self.truth[kind]
        return certify(
            observed.repeat(views, axis=0),
            self.believed[kind].repeat(views, axis=0),
            groups=singles(photos).repeat(views),
            target=TARGET,
            delta=DELTA,
        )

    def agreement(self, point: OperatingPoint) -> float:
        """True agreement over all pictures there are."""
        return float(self.truth[np.arange(8), choose(predicted(self.believed), point)].mean())


@pytest.mark.parametrize(("photos", "views"), [(150, 1), (60, 4)])
def test_a_certificate_is_wrong_no_more_often_than_promised(photos: int, views: int) -> None:
    worlds = [World(seed) for seed in range(WORLDS)]
    points = [world.certify(photos, views) for world in worlds]
    wrong = [
        point.certified and world.agreement(point) < TARGET
        for world, point in zip(worlds, points, strict=True)
    ]
    assert sum(wrong) <= ALLOWED
    # Nor is it empty: nearly all get one, most of them far below the safest rung's price.
    assert np.mean([point.certified for point in points]) > 0.95
    assert np.mean([(point.trade_off or 0) < GRID[10] for point in points]) > 0.5


def test_heads_that_are_too_sure_would_break_the_promise_without_the_test() -> None:
    """The worlds above are hard enough to tell a certificate from hope."""
    wrong = 0
    for seed in range(WORLDS):
        world = World(seed)
        believed = predicted(world.believed)
        assert believed.agreement is not None
        hoped = [
            trade_off
            for trade_off in GRID
            if believed.agreement[
                np.arange(8), choose(believed, OperatingPoint(trade_off=trade_off))
            ].mean()
            >= TARGET
        ]
        wrong += world.agreement(OperatingPoint(trade_off=hoped[-1])) < TARGET
    assert wrong > 3 * ALLOWED


# --- the design effect ------------------------------------------------------------------------


def test_pictures_of_different_photos_count_fully() -> None:
    observed = np.random.default_rng(0).integers(2, size=(40, 4)).astype(float)
    assert design_effect(observed, singles(40)) == 1.0


@given(photos=st.integers(2, 30), views=st.integers(2, 6), seed=st.integers(0, 20))
@settings(deadline=None)
def test_views_that_always_agree_alike_count_as_one(photos: int, views: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    observed = rng.integers(2, size=(photos, 3)).astype(float).repeat(views, axis=0)
    assert design_effect(observed, singles(photos).repeat(views)) == pytest.approx(views)


def test_views_that_agree_independently_count_nearly_fully() -> None:
    observed = np.random.default_rng(0).integers(2, size=(4000, 3)).astype(float)
    assert design_effect(observed, singles(1000).repeat(4)) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("correlation", [0.2, 0.5, 0.8])
def test_the_effect_is_that_of_the_correlation(correlation: float) -> None:
    """Each view shows its photo's own coin, or with probability 1 - sqrt(rho) a fresh one."""
    rng, views = np.random.default_rng(1), 5
    own = rng.integers(2, size=(4000, 1, 2))
    fresh = rng.integers(2, size=(4000, views, 2))
    shown = np.where(rng.random(fresh.shape) < math.sqrt(correlation), own, fresh)
    effect = design_effect(shown.reshape(-1, 2).astype(float), singles(4000).repeat(views))
    assert effect == pytest.approx(1.0 + (views - 1) * correlation, rel=0.05)


def test_the_largest_groups_weigh_most() -> None:
    observed = np.array([[0.0]] * 9 + [[1.0]] + [[0.0]])
    groups = np.array(["a"] * 9 + ["b", "c"], dtype=object)
    assert design_effect(observed, groups) == pytest.approx((81 + 1 + 1) / 11, rel=0.2)


@pytest.mark.parametrize("views", [2, 9])
def test_views_of_a_single_photo_are_one_picture(views: int) -> None:
    observed = np.random.default_rng(0).integers(2, size=(views, 3)).astype(float)
    assert design_effect(observed, np.array(["one"] * views, dtype=object)) == views


def test_without_any_disagreement_photos_count_not_views() -> None:
    assert design_effect(np.ones((60, 3)), singles(20).repeat(3)) == pytest.approx(3.0)
