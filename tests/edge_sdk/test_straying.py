from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_sdk.scenery import Glimpse, Signature
from edge_sdk.straying import WINDOWS, Straying

WIDTH = 32


def pictures(centre: float, n: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(centre, 1.0, (n, WIDTH)).astype(np.float32)


def watch() -> Straying:
    return Straying(Signature.from_features(pictures(0.0, 120, 1), np.random.default_rng(0)))


def alarm_after(straying: Straying, rows: NDArray[np.float32]) -> int | None:
    for count, row in enumerate(rows, start=1):
        if straying.see(Glimpse(row)):
            return count
    return None


def test_pictures_of_the_scenery_ring_no_alarm() -> None:
    assert alarm_after(watch(), pictures(0.0, 1500, 2)) is None


def test_another_scenery_is_noticed_within_a_dozen_pictures() -> None:
    straying = watch()
    assert alarm_after(straying, pictures(0.0, 100, 3)) is None
    assert (alarm_after(straying, pictures(1.5, 60, 4)) or 99) <= 12
    assert straying.suspicious


def test_a_small_change_is_noticed_too_only_later() -> None:
    straying = watch()
    assert alarm_after(straying, pictures(0.0, 100, 3)) is None
    assert 8 < (alarm_after(straying, pictures(0.9, 60, 4)) or 99) <= 2 * WINDOWS[-1]


def test_a_camera_at_rest_rings_no_alarm_however_odd_its_picture_is() -> None:
    rng, odd = np.random.default_rng(6), pictures(0.0, 1, 5)[0] * 2.0
    frames = odd + rng.normal(0.0, 0.1, (3000, WIDTH)).astype(np.float32)
    assert alarm_after(watch(), frames) is None


def test_a_slowly_wandering_camera_rings_no_alarm() -> None:
    rng = np.random.default_rng(7)
    rows, now = [], rng.normal(size=WIDTH)
    for _ in range(1500):  # each frame has nine tenths of the one before
        now = 0.9 * now + np.sqrt(1 - 0.81) * rng.normal(size=WIDTH)
        rows.append(now.astype(np.float32))
    assert alarm_after(watch(), np.stack(rows)) is None


def test_shots_of_one_thing_each_ring_no_alarm() -> None:
    rng, rows = np.random.default_rng(9), []
    for _ in range(40):  # distinct frames, but all of the same thing
        thing = rng.normal(0.0, 0.9, WIDTH)
        rows += [thing + rng.normal(0.0, 0.45, WIDTH) for _ in range(30)]
    assert alarm_after(watch(), np.array(rows, dtype=np.float32)) is None


def test_the_last_distinct_pictures_are_at_hand_for_the_ranking() -> None:
    straying, rows = watch(), pictures(0.0, 40, 8)
    for row in rows:
        straying.see(Glimpse(row))
        straying.see(Glimpse(row))
    assert len(straying.last(5)) == 5
    assert (straying.last(1)[0].features == rows[-1]).all()
    assert len(straying.last(99)) == WINDOWS[-1]
    straying.forget()
    assert straying.last(3) == []


def test_without_a_signature_it_only_remembers() -> None:
    straying = Straying(None)
    assert alarm_after(straying, pictures(9.0, 60, 1)) is None
    assert len(straying.last(12)) == 12


def test_features_of_another_prefix_begin_a_new_window() -> None:
    straying = watch()
    assert alarm_after(straying, pictures(0.0, 10, 1)) is None
    assert not straying.see(Glimpse(np.zeros(5, dtype=np.float32)))
    assert len(straying.last(12)) == 1
