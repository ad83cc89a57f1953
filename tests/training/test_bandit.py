from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import spearmanr

from edge_sdk.ladder import FULL, PAPER, Rung
from export.network import FactoredHead, always_agrees
from model_store.errors import UsageError
from training.learn.bandit import FitReport, Observations, Penalties, fit_factored
from training.learn.reward import Reward

POOLED, CONFIDENCE = 6, 2
CERTAIN = always_agrees(PAPER).index(True)
LEARNT = [k for k in range(len(PAPER)) if k != CERTAIN]

#: Of every rung: the better the quality the surer the agreement and the larger the file.
QUALITY = np.log([rung.quality / 75 for rung in PAPER])
SIZE = np.exp(0.7 * QUALITY)


class World:
    """Pictures whose hardness shows in their confidence features as clearly as ``signal`` says."""

    def __init__(
        self,
        seed: int,
        count: int,
        *,
        signal: float = 0.0,
        shift: float = 0.0,
        spread: float = 1.5,
    ) -> None:
        rng = np.random.default_rng(seed)
        hardness = rng.normal(size=count)
        self.features = rng.normal(size=(count, POOLED + CONFIDENCE)).astype(np.float32)
        self.features[:, -1] = signal * hardness + math.sqrt(1.0 - signal**2) * rng.normal(
            size=count
        )
        logit = 2.5 + shift + 2.0 * QUALITY - spread * hardness[:, None]
        self.truth = expit(logit)
        self.truth[:, CERTAIN] = 1.0
        self.agreement = (rng.random((count, len(PAPER))) < self.truth).astype(float)
        self.size_ratio = SIZE * np.exp(rng.normal(0.0, 0.1, (count, len(PAPER))))
        self.groups = np.array([f"photo{index}" for index in range(count)], dtype=object)

    def grid(self) -> Observations:
        return Observations.of_grid(self.features, self.groups, self.agreement, self.size_ratio)

    def partly(self, seed: int, each: int = 1) -> Observations:
        """So many different random rungs of every picture."""
        rng = np.random.default_rng(seed)
        count = len(self.features)
        row = np.arange(count).repeat(each)
        rung = np.concatenate([rng.choice(len(PAPER), each, replace=False) for _ in range(count)])
        return Observations(
            self.features,
            self.groups,
            row,
            rung,
            self.agreement[row, rung],
            self.size_ratio[row, rung],
        )

    def loss(self, agreement: np.ndarray) -> float:
        """Expected log-loss of predictions, rungs that are certain left out; nats per answer."""
        p, q = self.truth[:, LEARNT], agreement[:, LEARNT]
        return float(-(p * np.log(q) + (1.0 - p) * np.log1p(-q)).mean())


def fit(seen: Observations, seed: int = 0, **given: Any) -> tuple[FactoredHead, FitReport]:
    options: dict[str, Any] = {"confidence": CONFIDENCE} | given
    return fit_factored(seen, PAPER, Reward(), rng=np.random.default_rng(seed), **options)


