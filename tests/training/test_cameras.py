from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.cameras import SENSOR, thermal_camera


def scene(width: int = 320, height: int = 240) -> Image.Image:
    """Half black, half white, with a saturated red square in the middle."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, width // 2 :] = 255
    middle = np.s_[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
    pixels[middle] = (255, 0, 0)
    return Image.fromarray(pixels)


def grey(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)[..., 0].astype(float)


def test_the_same_seed_gives_the_same_picture_and_another_seed_other_noise() -> None:
    first, same, other = (np.asarray(thermal_camera(scene(), seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert np.abs(first.astype(int) - other.astype(int)).mean() < 8  # noise, not another scene


def test_the_picture_is_rgb_with_equal_channels() -> None:
    picture = thermal_camera(scene(), 0)
    pixels = np.asarray(picture)
    assert picture.mode == "RGB"
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


@given(width=st.integers(1, 1500), height=st.integers(1, 1500))
@settings(max_examples=15, deadline=None)
def test_no_picture_exceeds_the_sensor_and_the_aspect_is_kept(width: int, height: int) -> None:
    seen = thermal_camera(Image.new("RGB", (width, height), (90, 120, 30)), 0).size
    assert seen[0] <= SENSOR[0]
    assert seen[1] <= SENSOR[1]
    shrunk = min(1.0, SENSOR[0] / width, SENSOR[1] / height)
    assert seen == pytest.approx((width * shrunk, height * shrunk), abs=1.01)


def test_dark_is_hot_and_nothing_wraps_around() -> None:
    picture = grey(thermal_camera(scene(), 0))
    black, white = picture[10:60, 10:90], picture[10:60, 230:310]
    assert black.mean() > white.mean() + 50
    # A value that left 0 … 255 would come back on the other side, far from its neighbours.
    for flat in (black, white):
        assert np.abs(flat - flat.mean()).max() < 40


def test_noise_at_both_ends_of_the_range_does_not_wrap_around_either() -> None:
    """A scene of rare extremes: the stretch saturates, and noise goes on top."""
    pixels = np.full((200, 200, 3), 128, dtype=np.uint8)
    pixels[:20], pixels[-20:] = 0, 255
    picture = grey(thermal_camera(Image.fromarray(pixels), 3))
    assert picture[:15].mean() > 200
    assert picture[:15].min() > 180
    assert picture[-15:].max() < 80


def test_a_flat_scene_stays_flat_but_for_the_noise() -> None:
    picture = grey(thermal_camera(Image.new("RGB", (200, 100), (128, 128, 128)), 0))
    assert picture.std() < 6


def test_columns_share_a_pattern_of_noise() -> None:
    picture = grey(thermal_camera(Image.new("RGB", (300, 300), (128, 128, 128)), 0))
    assert picture.mean(axis=0).std() > picture.mean(axis=1).std()


def test_edges_are_softer_than_in_the_photo() -> None:
    def steepest(values: np.ndarray) -> float:
        row = values[5:70].mean(axis=0)
        return float(np.abs(np.diff(row)).max() / np.ptp(row))

    assert steepest(grey(thermal_camera(scene(), 0))) < 0.5 * steepest(grey(scene()))


def test_the_photo_itself_is_left_alone() -> None:
    photo = scene(1000, 800)
    thermal_camera(photo, 0)
    assert photo.size == (1000, 800)
    assert np.array_equal(np.asarray(photo), np.asarray(scene(1000, 800)))
