"""A classifier in the service's words: it tells its classes apart, or there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.learn.distil import MIN_PICTURES, classifier_of

WORDS = np.array(["cat", "dog", "car", "cup", "hat", "sea", "sky", "tie"], dtype=object)

Pictures = tuple[NDArray[np.float32], NDArray[np.object_]]


def seen(seed: int, count: int, *, words: int = 8, width: int = 20, noise: float = 0.5) -> Pictures:
    """Return features about each word's own centre, and the words."""
    centres = np.random.default_rng(99).normal(0.0, 1.0, (8, width))
    rng = np.random.default_rng(seed)
    word = np.arange(count) % words
    features = 3.0 + centres[word] + rng.normal(0.0, noise, (count, width))
    return features.astype(np.float32), WORDS[word]


def said(classifier: Any, features: NDArray[np.float32]) -> NDArray[np.object_]:
    """Return the best word of each picture; classes are in the words' alphabetical order."""
    weight, bias = classifier
    best: NDArray[np.int64] = (torch.from_numpy(features) @ weight.T + bias).argmax(dim=1).numpy()
    return np.asarray(sorted(WORDS[: len(weight)]), dtype=object)[best]


def test_it_tells_the_services_words_apart_on_pictures_it_has_not_seen() -> None:
    classifier = classifier_of(*seen(0, 160))
    assert classifier is not None
    weight, bias = classifier
    assert (tuple(weight.shape), tuple(bias.shape)) == ((8, 20), (8,))
    assert (weight.dtype, bias.dtype) == (torch.float32, torch.float32)
    features, words = seen(1, 200)
    assert (said(classifier, features) == words).mean() > 0.95


def test_more_features_than_pictures_are_no_trouble() -> None:
    classifier = classifier_of(*seen(0, 64, width=300))
    assert classifier is not None
    features, words = seen(1, 200, width=300)
    assert (said(classifier, features) == words).mean() > 0.9


def test_where_features_tell_nothing_it_is_unsure() -> None:
    features, words = seen(0, 240, noise=0.0)
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 1.0, features.shape).astype(np.float32)
    classifier = classifier_of(noise, words)
    assert classifier is not None
    fresh = torch.from_numpy(rng.normal(0.0, 1.0, features.shape).astype(np.float32))
    p = torch.softmax(fresh @ classifier[0].T + classifier[1], dim=1)
    assert float(p.max(dim=1).values.mean()) < 0.5


@pytest.mark.parametrize(("words", "enough"), [(5, False), (6, True)])
def test_six_words_are_the_least(words: int, enough: bool) -> None:
    features, labels = seen(0, 8 * words, words=words)
    assert (classifier_of(features, labels) is not None) == enough


def test_rare_words_and_silence_are_no_classes() -> None:
    features, labels = seen(0, 48, words=6)
    mixed = labels.copy()
    mixed[:MIN_PICTURES] = ""  # nothing was said
    classifier = classifier_of(features, mixed)
    assert classifier is not None
    assert len(classifier[0]) == 6
    # One word only twice: five are left.
    mixed = labels.copy()
    mixed[np.flatnonzero(labels == "cat")[MIN_PICTURES - 1 :]] = "rare"
    mixed[mixed == "rare"] = [f"rare-{number}" for number in range((mixed == "rare").sum())]
    assert classifier_of(features, mixed) is None


def test_pictures_that_all_look_alike_still_make_a_classifier() -> None:
    """It says what is said most, to everything."""
    _, labels = seen(0, 48, words=6)
    classifier = classifier_of(np.ones((48, 4), dtype=np.float32), labels)
    assert classifier is not None
    assert all(bool(torch.isfinite(one).all()) for one in classifier)


def test_the_same_pictures_make_the_same_classifier() -> None:
    one, other = classifier_of(*seen(0, 160)), classifier_of(*seen(0, 160))
    assert one is not None
    assert other is not None
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
