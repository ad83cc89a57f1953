from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_sdk.scenery import WINDOW, Signature, rank
from model_store.errors import UsageError


def features(centre: float, n: int = 200, width: int = 16, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(centre, 1.0, (n, width)).astype(np.float32)


def signature(centre: float = 0.0, **choices: Any) -> Signature:
    return Signature.from_features(features(centre, **choices), np.random.default_rng(1))


def test_the_nearest_scenery_comes_first_and_only_it_is_within() -> None:
    known = {"day": signature(0.0), "night": signature(4.0), "fog": signature(9.0)}
    matches = rank(known, features(4.0, n=10, seed=7))
    assert [match.id for match in matches] == ["night", "day", "fog"]
    assert [match.within for match in matches] == [True, False, False]


def test_nearly_all_windows_of_the_same_scenery_lie_within_the_radius() -> None:
    day = signature()
    windows = [features(0.0, n=WINDOW, seed=100 + index) for index in range(200)]
    inside = sum(day.distance(window) <= day.radius for window in windows)
    assert inside >= 180


def test_slack_widens_the_radius() -> None:
    day = signature()
    shifted = features(0.0, n=WINDOW) + 1.2 * day.radius
    distance = day.distance(shifted)
    assert not rank({"day": day}, shifted, slack=0.9 * distance / day.radius)[0].within
    assert rank({"day": day}, shifted, slack=1.1 * distance / day.radius)[0].within


def test_distance_is_the_root_mean_square_of_standardised_shifts() -> None:
    known = Signature(mean=np.zeros(2), std=np.array([1.0, 2.0]), radius=1.0, window=10, n=100)
    assert known.distance(np.array([[3.0, 8.0]])) == pytest.approx(np.sqrt((9 + 16) / 2))


def test_a_feature_that_never_moved_in_training_does_not_outvote_the_others() -> None:
    still = features(0.0)
    still[:, 0] = 0.0
    known = Signature.from_features(still, np.random.default_rng(1))
    assert known.std[0] == pytest.approx(0.05 * still.std(axis=0).mean(), rel=1e-4)


def test_constant_features_have_a_signature() -> None:
    known = Signature.from_features(np.ones((20, 3)), np.random.default_rng(0))
    assert known.radius == 0.0
    assert rank({"still": known}, np.ones((10, 3)))[0].within


@pytest.mark.parametrize("n", [2, 5, 10, 19, 20, 1000])
def test_the_radius_is_never_zero_because_of_too_few_pictures(n: int) -> None:
    assert signature(n=n).radius > 0


def test_json_keeps_five_digits() -> None:
    written = signature().to_dict()
    read = Signature.from_dict(json.loads(json.dumps(written)))
    assert read.to_dict() == written
    assert all(
        len(f"{abs(value):.10g}".lstrip("0.").replace(".", "")) <= 5 for value in written["mean"]
    )


@given(st.floats(1e-6, 1e6))
def test_five_digits_are_close_enough(centre: float) -> None:
    known = Signature(mean=np.full(2, centre), std=np.ones(2), radius=1.0, window=10, n=9)
    assert Signature.from_dict(known.to_dict()).mean == pytest.approx(known.mean, rel=6e-5)


def test_another_feature_width_is_left_out() -> None:
    assert rank({"wide": signature(width=32)}, features(0.0, n=10)) == []


def test_the_same_seed_gives_the_same_radius() -> None:
    assert signature().radius == signature().radius


@pytest.mark.parametrize(
    "bad", [np.zeros((1, 4)), np.zeros(4), np.full((5, 2), np.nan), np.full((5, 2), np.inf)]
)
def test_features_that_cannot_be_described_are_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="at least 2 pictures"):
        Signature.from_features(bad, np.random.default_rng(0))


@pytest.mark.parametrize(
    "change",
    [
        {"std": [1.0]},
        {"std": [0.0, 1.0]},
        {"radius": -1.0},
        {"mean": None},
        {"mean": [np.nan, 1.0]},
    ],
)
def test_a_broken_document_is_refused(change: dict[str, Any]) -> None:
    good = {"mean": [0.0, 1.0], "std": [1.0, 1.0], "radius": 0.5, "window": 10, "n": 50}
    Signature.from_dict(good)
    with pytest.raises(UsageError, match="scenery signature"):
        Signature.from_dict({**good, **change})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UsageError, match="std"):
        Signature.from_dict({"mean": [0.0]})


def test_fewer_pictures_than_a_window_may_stray_further_by_chance() -> None:
    day = signature()
    near = [day.near(features(0.0, n=5, seed=200 + index)) for index in range(100)]
    assert all(near)
    assert not day.near(features(4.0, n=5))
    assert not day.near(features(0.0, width=3))
