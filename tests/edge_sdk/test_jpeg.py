from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.jpeg import without_metadata
from edge_sdk.reading import load

PLACE = 0x8825  # EXIF's pointer to GPS


def file(photo: Image.Image, **choices: object) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", **choices)
    return buffer.getvalue()


def told(photo: Image.Image) -> bytes:
    """A file with EXIF (a place in it), a comment and a colour profile."""
    exif = Image.Exif()
    exif[0x010E] = "my garden"
    exif.get_ifd(PLACE)[1] = "N"
    return file(photo, exif=exif, comment=b"secret", icc_profile=b"profile" * 30, progressive=True)


def test_what_is_said_about_a_picture_goes_and_its_pixels_stay(photo: Image.Image) -> None:
    full = told(photo)
    bare = without_metadata(full)
    assert bare is not None
    assert len(bare) < len(full)
    assert b"my garden" not in bare
    assert b"secret" not in bare
    with Image.open(io.BytesIO(full)) as before, Image.open(io.BytesIO(bare)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))
        assert after.info["icc_profile"] == before.info["icc_profile"]
        assert not after.getexif()


def test_a_source_that_may_be_uploaded_carries_no_metadata(photo: Image.Image) -> None:
    jpeg = load(told(photo)).jpeg
    assert jpeg is not None
    assert b"my garden" not in jpeg


def test_a_file_without_metadata_stays_as_it_is(photo: Image.Image) -> None:
    plain = file(photo)
    assert without_metadata(plain) == plain


def test_fill_bytes_between_segments_are_passed_over(photo: Image.Image) -> None:
    plain = file(photo)
    filled = plain[:2] + b"\xff\xff" + plain[2:]
    assert without_metadata(filled) == plain


@given(st.binary(max_size=400))
def test_anything_else_is_refused_or_followed_but_never_fails(data: bytes) -> None:
    for content in (data, b"\xff\xd8" + data):
        bare = without_metadata(content)
        assert bare is None or len(bare) <= len(content)
