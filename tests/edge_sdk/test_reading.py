"""Reading a picture: every mode and orientation, and everything that is none."""

from __future__ import annotations

import doctest
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import reading
from edge_sdk.errors import ImageError
from edge_sdk.reading import MAX_PIXELS, load

ORIENTATION, MAKER = 0x0112, 0x010F


def file_of(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = orientation, "maker"
    return exif


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_examples_of_the_module_run() -> None:
    assert doctest.testmod(reading).failed == 0


@pytest.mark.parametrize(
    ("mode", "colour", "form", "seen"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 90, "PNG", (90, 90, 90)),
        ("LA", (90, 255), "PNG", (90, 90, 90)),
        ("LA", (90, 0), "PNG", (255, 255, 255)),
        ("P", 0, "PNG", (0, 0, 0)),
        ("RGB", (10, 20, 30), "BMP", (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), "PNG", (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), "WEBP", (204, 204, 204)),
        ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
        ("I;16", 257 * 40, "PNG", (40, 40, 40)),
        ("I", 257 * 40, "TIFF", (40, 40, 40)),
        ("I", 7, "TIFF", (7, 7, 7)),
        ("F", 200.4, "TIFF", (200, 200, 200)),
    ],
)
def test_every_mode_becomes_rgb_from_a_file(
    mode: str, colour: Any, form: str, seen: tuple[int, int, int]
) -> None:
    picture = load(file_of(Image.new(mode, (5, 4), colour), form, **_lossless(form)))
    assert (picture.image.mode, picture.image.size) == ("RGB", (5, 4))
    assert picture.image.getpixel((2, 2)) == seen
    assert picture.jpeg is None


def _lossless(form: str) -> dict[str, Any]:
    return {"lossless": True, "exact": True} if form == "WEBP" else {}


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
def test_every_mode_becomes_rgb_from_memory(mode: str) -> None:
    image = load(Image.new(mode, (5, 4))).image
    assert (image.mode, image.size) == ("RGB", (5, 4))


def test_ycbcr_is_converted_not_relabelled(photo: Image.Image) -> None:
    image = load(photo.convert("YCbCr")).image
    assert np.abs(np.asarray(image, int) - np.asarray(photo, int)).max() <= 4


