from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_sdk.scenery import STRANGE, Glimpse, Signature, rank
from edge_sdk.spread import WINDOW, Spread
from model_store.errors import UsageError


def features(centre: float, n: int = 200, width: int = 16, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(centre, 1.0, (n, width)).astype(np.float32)


def window(centre: float, n: int = WINDOW, seed: int = 0, **choices: Any) -> list[Glimpse]:
    return [Glimpse(row) for row in features(centre, n=n, seed=seed, **choices)]


def signature(centre: float = 0.0, **choices: Any) -> Signature:
    return Signature.from_features(features(centre, **choices), np.random.default_rng(1))


def spread(**choices: Any) -> Spread:
    return Spread(mean=np.zeros(2), std=np.ones(2), **choices)


def test_the_nearest_scenery_comes_first_and_only_it_is_within() -> None:
    known = {"day": signature(0.0), "night": signature(4.0), "fog": signature(9.0)}
    matches = rank(known, window(4.0, n=10, seed=7))
    assert [match.id for match in matches] == ["night", "day", "fog"]
    assert [match.within for match in matches] == [True, False, False]


def test_windows_of_the_same_scenery_score_like_a_standard_normal() -> None:
    day = signature()
    scores = [day.strangeness(window(0.0, seed=100 + index)) for index in range(300)]
    assert abs(float(np.mean(scores))) < 0.4
    assert 0.6 < float(np.std(scores)) < 1.4
    assert max(scores) < STRANGE / 2


def test_windows_of_another_length_are_scored_alike() -> None:
    day = signature()
    for size in (6, 12, 40):
        scores = [day.strangeness(window(0.0, n=size, seed=300 + index)) for index in range(100)]
        assert abs(float(np.mean(scores))) < 0.6


def test_frames_that_resemble_their_neighbours_count_for_fewer_pictures() -> None:
    rng, day = np.random.default_rng(5), signature(width=64)
    slow = np.cumsum(rng.normal(0.0, 0.3, (24, 64)), axis=0) + rng.normal(0.0, 1.0, 64)
    shuffled = [Glimpse(row) for row in rng.permutation(slow)]
    assert day.strangeness([Glimpse(row) for row in slow]) < 0.6 * day.strangeness(shuffled)


def test_colours_tell_sceneries_apart_that_features_do_not() -> None:
    rng = np.random.default_rng(3)
    vivid, grey = rng.dirichlet(np.ones(8), (2, 100))
    grey[:, 0] += 2.0
    known = Signature.from_features(features(0.0, n=100), rng, palettes=vivid)
    seen = features(0.0, n=WINDOW, seed=9)
    at_home = [Glimpse(row, colour) for row, colour in zip(seen, vivid, strict=False)]
    away = [Glimpse(row, colour) for row, colour in zip(seen, grey, strict=False)]
    assert known.strangeness(at_home) < STRANGE < known.strangeness(away)
    assert known.likelihood(at_home[0]) > known.likelihood(away[0])


def test_views_of_one_photo_are_one_picture_of_the_training() -> None:
    rng = np.random.default_rng(4)
    photos = np.repeat(features(0.0, n=40), 5, axis=0) + rng.normal(0.0, 0.1, (200, 16))
    groups = np.repeat(np.arange(40), 5)
    known = Signature.from_features(photos, rng, groups=list(groups))
    assert known.n == 40
    scores = [known.strangeness(window(0.0, seed=500 + index)) for index in range(100)]
    assert max(scores) < STRANGE


def test_a_feature_that_never_moved_in_training_does_not_outvote_the_others() -> None:
    still = features(0.0)
    still[:, 0] = 0.0
    known = Signature.from_features(still, np.random.default_rng(1))
    assert known.features.std[0] == pytest.approx(0.05 * still.std(axis=0).mean(), rel=1e-4)


def test_constant_features_have_a_signature() -> None:
    known = Signature.from_features(np.ones((20, 3)), np.random.default_rng(0))
    assert rank({"still": known}, [Glimpse(np.ones(3))] * 10)[0].within


@pytest.mark.parametrize("n", [2, 5, 10, 31, 32, 1000])
def test_any_number_of_pictures_will_do(n: int) -> None:
    known = signature(n=n)
    assert known.n == n
    assert known.strangeness(window(0.0, seed=8)) < known.strangeness(window(40.0, seed=8))


def test_json_keeps_five_digits() -> None:
    written = signature().to_dict()
    read = Signature.from_dict(json.loads(json.dumps(written)))
    assert read.to_dict()["std"] == written["std"]
    assert all(
        len(f"{abs(value):.10g}".lstrip("0.").replace(".", "")) <= 5 for value in written["mean"]
    )


@given(st.floats(1e-6, 1e6))
def test_five_digits_are_close_enough(centre: float) -> None:
    known = Spread(mean=np.full(2, centre), std=np.ones(2))
    assert Spread.from_dict(known.to_dict()).mean == pytest.approx(known.mean, rel=6e-5)


def test_a_signature_of_before_scores_by_its_radius() -> None:
    new = signature()
    old = {name: new.to_dict()[name] for name in ("mean", "std", "radius", "window", "n")}
    read = Signature.from_dict(old)
    assert read.strangeness(window(0.0)) == pytest.approx(new.strangeness(window(0.0)), abs=1.0)
    assert read.strangeness(window(4.0)) > STRANGE


def test_another_feature_width_is_left_out() -> None:
    assert rank({"wide": signature(width=32)}, window(0.0, n=10)) == []


def test_the_same_seed_gives_the_same_signature() -> None:
    assert signature().to_dict() == signature().to_dict()


@pytest.mark.parametrize(
    "bad", [np.zeros((1, 4)), np.zeros(4), np.full((5, 2), np.nan), np.full((5, 2), np.inf)]
)
def test_features_that_cannot_be_described_are_refused(bad: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="at least 2 pictures"):
        Signature.from_features(bad, np.random.default_rng(0))


def test_as_many_palettes_and_groups_as_pictures_are_wanted() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="200 pictures' features and 3 palettes"):
        Signature.from_features(features(0.0), rng, palettes=np.ones((3, 4)))
    with pytest.raises(UsageError, match="200 pictures and 2 groups"):
        Signature.from_features(features(0.0), rng, groups=["a", "b"])


@pytest.mark.parametrize(
    "change",
    [
        {"std": [1.0]},
        {"std": [0.0, 1.0]},
        {"scale": -1.0},
        {"freedom": 0.0},
        {"n": 0},
        {"mean": None},
        {"mean": [np.nan, 1.0]},
    ],
)
def test_a_broken_document_is_refused(change: dict[str, Any]) -> None:
    good = {"mean": [0.0, 1.0], "std": [1.0, 1.0], "scale": 1.0, "freedom": 9.0, "n": 50}
    Signature.from_dict(good)
    with pytest.raises(UsageError, match="scenery signature"):
        Signature.from_dict({**good, **change})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UsageError, match="std"):
        Signature.from_dict({"mean": [0.0]})
