"""The lossless pass: fewer bytes, the very same pixels, and only for what was encoded here."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_sdk import lossless
from edge_sdk.backends.base import Capabilities
from edge_sdk.client import EdgeClient
from edge_sdk.codec import encode
from edge_sdk.config import EdgeConfig
from edge_sdk.ladder import ENTROPY_CODINGS, FULL, PAPER, REFERENCE, SUBSAMPLINGS, Rung
from edge_sdk.memory import read_transitions
from edge_sdk.parcel import UNLIMITED, Packer
from edge_sdk.reading import Picture, load
from edge_sdk.rung import WEBP
from model_store.errors import EnvironmentMissing
from training import assets

FINE = Rung(95, subsampling="4:4:4", tables=((1,) * 64, (1,) * 64))


def pixels(file: bytes) -> bytes:
    with Image.open(io.BytesIO(file)) as opened:
        return opened.convert("RGB").tobytes()


@pytest.fixture(scope="module")
def recode() -> lossless.Recode:
    pytest.importorskip("mozjpeg_lossless_optimization")
    return lossless.open_pass()


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    try:
        return assets.photos("objects")[:5]
    except EnvironmentMissing as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "rung", [REFERENCE, FULL[0], Rung(20), FULL[-1], FINE], ids=lambda rung: rung.name
)
def test_photos_keep_every_pixel(recode: lossless.Recode, photos: list[Path], rung: Rung) -> None:
    for path in photos:
        file = encode(load(path).image, rung)
        recoded = recode(file)
        assert pixels(recoded) == pixels(file)
        assert len(recoded) <= len(file)
        if rung == REFERENCE:
            assert len(recoded) < 0.99 * len(file)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    rung=st.builds(
        Rung,
        quality=st.integers(1, 95),
        subsampling=st.sampled_from(SUBSAMPLINGS),
        entropy=st.sampled_from(ENTROPY_CODINGS),
        tables=st.sampled_from([None, FINE.tables]),
    ),
    seed=st.integers(0, 9),
    extreme=st.booleans(),
)
def test_so_does_any_picture(
    recode: lossless.Recode,
    size: tuple[int, int],
    rung: Rung,
    seed: int,
    extreme: bool,
) -> None:
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], 3)
    noise = rng.choice([0, 255], shape) if extreme else rng.integers(100, 120, shape)
    file = encode(Image.fromarray(noise.astype(np.uint8)), rung)
    recoded = recode(file)
    assert pixels(recoded) == pixels(file)
    assert len(recoded) <= len(file)


def test_what_is_no_jpeg_and_what_cannot_be_read_stay(recode: lossless.Recode) -> None:
    for file in (b"", b"RIFF....WEBP", b"\xaf\x00", b"\xff\xd8", b"\xff\xd8\xff\xd9"):
        assert recode(file) is file


class Shorter:
    """Stands for the pass: takes the last byte, and tells what it was given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def __call__(self, file: bytes) -> bytes:
        self.given.append(file)
        return file[:-1]


def test_an_upload_is_recoded_and_the_yardstick_is_not(photo: Image.Image) -> None:
    shorter = Shorter()
    packer = Packer(Picture(photo), UNLIMITED, recode=shorter)
    for _ in range(2):
        parcel = packer.pack(PAPER[3])
        assert (parcel.rung, parcel.jpeg) == (PAPER[3], encode(photo, PAPER[3])[:-1])
    assert packer.reference_jpeg == encode(photo, REFERENCE)
    assert packer.candidate(PAPER[3])[0] == encode(photo, PAPER[3])
    assert packer.pack(REFERENCE).jpeg == encode(photo, REFERENCE)[:-1]
    assert len(shorter.given) == 2  # each once


def test_a_source_that_goes_as_it_is_is_not_recoded(photo: Image.Image) -> None:
    source = encode(photo, PAPER[1])
    shorter = Shorter()
    parcel = Packer(load(source), UNLIMITED, recode=shorter).pack(PAPER[4])
    assert parcel.as_is
    assert parcel.jpeg == load(source).jpeg
    assert shorter.given == []


def test_webp_goes_as_it_is(recode: lossless.Recode, photo: Image.Image) -> None:
    rung = Rung(30, format=WEBP)
    limits = Capabilities(max_bytes=2**24, min_side=1, max_side=4096, formats=("JPEG", "WEBP"))
    assert Packer(Picture(photo), limits, recode=recode).pack(rung).jpeg == encode(photo, rung)


def test_a_client_sends_and_tells_the_smaller_file(device: Any, recode: lossless.Recode) -> None:
    got: list[bytes] = []
    answer: Callable[[bytes], Any] = device.service.recognize
    device.service.recognize = lambda jpeg: got.append(jpeg) or answer(jpeg)
    picture = device.picture(size=(320, 240))
    result = device.client(device.config(lossless_pass=True)).process(picture)
    plain, reference = encode(picture, PAPER[1]), encode(picture, REFERENCE)
    assert result.rung == PAPER[1]
    assert result.bytes == len(got[0]) < len(plain)
    assert pixels(got[0]) == pixels(plain)
    assert len(got[1]) < len(reference)
    assert pixels(got[1]) == pixels(reference)
    logged = read_transitions(device.folder / "memory.sqlite")
    assert logged.size_ratios[0] == pytest.approx(result.bytes / len(reference))


def test_without_the_package_no_client_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mozjpeg_lossless_optimization", None)
    environ = {"ADACOMPRESS_LOSSLESS_PASS": "yes"}
    config = EdgeConfig.load(environ=environ, store=tmp_path / "agents", backend="baidu://")
    with pytest.raises(EnvironmentMissing, match=r"pip install 'adacompress\[mozjpeg\]'"):
        EdgeClient(config)
