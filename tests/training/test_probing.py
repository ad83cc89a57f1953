"""What a probe learns: that an encoding which still looks like its picture gets its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_sdk.ladder import Ladder, Rung
from export.probe_head import ProbeHead
from training.learn.logistic import log_loss
from training.learn.probing import REACH, Looks, fit_probe, predictions

#: The last but one decodes to the reference's pixels.
LADDER: Ladder = (Rung(5), Rung(10), Rung(20), Rung(35), Rung(55), Rung(75), Rung(90))
SAME = 5
CLASSES, WIDTH = 8, 12
HARM = np.array([1.6, 1.2, 0.8, 0.5, 0.3, 0.0, 0.1])

Array = NDArray[np.float64]

CENTRES = np.random.default_rng(9).normal(0.0, 1.0, (CLASSES, WIDTH))


def world(seed: int, count: int) -> tuple[Looks, Array]:
    """Return looks and a service's agreement: is the encoding still nearest to the same class?

    How much harm compression does to a picture cannot be seen from the picture itself.
    """
    rng = np.random.default_rng(seed)
    original = CENTRES[rng.integers(CLASSES, size=count)] + rng.normal(0, 0.1, (count, WIDTH))
    harm = rng.gamma(2.0, 1.0, (count, 1, 1)) * HARM[:, None]
    encoded = original[:, None] + harm * rng.normal(0.0, 1.0, (count, 1, WIDTH))
    best, still = (
        np.argmax(one @ CENTRES.T - 0.5 * (CENTRES**2).sum(1), -1) for one in (original, encoded)
    )
    agreement = (best[:, None] == still).astype(float)
    sizes = np.geomspace(0.1, 1.1, len(LADDER)) * rng.uniform(0.9, 1.1, (count, 1))
    return Looks(original.astype(np.float32), encoded.astype(np.float32), sizes), agreement


def untrained() -> ProbeHead:
    weight = torch.from_numpy(CENTRES).float()
    classifier = weight, -0.5 * (weight * weight).sum(dim=1)
    return ProbeHead(classifier, torch.ones(WIDTH), LADDER, torch.linspace(-2.3, 0.1, len(LADDER)))


def loss(foreseen: NDArray[Any], agreement: Array) -> float:
    """Return the mean log-loss of the rungs that have to be learnt."""
    p = np.clip(np.delete(foreseen, SAME, axis=1), 1e-5, 1.0 - 1e-5).astype(np.float64)
    return float(log_loss(np.log(p / (1.0 - p)), np.delete(agreement, SAME, axis=1)).mean())


@pytest.fixture(scope="module")
def fitted() -> ProbeHead:
    return fit_probe(untrained(), *world(0, 150), LADDER)


def test_a_look_at_a_rung_foretells_its_answer(fitted: ProbeHead) -> None:
    known = world(0, 150)[1]
    looks, agreement = world(1, 400)
    told = predictions(fitted, looks)
    assert told.shape == (400, len(LADDER), len(LADDER))
    own = told.diagonal(axis1=1, axis2=2)
    means = np.tile(known.mean(axis=0), (400, 1))
    assert loss(own, agreement) < 0.5 * loss(means, agreement)
    assert ((own > 0.5) == (agreement == 1.0)).mean() > 0.9


def test_what_a_look_tells_fades_with_the_distance(fitted: ProbeHead) -> None:
    looks, agreement = world(1, 400)
    told = predictions(fitted, looks)
    means = np.tile(world(0, 150)[1].mean(axis=0), (400, 1))

    def seen_from(steps: int) -> float:
        rungs = np.arange(len(LADDER))
        probed = np.clip(rungs - steps, 0, None)
        return loss(told[:, probed, rungs], agreement)

    assert seen_from(0) < seen_from(1) < seen_from(3) < loss(means, agreement)


def test_the_references_pixels_agree_whatever_is_seen(fitted: ProbeHead) -> None:
    told = predictions(fitted, world(1, 50)[0])
    assert (told[:, :, SAME] == 1.0).all()
    assert (np.delete(told, SAME, axis=2) < 1.0).all()


def test_predictions_are_what_the_head_says(fitted: ProbeHead) -> None:
    looks, _ = world(1, 3)
    told = predictions(fitted, looks)
    with torch.inference_mode():
        expected = fitted(
            torch.from_numpy(looks.original[2:]),
            torch.from_numpy(looks.encoded[2:, 4]),
            torch.tensor([4]),
            torch.from_numpy(looks.size_ratio[2:, 4]).float(),
        )
    np.testing.assert_allclose(told[2, 4], expected.numpy()[0], atol=1e-4)


def test_a_few_answers_a_picture_teach_nearly_as_much_as_all() -> None:
    looks, agreement = world(0, 150)
    asked = np.random.default_rng(0).random(agreement.shape) < 3 / len(LADDER)
    few = fit_probe(untrained(), looks, np.where(asked, agreement, np.nan), LADDER)
    unseen, answers = world(1, 400)
    own = predictions(few, unseen).diagonal(axis1=1, axis2=2)
    means = np.tile(agreement.mean(axis=0), (400, 1))
    assert loss(own, answers) < 0.6 * loss(means, answers)


def weights(head: ProbeHead) -> list[Any]:
    return [one.numpy() for one in (head.weight, head.bias, head.mean, head.scale)]


def test_pictures_nobody_was_asked_about_teach_nothing(fitted: ProbeHead) -> None:
    looks, agreement = world(0, 150)
    more, _ = world(5, 30)
    both = Looks(
        np.concatenate([looks.original, more.original]),
        np.concatenate([looks.encoded, more.encoded]),
        np.concatenate([looks.size_ratio, more.size_ratio]),
    )
    padded = np.concatenate([agreement, np.full((30, len(LADDER)), np.nan)])
    again = fit_probe(untrained(), both, padded, LADDER)
    for got, expected in zip(weights(again), weights(fitted), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_looks_far_from_any_answer_teach_nothing() -> None:
    looks, agreement = world(0, 60)
    only_first = np.where(np.arange(len(LADDER)) == 0, agreement, np.nan)
    assert len(LADDER) - 2 == REACH
    blind = looks.encoded.copy()
    blind[:, REACH + 1] = np.nan  # out of reach of the one answered rung
    head = fit_probe(untrained(), replace(looks, encoded=blind), only_first, LADDER)
    assert all(np.isfinite(one).all() for one in weights(head))


def test_shares_of_labels_are_learnt_as_they_are() -> None:
    looks, agreement = world(0, 150)
    halves = np.where(agreement == 1.0, 0.75, 0.25)
    told = predictions(fit_probe(untrained(), looks, halves, LADDER), looks)
    own = np.delete(told.diagonal(axis1=1, axis2=2), SAME, axis=1)
    assert own.mean() == pytest.approx(np.delete(halves, SAME, axis=1).mean(), abs=0.02)


def test_the_same_answers_make_the_same_head(fitted: ProbeHead) -> None:
    again = fit_probe(untrained(), *world(0, 150), LADDER)
    for got, expected in zip(weights(again), weights(fitted), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_some_of_the_pictures_are_taken_in_order() -> None:
    looks, _ = world(0, 10)
    part = looks.take(np.array([7, 2]))
    np.testing.assert_array_equal(part.original, looks.original[[7, 2]])
    np.testing.assert_array_equal(part.encoded, looks.encoded[[7, 2]])
    np.testing.assert_array_equal(part.size_ratio, looks.size_ratio[[7, 2]])
