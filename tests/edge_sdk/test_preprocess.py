"""The one resize: its form, and that its hash stands for what it does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk import preprocess
from edge_sdk.preprocess import spec_sha256, to_input
from model_store.errors import UsageError


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 48))
def test_any_picture_becomes_one_square_of_pixels(width: int, height: int, side: int) -> None:
    made = to_input(Image.new("RGB", (width, height), (10, 200, 30)), side)
    assert made.shape == (1, side, side, 3)
    assert made.dtype == np.uint8
    assert (made == (10, 200, 30)).all()


def test_rows_come_first_and_the_channels_are_red_green_blue() -> None:
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    image.paste((0, 0, 255), (0, 32, 64, 64))
    made = to_input(image, 8)[0]
    assert made[0, 7].tolist() == [255, 0, 0]
    assert made[7, 0].tolist() == [0, 0, 255]


def test_shrinking_is_antialiased() -> None:
    lines = np.zeros((320, 320, 3), dtype=np.uint8)
    lines[:, ::2] = 255
    made = to_input(Image.fromarray(lines), 32).astype(int)
    assert np.abs(made - 127.5).max() < 30


def test_the_sample_of_a_large_picture_is_close_to_the_plain_filter(photo: Image.Image) -> None:
    large = photo.resize((1600, 1200), Image.Resampling.BICUBIC)
    plain = large.resize((96, 96), Image.Resampling.BILINEAR)
    difference = np.abs(to_input(large, 96)[0].astype(int) - np.asarray(plain, int))
    assert difference.mean() < 1.2


def test_only_rgb_goes_in() -> None:
    with pytest.raises(UsageError, match=r"not 'L'; use reading\.load"):
        to_input(Image.new("L", (4, 4)), 8)


def test_the_hash_stands_for_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    before = spec_sha256()
    assert before == spec_sha256()
    monkeypatch.setitem(preprocess.SPEC, "resize", "pillow bicubic")
    assert spec_sha256() != before


def test_engines_in_the_field_know_this_hash() -> None:
    # It changes only together with what to_input does; every published engine is void then.
    assert spec_sha256() == "faaa96a5627fb59455a0e720a9ef706474193bc6fdc9633809d21efe9617e994"
