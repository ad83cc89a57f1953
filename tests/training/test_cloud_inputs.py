"""How a picture becomes a model's square."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.cloud.inputs import Input
from training.cloud.zoo import MODELS

SHAPES = [(640, 480), (480, 640), (15, 15), (1000, 20), (224, 224), (1, 1)]


def picture(width: int = 64, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", SHAPES)
def test_every_shape_becomes_the_input_of_the_model(name: str, size: tuple[int, int]) -> None:
    own = MODELS[name].input

    pixels = own.pixels(picture(*size))

    assert pixels.shape == (own.side, own.side, 3)
    assert pixels.dtype == np.uint8


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 32), st.integers(0, 8))
def test_no_shape_leaves_the_square_unfilled(
    width: int, height: int, side: int, margin: int
) -> None:
    white = Image.new("RGB", (width, height), "white")

    pixels = Input(side=side, resized=side + margin).pixels(white)

    assert np.all(pixels == 255)  # a crop beyond the border would be black there


def test_the_model_sees_the_middle_square_at_its_own_scale() -> None:
    photo = Image.new("RGB", (512, 256), "red")
    photo.paste("blue", (256 - 112, 16, 256 + 112, 240))  # 224 of 256 pixels of the short side

    pixels = Input(side=224, resized=256).pixels(photo)

    assert np.all(pixels[2:-2, 2:-2] == (0, 0, 255))


def test_a_squeezed_picture_is_seen_whole() -> None:
    photo = Image.new("RGB", (400, 100), "red")
    photo.paste("blue", (200, 0, 400, 100))

    pixels = Input(side=50, resized=50, squeezed=True).pixels(photo)

    assert np.all(pixels[:, :24] == (255, 0, 0))
    assert np.all(pixels[:, 26:] == (0, 0, 255))
