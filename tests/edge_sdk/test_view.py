"""How a picture becomes a model's square."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.view import View
from model_store.errors import UsageError
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

    pixels = View(side=side, resized=side + margin).pixels(white)

    assert np.all(pixels == 255)  # a crop beyond the border would be black there


def test_the_model_sees_the_middle_square_at_its_own_scale() -> None:
    photo = Image.new("RGB", (512, 256), "red")
    photo.paste("blue", (256 - 112, 16, 256 + 112, 240))  # 224 of 256 pixels of the short side

    pixels = View(side=224, resized=256).pixels(photo)

    assert np.all(pixels[2:-2, 2:-2] == (0, 0, 255))


def test_a_squeezed_picture_is_seen_whole() -> None:
    photo = Image.new("RGB", (400, 100), "red")
    photo.paste("blue", (200, 0, 400, 100))

    pixels = View(side=50, resized=50, squeezed=True).pixels(photo)

    assert np.all(pixels[:, :24] == (255, 0, 0))
    assert np.all(pixels[:, 26:] == (0, 0, 255))


@pytest.mark.parametrize("name", MODELS)
def test_a_view_survives_a_document(name: str) -> None:
    own = MODELS[name].input

    assert View.from_dict(json.loads(json.dumps(own.as_dict()))) == own


def test_fields_of_a_later_version_are_ignored() -> None:
    assert View.from_dict({"side": 8, "resized": 9, "tilt": 3}) == View(side=8, resized=9)


@pytest.mark.parametrize(
    "fields",
    [
        {"side": 0, "resized": 8},
        {"side": 9, "resized": 8},
        {"side": 10**9, "resized": 10**9},
        {"side": 8, "resized": "8"},
        {"side": 8, "resized": True},
        {"side": 8, "resized": 8, "filter": "nearest"},
        {"side": 8, "resized": 8, "filter": ["bicubic"]},
        {"side": 8, "resized": 8, "squeezed": 1},
        {"side": 8},
        {"side": None, "resized": 8},
    ],
)
def test_a_view_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        View.from_dict(fields)
