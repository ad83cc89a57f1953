from __future__ import annotations

import numpy as np

from edge_sdk.backends.base import Label
from edge_sdk.canaries import BackendWatch, Canary

CAT, DOG = (Label("cat", 0.9),), (Label("dog", 0.8), Label("cat", 0.1))


def watch(size: int = 8) -> BackendWatch:
    made = BackendWatch(size=size, every=100)
    for index in range(size):
        made.keep(bytes([index]), CAT)
    return made


def images_until_alarm(made: BackendWatch, changes: float, seed: int, most: int) -> int | None:
    rng = np.random.default_rng(seed)
    changed: dict[bytes, bool] = {}
    for image in range(1, most + 1):
        canary = made.due(image)
        if canary is not None:
            other = changed.setdefault(canary.jpeg, bool(rng.random() < changes))
            if made.asked(canary, DOG if other else CAT):
                return image
    return None


def test_canaries_are_due_on_schedule_one_after_the_other() -> None:
    made = watch(size=2)
    due = {image: canary.jpeg for image in range(1, 351) if (canary := made.due(image))}
    assert due == {100: b"\0", 200: b"\1", 300: b"\0"}


def test_a_service_that_answers_as_ever_rings_no_alarm() -> None:
    assert images_until_alarm(watch(), 0.0, seed=0, most=20_000) is None


def test_a_service_that_changed_is_noticed_within_one_round() -> None:
    found = [images_until_alarm(watch(), 0.36, seed, most=4000) for seed in range(40)]
    noticed = [image for image in found if image is not None]
    assert len(noticed) >= 30  # nobody changed three of eight in the others
    assert np.median(noticed) <= 8 * 100


def test_the_first_changed_answer_hurries_the_others() -> None:
    made = watch()
    canary = made.due(100)
    assert canary is not None
    assert not made.asked(canary, DOG)
    assert made.suspicious
    assert made.due(101) is None
    assert made.due(102) is not None


def test_a_single_answer_that_changes_is_noise() -> None:
    made = watch()
    for image in range(1, 3000):
        canary = made.due(image)
        if canary is not None:
            assert not made.asked(canary, DOG if canary.jpeg == b"\3" else CAT)


def test_the_service_s_own_word_is_enough() -> None:
    made = watch()
    assert made.version("2.0") is None
    assert made.version(None) is None
    assert made.version("2.0") is None
    assert made.version("3.0") == "the service's model changed from 2.0 to 3.0"
    assert made.due(10_000) is None  # the old model's canaries are gone
    assert made.version("3.0") is None


def test_only_so_many_are_kept_and_none_without_labels() -> None:
    made = BackendWatch(size=1, every=1)
    made.keep(b"empty", ())
    assert made.due(1) is None
    made.keep(b"first", CAT)
    made.keep(b"second", CAT)
    assert [made.due(image) for image in (2, 3)] == [Canary(b"first", "cat")] * 2
    none = BackendWatch(size=0, every=1)
    none.keep(b"first", CAT)
    assert none.due(5) is None


def test_an_answer_to_a_forgotten_canary_is_ignored() -> None:
    made = watch(size=1)
    canary = made.due(100)
    assert canary is not None
    made.forget()
    assert not made.asked(canary, DOG)
    assert not made.suspicious
