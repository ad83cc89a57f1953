"""Encoding any rung. Bytes are compared only within one process."""

from __future__ import annotations

import doctest
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin

from edge_sdk import codec
from edge_sdk.codec import Scales, encode, scaled_size
from edge_sdk.errors import ImageError
from edge_sdk.ladder import ENTROPY_CODINGS, FULL, REFERENCE, SUBSAMPLINGS, Rung
from edge_sdk.reading import load

rungs = st.builds(
    Rung,
    quality=st.integers(1, 95),
    scale=st.floats(0.01, 1.0),
    subsampling=st.sampled_from(SUBSAMPLINGS),
    entropy=st.sampled_from(ENTROPY_CODINGS),
)

planes = st.lists(st.integers(1, 255), min_size=64, max_size=64).map(tuple)


def file_of(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(jpeg: bytes) -> JpegImagePlugin.JpegImageFile:
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg))
    image.load()
    return image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_examples_of_the_module_run() -> None:
    assert doctest.testmod(codec).failed == 0


@given(st.integers(1, 70), st.integers(1, 70), rungs)
def test_any_picture_at_any_rung_is_a_jpeg_of_the_scaled_size(
    width: int, height: int, rung: Rung
) -> None:
    jpeg = decoded(encode(noise(width, height), rung))
    assert jpeg.format == "JPEG"
    assert jpeg.size == scaled_size((width, height), rung.scale)


@given(st.integers(1, 70), st.integers(1, 70), rungs)
def test_entropy_coding_changes_bytes_never_pixels(width: int, height: int, rung: Rung) -> None:
    image = noise(width, height)
    plain, optimized, progressive = (
        encode(image, Rung(rung.quality, rung.scale, rung.subsampling, entropy))
        for entropy in ("plain", "optimized", "progressive")
    )
    pixels = np.asarray(decoded(plain))
    np.testing.assert_array_equal(np.asarray(decoded(optimized)), pixels)
    np.testing.assert_array_equal(np.asarray(decoded(progressive)), pixels)
    assert len(optimized) <= len(plain)


def test_the_reference_is_pillows_default_jpeg(photo: Image.Image) -> None:
    assert encode(photo, REFERENCE) == file_of(photo, "JPEG")


def test_the_full_ladder_ends_at_the_references_pixels_for_fewer_bytes(photo: Image.Image) -> None:
    reference, last = encode(photo, REFERENCE), encode(photo, FULL[-1])
    np.testing.assert_array_equal(np.asarray(decoded(reference)), np.asarray(decoded(last)))
    assert len(last) < len(reference)


@pytest.mark.parametrize("rung", [Rung(75, subsampling=name) for name in SUBSAMPLINGS])
def test_the_chroma_subsampling_is_the_rungs(photo: Image.Image, rung: Rung) -> None:
    sampling = JpegImagePlugin.get_sampling(decoded(encode(photo, rung)))
    assert sampling == SUBSAMPLINGS[::-1].index(rung.subsampling)


def test_progressive_rungs_are_progressive(photo: Image.Image) -> None:
    assert "progressive" in decoded(encode(photo, Rung(50, entropy="progressive"))).info
    assert "progressive" not in decoded(encode(photo, Rung(50))).info


@given(
    st.tuples(planes, planes),
    st.integers(1, 95),
    st.sampled_from(SUBSAMPLINGS),
    st.sampled_from(ENTROPY_CODINGS),
)
def test_the_very_tables_of_a_rung_arrive_in_raster_order(
    tables: Any, quality: int, subsampling: str, entropy: str
) -> None:
    rung = Rung(quality, 1.0, subsampling, entropy, tables)
    luma, chroma = rung.scaled_tables or ((), ())
    found = decoded(encode(noise(40, 30), rung))
    assert found.quantization == {0: list(luma), 1: list(chroma)}


@pytest.mark.parametrize("entropy", ENTROPY_CODINGS)
def test_libjpegs_own_tables_give_the_very_files_of_their_quality(
    photo: Image.Image, entropy: str
) -> None:
    own = decoded(encode(photo, Rung(50))).quantization
    tables = (tuple(own[0]), tuple(own[1]))
    for quality in range(1, 96):
        rung = Rung(quality, 0.75, entropy=entropy)
        assert encode(photo, replace(rung, tables=tables)) == encode(photo, rung)


def test_coarser_tables_are_smaller(photo: Image.Image) -> None:
    sizes = [len(encode(photo, Rung(50, tables=((s,) * 64,) * 2))) for s in (2, 8, 32, 128)]
    assert sizes == sorted(sizes, reverse=True)


def test_one_pixel_can_be_halved() -> None:
    assert scaled_size((1, 1), 0.5) == (1, 1)
    assert decoded(encode(Image.new("RGB", (1, 1)), Rung(10, scale=0.5))).size == (1, 1)


def test_a_lower_quality_is_smaller_and_a_smaller_scale_too(photo: Image.Image) -> None:
    sizes = [len(encode(photo, Rung(quality))) for quality in (5, 25, 50, 75, 95)]
    assert sizes == sorted(sizes)
    assert len(encode(photo, Rung(50, scale=0.5))) < len(encode(photo, Rung(50)))


@pytest.mark.parametrize("entropy", ["optimized", "progressive"])
def test_noise_that_outgrows_the_encoders_buffer_is_encoded_all_the_same(entropy: str) -> None:
    image = noise(300, 300)
    jpeg = decoded(encode(image, Rung(95, 1.0, "4:4:4", entropy)))
    plain = decoded(encode(image, Rung(95, 1.0, "4:4:4", "plain")))
    np.testing.assert_array_equal(np.asarray(jpeg), np.asarray(plain))


def test_metadata_stays_at_home() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    jpeg = file_of(noise(40, 30), "JPEG", exif=exif, comment=b"my street")
    for image in (load(jpeg).image, decoded(jpeg)):
        sent = encode(image, REFERENCE)
        assert b"my street" not in sent
        assert b"maker" not in sent


def test_a_side_that_jpeg_cannot_hold_is_refused() -> None:
    with pytest.raises(ImageError, match=r"65501x1 pixels cannot be encoded.*65500"):
        encode(Image.new("RGB", (65_501, 1)), REFERENCE)


def test_encoding_leaves_the_picture_alone(photo: Image.Image) -> None:
    before = photo.tobytes()
    encode(photo, FULL[0])
    assert (photo.tobytes(), photo.size) == (before, (160, 120))


def test_scales_made_once_give_the_same_files(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [encode(photo, rung) for rung in FULL]
    resized: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def counted(image: Image.Image, size: tuple[int, int], *rest: Any, **how: Any) -> Image.Image:
        resized.append(size)
        return resize(image, size, *rest, **how)

    monkeypatch.setattr(Image.Image, "resize", counted)
    scales = Scales(photo)
    assert [encode(scales, rung) for rung in FULL] == files
    assert len(resized) == len({rung.scale for rung in FULL} - {1.0})