def predict(head: FactoredHead, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q-values, agreement and size ratio, (N, K)."""
    with torch.inference_mode():
        q_values, agreement, size_ratio = head(torch.from_numpy(features))
    return q_values.numpy(), agreement.numpy(), size_ratio.numpy()


def rates(world: World) -> np.ndarray:
    """What the rungs alone tell, (1, K)."""
    return np.asarray(world.agreement.mean(axis=0, keepdims=True).clip(0.01, 0.99))


# --- features that tell nothing ---------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_features_without_signal_are_left_out(seed: int) -> None:
    world = World(seed, 100, spread=0.0)
    head, report = fit(world.grid(), seed)
    assert report.agreement == Penalties(math.inf, math.inf)
    assert report.log_loss[0] == report.log_loss[1]
    agreement = predict(head, world.features)[1]
    assert np.ptp(agreement, axis=0) == pytest.approx(0.0, abs=1e-5)


def test_hard_pictures_do_not_make_useless_features_harmful() -> None:
    """All answers of a hard picture fail together, so noise sometimes seems to tell something."""
    left_out, losses = 0, []
    for seed in range(6):
        world, unseen = World(seed, 80), World(seed + 100, 300)
        head, report = fit(world.grid(), seed)
        left_out += report.agreement == Penalties()
        losses.append(unseen.loss(predict(head, unseen.features)[1]) - unseen.loss(rates(world)))
    assert left_out >= 3
    assert np.mean(losses) < 0.02


def test_without_features_the_predictions_are_the_rungs_rates_a_little_lowered() -> None:
    """Lowered by about one standard error of a rate, against the winner's curse."""
    world = World(0, 400)
    _, agreement, size_ratio = predict(fit(world.grid())[0], world.features)
    rate = world.agreement.mean(axis=0)[LEARNT]
    error = np.sqrt(rate * (1.0 - rate) / 400)
    assert np.all(agreement[0, LEARNT] < rate + 0.5 * error)
    assert np.all(agreement[0, LEARNT] > rate - 2.5 * error)
    typical = np.exp(np.log(world.size_ratio).mean(axis=0))
    assert size_ratio.mean(axis=0) == pytest.approx(typical, rel=0.02)


def test_views_of_one_photo_do_not_vouch_for_each_other() -> None:
    """Features tell the photo, and the photo its answers: useless for photos not seen yet."""
    photos, views = 30, 4
    world = World(3, photos)
    features = world.features.repeat(views, axis=0)
    answers = (world.truth > 0.6).astype(float).repeat(views, axis=0)
    size = world.size_ratio.repeat(views, axis=0)
    photo = world.groups.repeat(views)
    alone = np.array([f"{name}/{index}" for index, name in enumerate(photo)], dtype=object)
    _, honest = fit(Observations.of_grid(features, photo, answers, size))
    _, fooled = fit(Observations.of_grid(features, alone, answers, size))
    assert honest.agreement == Penalties()
    assert fooled.agreement != Penalties()


# --- features that tell something -------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_confidence_that_tells_is_used_and_helps_on_new_pictures(seed: int) -> None:
    world, unseen = World(seed, 120, signal=0.9), World(seed + 100, 500, signal=0.9)
    head, report = fit(world.grid(), seed)
    assert math.isfinite(report.agreement.confidence)
    assert report.log_loss[1] < report.log_loss[0] - 0.01
    assert unseen.loss(predict(head, unseen.features)[1]) < unseen.loss(rates(world)) - 0.05


def test_hard_pictures_get_less_agreement() -> None:
    world = World(0, 200, signal=0.9)
    head, _ = fit(world.grid())
    pair = np.zeros((2, POOLED + CONFIDENCE), dtype=np.float32)
    pair[:, -1] = (-1.5, 1.5)  # easy, hard
    easy, hard = predict(head, pair)[1]
    assert np.all(easy[LEARNT] > hard[LEARNT])


def test_activations_that_tell_are_used() -> None:
    world = World(0, 200)
    strong = world.features.copy()
    strong[:, 0] = 2.0 * (world.truth[:, 3] - 0.5)  # an activation that is the truth itself
    strong[:, 1] = strong[:, 0]  # and a leading component, as scenery is in real activations
    seen = Observations.of_grid(strong, world.groups, world.agreement, world.size_ratio)
    head, report = fit(seen)
    assert math.isfinite(report.agreement.activations)
    shown = predict(head, strong)[1][:, LEARNT].mean(axis=1)
    assert spearmanr(shown, world.truth[:, 3]).statistic > 0.8


def test_sizes_follow_features_too() -> None:
    world = World(0, 150)
    busy = world.features[:, -2]
    sizes = world.size_ratio * np.exp(0.3 * busy[:, None])
    seen = Observations.of_grid(world.features, world.groups, world.agreement, sizes)
    head, report = fit(seen)
    assert math.isfinite(report.size.confidence)
    shown = predict(head, world.features)[2]
    assert np.std(np.log(shown / sizes)) < 0.15  # of which 0.1 is noise
    assert np.std(np.log(sizes), axis=0).min() > 0.25


# --- partial labels ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_random_rung_a_picture_orders_the_rungs(seed: int) -> None:
    world = World(seed, 300)
    _, agreement, size_ratio = predict(fit(world.partly(seed))[0], world.features)
    mean = agreement.mean(axis=0)[LEARNT]
    assert spearmanr(mean, world.truth.mean(axis=0)[LEARNT]).statistic > 0.85
    assert mean == pytest.approx(world.truth.mean(axis=0)[LEARNT], abs=0.2)
    assert np.all(np.diff(size_ratio.mean(axis=0)) > 0)


def test_a_rung_that_was_never_tried_is_not_believed_in() -> None:
    """Its neighbours teach it, its own uncertainty holds it back."""
    world = World(0, 100)
    seen = world.grid()
    tried = (seen.rung != 0) & (seen.rung != 1)
    partly = Observations(
        *(seen.features, seen.groups, seen.row[tried], seen.rung[tried]),
        *(seen.agreement[tried], seen.size_ratio[tried]),
    )
    informed, guessed = (predict(fit(o)[0], world.features)[1][0] for o in (seen, partly))
    assert guessed[0] < informed[0]
    assert guessed[2:] == pytest.approx(informed[2:], abs=0.05)


def test_few_labels_lower_the_predictions_and_many_do_not() -> None:
    gaps = []
    for count in (20, 200):
        world = World(4, count)
        agreement = predict(fit(world.grid())[0], world.features)[1][:, LEARNT]
        gaps.append(float((world.agreement.mean(axis=0)[LEARNT] - agreement[0]).mean()))
    assert gaps[0] > 2 * gaps[1] > 0


# --- a head to start from ---------------------------------------------------------------------


def test_a_base_and_a_few_answers_beat_the_base_alone_and_a_fresh_start() -> None:
    """Of a scenery where every picture is harder; 60 pictures, one answer each."""
    losses = []
    for seed in range(3):
        base, _ = fit(World(seed, 120, signal=0.9).grid(), seed)
        few = World(seed + 10, 60, signal=0.9, shift=-2.0).partly(seed)
        unseen = World(seed + 20, 500, signal=0.9, shift=-2.0)
        heads = (fit(few, seed, base=base)[0], base, fit(few, seed)[0])
        losses.append([unseen.loss(predict(head, unseen.features)[1]) for head in heads])
    started, base_alone, fresh = np.mean(losses, axis=0)
    assert started < base_alone - 0.05
    assert started < fresh - 0.01


def test_a_base_that_is_right_already_is_left_nearly_alone() -> None:
    base, _ = fit(World(0, 120, signal=0.9).grid())
    again, _ = fit(World(1, 120, signal=0.9).grid(), base=base)
    unseen = World(2, 500, signal=0.9)
    before, after = (unseen.loss(predict(head, unseen.features)[1]) for head in (base, again))
    assert after == pytest.approx(before, abs=0.02)


def test_a_base_is_not_changed_by_starting_from_it() -> None:
    base, _ = fit(World(0, 60).grid())
    before = {name: value.clone() for name, value in base.state_dict().items()}
    fit(World(1, 40).grid(), base=base)
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())