def test_cmyk_jpegs_are_read_with_their_colours() -> None:
    jpeg = file_of(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = np.asarray(load(jpeg).image)[8, 8]
    assert red > 250
    assert green < 5
    assert blue < 5


def test_transparent_palette_entries_are_laid_over_white() -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(1, (2, 0, 4, 2))
    loaded = load(file_of(image, "GIF", transparency=0)).image
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((3, 0)) == (0, 0, 200)


def test_wide_grey_without_a_white_point_is_stretched_over_its_own_range() -> None:
    values = np.array([[-100.0, 400.0], [150.0, 400.0]], dtype=np.float32)
    assert np.asarray(load(Image.fromarray(values)).image)[..., 0].tolist() == [
        [0, 255],
        [128, 255],
    ]


def test_values_that_are_no_numbers_do_not_spoil_the_others() -> None:
    values = np.array([[np.nan, np.inf], [0.0, 510.0]], dtype=np.float32)
    assert np.asarray(load(Image.fromarray(values)).image)[..., 0].tolist() == [[0, 255], [0, 255]]


def test_a_picture_of_nothing_but_nan_is_black() -> None:
    values = np.full((2, 2), np.nan, dtype=np.float32)
    assert not np.asarray(load(Image.fromarray(values)).image).any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_exif_orientations_are_applied(orientation: int, form: str) -> None:
    upright = np.asarray(noise(3, 2))
    image = Image.fromarray(np.ascontiguousarray(_as_stored(upright, orientation)))
    loaded = load(file_of(image, form, exif=exif_of(orientation))).image
    np.testing.assert_array_equal(np.asarray(loaded), upright)


def _as_stored(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return what a camera stores: EXIF names the edges where its row 0 and column 0 belong."""
    half = np.rot90(upright, 2)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: half,
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),  # shown after a quarter turn clockwise
        7: half.swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    return stored[orientation]


def test_an_applied_orientation_is_not_applied_again() -> None:
    once = load(file_of(noise(3, 2), "PNG", exif=exif_of(6))).image
    assert load(once).image.size == once.size == (2, 3)


def test_exif_data_that_cannot_be_written_again_is_still_obeyed() -> None:
    exif = exif_of(6).tobytes().replace(b"\x01\x0f\x00\x02", b"\x01\x00\x00\x02")  # a text as width
    loaded = load(file_of(noise(30, 20), "JPEG", exif=exif))
    assert loaded.image.size == (20, 30)


def test_damage_that_pillow_lives_with_warns_nobody() -> None:
    exif = exif_of(1).tobytes()[:-4]
    jpeg = file_of(noise(30, 20), "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(jpeg).image.size == (30, 20)


def test_paths_are_read_as_text_and_as_path(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(file_of(noise(5, 4), "PNG"))
    assert load(path).image.size == load(str(path)).image.size == (5, 4)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_of_the_allowed_shapes_are_pictures(shape: tuple[int, ...], dtype: type) -> None:
    full: NDArray[Any] = np.full(shape, np.iinfo(dtype).max, dtype=dtype)
    image = load(full).image
    assert (image.mode, image.size) == ("RGB", (5, 4))
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_arrays_need_not_be_contiguous() -> None:
    values = np.asarray(noise(6, 4))
    np.testing.assert_array_equal(np.asarray(load(values[::2, ::-1]).image), values[::2, ::-1])


def test_16_bit_arrays_and_16_bit_files_look_the_same() -> None:
    ramp = np.arange(0, 65536, 13, dtype=np.uint16).reshape(1, -1)
    from_file = load(file_of(Image.fromarray(ramp), "PNG")).image
    np.testing.assert_array_equal(np.asarray(load(ramp).image), np.asarray(from_file))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5), dtype=np.float32),
        np.zeros((4, 5, 3), dtype=np.int32),
        np.zeros((4, 5, 2), dtype=np.uint8),
        np.zeros((1, 4, 5, 3), dtype=np.uint8),
        np.zeros(5, dtype=np.uint8),
        np.zeros((0, 5, 3), dtype=np.uint8),
        np.array(3, dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused_with_what_is_allowed(array: NDArray[Any]) -> None:
    with pytest.raises(ImageError, match=r"allowed are non-empty uint8 or uint16"):
        load(array)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(form: str, kept: float) -> None:
    whole = file_of(noise(60, 50), form)
    with pytest.raises(ImageError):
        load(whole[: int(len(whole) * kept)])


@pytest.mark.parametrize("content", [b"", b"hello, this is a text file\n", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_refused_with_its_size(content: bytes) -> None:
    with pytest.raises(ImageError, match=rf"{len(content)} bytes\) is not a picture"):
        load(content)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.jpg' cannot be read: No such file"):
        load(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match=r"cannot be read"):
        load(tmp_path)
    with pytest.raises(ImageError, match=r"cannot be read: embedded null"):
        load("one\0two.jpg")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    path.write_bytes(file_of(noise(60, 50), "JPEG")[:900])
    with pytest.raises(ImageError, match=r"half\.jpg' \(900 bytes\) is damaged"):
        load(path)


@pytest.mark.parametrize("source", [None, 3, bytearray(b"x"), ["a.jpg"]])
def test_other_kinds_of_sources_are_refused(source: Any) -> None:
    with pytest.raises(ImageError, match=r"is not a picture; give a path"):
        load(source)


def test_an_opened_file_that_turns_out_to_be_damaged_is_refused() -> None:
    opened = Image.open(io.BytesIO(file_of(noise(60, 50), "JPEG")[:900]))
    with pytest.raises(ImageError, match=r"The given image is damaged"):
        load(opened)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match=r"no pixels \(0x5\)"):
        load(Image.new("RGB", (0, 5)))


def _png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    return head + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
def test_decompression_bombs_are_refused_even_where_pillow_would_not(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match=rf"at most {MAX_PIXELS}"):
        load(_png_header(60_000, 60_000))


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"P6"])
)
def test_random_bytes_raise_nothing_but_image_errors(data: bytes, start: bytes) -> None:
    _load_or_refuse(start + data)


@given(st.data(), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "PPM"]))
def test_damaged_files_raise_nothing_but_image_errors(data: st.DataObject, form: str) -> None:
    image = noise(17, 11)
    whole = file_of(image, form, **({"exif": exif_of(6)} if form == "JPEG" else {}))
    changed = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for bit in data.draw(st.lists(st.integers(0, max(0, 8 * len(changed) - 1)), max_size=8)):
        if changed:
            changed[bit // 8] ^= 1 << (bit % 8)
    _load_or_refuse(bytes(changed))


def _load_or_refuse(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            picture = load(data)
        except ImageError:
            return
        assert picture.image.mode == "RGB"


# The source's own JPEG.


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_an_upright_jpeg_can_be_uploaded_untouched(mode: str, options: dict[str, Any]) -> None:
    jpeg = file_of(noise(40, 30).convert(mode), "JPEG", **options)
    assert load(jpeg).jpeg == jpeg


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_jpeg_cannot(orientation: int) -> None:
    assert load(file_of(noise(40, 30), "JPEG", exif=exif_of(orientation))).jpeg is None


def test_neither_can_cmyk_other_formats_and_pictures_in_memory() -> None:
    assert load(file_of(noise(40, 30).convert("CMYK"), "JPEG")).jpeg is None
    assert load(file_of(noise(40, 30), "PNG")).jpeg is None
    assert load(Image.open(io.BytesIO(file_of(noise(40, 30), "JPEG")))).jpeg is None
