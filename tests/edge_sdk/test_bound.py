"""A lower bound of the reference's size is one, whatever the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.backends.base import Capabilities
from edge_sdk.bound import outweighs
from edge_sdk.codec import encode
from edge_sdk.ladder import FULL, REFERENCE
from edge_sdk.parcel import Packer
from edge_sdk.reading import Picture

CAPABILITIES = Capabilities(max_bytes=1 << 22, min_side=1, max_side=65_500)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 300),
    st.integers(0, 2**31),
    st.sampled_from(["noise", "mosaic", "flat", "stripes"]),
)
def test_what_outweighs_a_size_has_it(width: int, height: int, seed: int, kind: str) -> None:
    image = picture(width, height, seed, kind)
    whole = len(encode(image, REFERENCE))
    for size in (*range(whole - 40, whole + 3), 1, whole // 4, whole // 2):
        assert not outweighs(image, size) or size <= whole


def picture(width: int, height: int, seed: int, kind: str) -> Image.Image:
    """Return pictures that JPEG likes least and most."""
    rng = np.random.default_rng(seed)
    tile = {"noise": 1, "mosaic": 8, "flat": 1000, "stripes": 1}[kind]
    rows, columns = -(-height // tile), 1 if kind == "stripes" else -(-width // tile)
    blocks = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    wide = np.repeat(np.repeat(blocks, tile, 0), width if kind == "stripes" else tile, 1)
    return Image.fromarray(wide[:height, :width])


def test_small_files_are_told_from_strips_and_nothing_is_told_for_large_ones(
    photo: Image.Image,
) -> None:
    large = photo.resize((640, 480), Image.Resampling.BICUBIC)
    whole = len(encode(large, REFERENCE))
    assert outweighs(large, whole // 4)
    assert not outweighs(large, whole // 4, most=whole)  # it may not be what stands for it
    assert outweighs(large, whole // 4, most=4 * whole)
    assert not outweighs(large, whole)


def test_no_rung_weighs_more_than_the_reference_and_most_need_no_encoding_of_it(
    photo: Image.Image,
) -> None:
    spared = 0
    for rung in FULL:
        packer = Packer(Picture(photo), CAPABILITIES)
        parcel = packer.pack(rung)
        spared += packer.known_reference is None
        assert len(parcel.jpeg) <= len(encode(photo, REFERENCE))
    assert spared >= len(FULL) - 4


@pytest.mark.parametrize("scale", [0.75, 0.5])
def test_a_mosaic_that_loses_by_being_resized_goes_as_the_reference(scale: float) -> None:
    mosaic = picture(320, 240, 1, "mosaic")
    whole = encode(mosaic, REFERENCE)
    for rung in FULL:
        if rung.scale == scale:
            assert len(Packer(Picture(mosaic), CAPABILITIES).pack(rung).jpeg) <= len(whole)