# --- what always holds ------------------------------------------------------------------------


def test_a_rung_with_the_references_pixels_agrees_whatever_was_observed() -> None:
    world = World(0, 60)
    world.agreement[:, CERTAIN] = 0.0
    head, _ = fit(world.grid())
    agreement = predict(head, world.features)[1]
    assert np.all(agreement[:, CERTAIN] == 1.0)
    assert np.all(agreement[:, LEARNT] < 1.0)
    reliable = World(0, 60)
    same, _ = fit(reliable.grid())
    assert np.array_equal(agreement, predict(same, world.features)[1])


def test_the_values_are_those_of_the_reward() -> None:
    world = World(0, 40)
    reward = Reward(alpha=3.0, beta=-0.5)
    head, _ = fit_factored(world.grid(), PAPER, reward, rng=np.random.default_rng(0))
    q_values, agreement, size_ratio = predict(head, world.features)
    assert q_values == pytest.approx(3.0 * agreement - size_ratio - 0.5, abs=1e-5)


def test_the_same_seed_gives_the_same_head() -> None:
    seen = World(5, 60, signal=0.8).grid()
    (first, told), (second, again) = fit(seen, 7), fit(seen, 7)
    assert told == again
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def test_the_order_of_the_observations_does_not_matter() -> None:
    seen = World(5, 80, signal=0.8).grid()
    order = np.random.default_rng(0).permutation(len(seen.row))
    mixed = Observations(
        *(seen.features, seen.groups, seen.row[order], seen.rung[order]),
        *(seen.agreement[order], seen.size_ratio[order]),
    )
    first, second = (predict(fit(o)[0], seen.features) for o in (seen, mixed))
    for one, other in zip(first, second, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_grid_lists_every_cell_once() -> None:
    world = World(0, 3)
    seen = world.grid()
    assert sorted(zip(seen.row, seen.rung, strict=True)) == [
        (n, k) for n in range(3) for k in range(len(PAPER))
    ]
    assert np.array_equal(seen.agreement, world.agreement[seen.row, seen.rung])
    assert np.array_equal(seen.size_ratio, world.size_ratio[seen.row, seen.rung])


def test_nothing_observed_is_a_clear_error() -> None:
    world, none = World(0, 3), np.array([], dtype=np.int64)
    empty = Observations(world.features, world.groups, none, none, np.zeros(0), np.zeros(0))
    with pytest.raises(UsageError, match="no labelled pictures to learn from"):
        fit(empty)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_handful_of_pictures_gives_a_cautious_head(count: int) -> None:
    world = World(0, count)
    _, agreement, size_ratio = predict(fit(world.grid())[0], world.features)
    assert np.isfinite(agreement).all()
    assert np.isfinite(size_ratio).all()
    assert np.all(agreement[:, LEARNT] < 0.99)


def test_answers_to_the_certain_rung_alone_teach_nothing_about_the_others() -> None:
    world = World(0, 20)
    seen = world.grid()
    sure = seen.rung == CERTAIN
    head, _ = fit(
        Observations(
            *(seen.features, seen.groups, seen.row[sure], seen.rung[sure]),
            *(seen.agreement[sure], seen.size_ratio[sure]),
        )
    )
    agreement = predict(head, world.features)[1]
    assert np.all(agreement[:, LEARNT] < 0.5)


def test_features_that_never_change_do_no_harm() -> None:
    world = World(0, 40)
    world.features[:] = 1.5
    head, report = fit(world.grid())
    assert report.agreement == Penalties()
    assert np.isfinite(predict(head, world.features + 0.1)[1]).all()


def test_scaled_rungs_are_told_from_quality() -> None:
    """On the product's ladder: half the sides cost agreement that quality does not buy back."""
    rng = np.random.default_rng(0)
    count = 120
    logit = [3.0 + 2 * math.log(r.quality / 75) + 2.5 * math.log2(r.scale) for r in FULL]
    answers = (rng.random((count, len(FULL))) < expit(logit)).astype(float)
    size = np.tile([r.scale**2 * (r.quality / 75) ** 0.7 for r in FULL], (count, 1))
    features = rng.normal(size=(count, 4)).astype(np.float32)
    groups = np.array([str(index) for index in range(count)], dtype=object)
    seen = Observations.of_grid(features, groups, answers, size)
    head, _ = fit_factored(seen, FULL, Reward(), rng=rng)
    shown = dict(zip(FULL, predict(head, features)[1][0], strict=True))
    assert shown[Rung(quality=20)] > shown[Rung(quality=20, scale=0.5)] + 0.1
    assert shown[Rung(quality=20)] == pytest.approx(
        expit(logit[FULL.index(Rung(quality=20))]), abs=0.15
    )
    assert shown[FULL[-1]] == 1.0
