"""What leaves the device for rungs of other formats, to services that read them or do not."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.agent import Agent
from edge_sdk.allowance import Allowance
from edge_sdk.backends.base import Box, Capabilities, Label, Recognition
from edge_sdk.backends.limits import check_limits, check_upload, media_type, takes
from edge_sdk.climb import Look, climb
from edge_sdk.codec import Scales, encode, shown, upload_size
from edge_sdk.engine import Scores
from edge_sdk.errors import BackendRejected, EngineError
from edge_sdk.estimator import LoopParameters
from edge_sdk.ladder import FULL, REFERENCE, Ladder, Rung
from edge_sdk.parcel import Packer, Parcel
from edge_sdk.policy import OperatingPoint
from edge_sdk.reading import Picture
from edge_sdk.view import View
from model_store.errors import UsageError

CODEC = "00112233aabbccdd"
VIEW = View(side=48, resized=64)
WEBP = Rung(format="webp", quality=40)
CROP = Rung(format="webp", quality=40, view=VIEW)
STREAM = Rung(format="features", codec=CODEC, rate=1)
LADDER: Ladder = (STREAM, CROP, WEBP, FULL[-1])
NEVER = LoopParameters(p_0=0.0, p_min=1e-12)
ALL = Capabilities(
    max_bytes=2**22, min_side=1, max_side=4096, formats=("JPEG", "WEBP"), codecs=(CODEC,)
)
JPEG_ONLY = replace(ALL, formats=("JPEG",), codecs=())


class Codec:
    """A codec that sends the picture's mean colour, at two rates."""

    id = CODEC

    def __init__(self) -> None:
        self.runs = 0
        self.broken = False

    def integers(self, image: Image.Image) -> NDArray[np.int8]:
        if self.broken:
            raise EngineError("The codec's engine broke.")
        self.runs += 1
        colour = (np.asarray(image).mean(axis=(0, 1)) / 2).astype(np.int8)
        return np.stack([colour, colour])[:, :, None, None]

    def encode(self, integers: NDArray[np.int8], rate: int) -> bytes:
        head = bytes([0xAF, rate]) + bytes.fromhex(CODEC)[:4]
        return head + integers[rate].tobytes() + bytes(4)


class Chooser:
    """An engine that wants one rung of ``LADDER``, and another if that is not to be had."""

    side, provider, factored = 8, "fake", True
    ladder = LADDER

    def __init__(self, *best: int) -> None:
        self.agreement = np.full((1, len(LADDER)), 0.1, dtype=np.float32)
        for place, rung in enumerate(best):
            self.agreement[0, rung] = 0.95 - 0.1 * place
        self.size_ratio = np.array([[0.02, 0.1, 0.4, 0.9]], dtype=np.float32)

    def run(self, images: NDArray[np.uint8]) -> Scores:
        features = images.reshape(len(images), -1, 3).mean(axis=1).astype(np.float32)
        return Scores(features, self.agreement - self.size_ratio, self.agreement, self.size_ratio)


class Reader:
    """A service that says what kind of file it was sent."""

    name = "fake://"

    def __init__(self, capabilities: Capabilities = ALL) -> None:
        self.capabilities = capabilities
        self.files: list[bytes] = []
        self.refuses = ""

    def recognize(self, jpeg: bytes) -> Recognition:
        self.files.append(jpeg)
        kind = media_type(jpeg)
        if kind == self.refuses:
            raise BackendRejected(f"No {kind} here.")
        size = check_upload(jpeg, self.capabilities, self.name)
        whole = Box(0.0, 0.0, *map(float, size)) if size else None
        return Recognition((Label(kind, 0.9, whole),), wire_bytes=len(jpeg), size=size)

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None:
        pass


def photo(width: int = 160, height: int = 120) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 24, (height, width))
    layers = [(x + noise) % 256, (2 * y + noise) % 256, (x + y) % 256]
    return Image.fromarray(np.stack(layers, axis=2).astype(np.uint8))


def agent(*best: int, codec: Any = None, **choices: Any) -> Agent:
    point = OperatingPoint(trade_off=4.0, certified=True)
    return Agent("one", Chooser(*best), **{"operating_point": point, "codec": codec, **choices})


def served(device: Any, service: Reader, one: Agent) -> Any:
    device.shelf.add(one, current=True)
    client = device.client(device.config(backend=service, loop=NEVER))
    return client.process(photo()), client


# Encoding.


@pytest.mark.parametrize("rung", [WEBP, CROP, replace(CROP, scale=0.5)])
def test_webp_files_are_webp_and_say_nothing_but_the_picture(rung: Rung) -> None:
    image = photo()
    image.info["comment"] = b"secret"
    file = encode(image, rung)
    with Image.open(io.BytesIO(file)) as read:
        assert (read.format, read.size) == ("WEBP", upload_size(image.size, rung))
        assert not {"exif", "icc_profile", "xmp"} & set(read.info)
    assert b"secret" not in file
    assert media_type(file) == "image/webp"


@given(
    size=st.tuples(st.integers(20, 200), st.integers(20, 200)),
    side=st.integers(4, 40),
    margin=st.integers(0, 9),
    squeezed=st.booleans(),
)
@settings(max_examples=40)
def test_the_service_cuts_from_a_cropped_upload_the_very_pixels_that_it_would_have_cut(
    size: tuple[int, int], side: int, margin: int, squeezed: bool
) -> None:
    view = View(side=side, resized=side + margin, squeezed=squeezed)
    image = photo(*size)
    upload = Scales(image).seen(view).at(1.0)
    assert upload.size == (view.resized, view.resized)
    assert np.array_equal(view.pixels(upload), view.pixels(image))


def test_the_codecs_engine_runs_once_a_picture() -> None:
    codec = Codec()
    scales = Scales(photo(), codec)
    files = [encode(scales, replace(STREAM, rate=rate)) for rate in (0, 1, 0)]
    assert files[0] == files[2] != files[1]
    assert codec.runs == 1
    assert media_type(files[0]) == "application/vnd.adacompress.features"


@pytest.mark.parametrize("codec", [None, Codec()])
def test_without_the_rungs_codec_there_is_no_stream(codec: Codec | None) -> None:
    other = Rung(format="features", codec="f" * 16, rate=0)
    with pytest.raises(UsageError, match=r"needs the codec ffff.*; there is"):
        encode(Scales(photo(), codec), other)


# What a service reads.


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (ALL, [True, True, True, True]),
        (JPEG_ONLY, [False, False, False, True]),
        (replace(ALL, codecs=("f" * 16,)), [False, True, True, True]),
    ],
)
def test_a_ladder_is_cut_to_what_a_service_reads(
    capabilities: Capabilities, expected: list[bool]
) -> None:
    assert [takes(capabilities, rung) for rung in LADDER] == expected
    packer = Packer(Picture(photo()), capabilities, codec=Codec())
    assert packer.usable(LADDER) == [place for place, good in enumerate(expected) if good]
    sent = [parcel.rung for parcel in packer.parcels(LADDER)]
    assert sent == [
        rung if good else REFERENCE for rung, good in zip(LADDER, expected, strict=True)
    ]


def test_what_a_file_is_shows_in_its_first_bytes_and_the_limits_hold_for_all() -> None:
    stream, webp = encode(Scales(photo(), Codec()), STREAM), encode(photo(), WEBP)
    assert check_upload(stream, ALL, "it") is None
    assert check_upload(webp, ALL, "it") == (160, 120)
    assert check_limits(webp, ALL, "it") == (160, 120)
    other = replace(ALL, codecs=("f" * 16,))
    with pytest.raises(BackendRejected, match="features of the codec 00112233…; it reads ffff"):
        check_upload(stream, other, "it")
    with pytest.raises(BackendRejected, match="not a JPEG file"):
        check_upload(webp, JPEG_ONLY, "it")
    with pytest.raises(BackendRejected, match="it takes pictures"):
        check_upload(stream, JPEG_ONLY, "it")
    with pytest.raises(BackendRejected, match="at most 5"):
        check_upload(stream, replace(ALL, max_bytes=5), "it")


def test_a_crop_that_is_too_small_is_replaced_by_a_dearer_one_of_its_kind_or_the_reference() -> (
    None
):
    half = replace(CROP, scale=0.5)
    limits = replace(ALL, min_side=48)
    sent = Packer(Picture(photo()), limits).parcels((half, CROP, WEBP, FULL[-1]))
    assert [one.rung for one in sent] == [CROP, CROP, WEBP, FULL[-1]]
    alone = Packer(Picture(photo()), limits).parcels((half, WEBP, FULL[-1]))
    assert [one.rung for one in alone] == [REFERENCE, WEBP, FULL[-1]]


def test_a_small_upload_is_sent_without_encoding_the_reference_but_never_a_larger_one() -> None:
    packer = Packer(Picture(photo()), ALL, codec=Codec())
    assert packer.pack(STREAM) == Parcel(STREAM, encode(Scales(photo(), Codec()), STREAM))
    assert packer.known_reference is None
    tiny = Packer(Picture(photo(8, 8)), ALL)
    huge = Rung(format="webp", quality=95, view=View(side=400, resized=400))
    assert tiny.pack(huge).rung == REFERENCE
    flat = Image.new("RGB", (637, 470))  # the cheapest reference that a size can have
    least = Packer(Picture(flat), ALL).least_reference
    assert 0.8 * len(encode(flat, REFERENCE)) < least < len(encode(flat, REFERENCE))
    assert Packer(Picture(flat), replace(ALL, max_side=600)).least_reference == 0


# Boxes.


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (64, 64), (31, 97)])
@pytest.mark.parametrize("squeezed", [False, True])
def test_boxes_of_a_crop_are_in_the_originals_pixels(size: tuple[int, int], squeezed: bool) -> None:
    view = View(side=48, resized=64, squeezed=squeezed)
    rung = Rung(50, 0.5, view=view)
    part = shown(size, rung)
    assert part is not None
    upload = upload_size(size, rung)
    answer = Recognition(
        (Label("all", 0.9, Box(0, 0, *upload)), Label("none", 0.5)), 1, size=upload
    )
    whole, plain = answer.at(size, part).labels
    middle = (whole.box.left + whole.box.width / 2, whole.box.top + whole.box.height / 2)
    assert middle == pytest.approx((size[0] / 2, size[1] / 2), abs=1.0)
    expected = size if squeezed else (min(size), min(size))
    assert (whole.box.width, whole.box.height) == pytest.approx(expected, abs=1.0)
    assert whole.box.left >= 0
    assert whole.box.left + whole.box.width <= size[0]
    assert plain.box is None


# The device.


@pytest.mark.parametrize(
    ("best", "kind"), [(0, "application"), (1, "image/webp"), (3, "image/jpe")]
)
def test_a_device_sends_what_its_agent_chooses(device: Any, best: int, kind: str) -> None:
    result, _ = served(device, Reader(), agent(best, codec=Codec()))
    assert result.rung == LADDER[best]
    assert result.labels[0].name.startswith(kind)
    assert type(result).from_dict(result.to_dict()) == result


def test_the_boxes_of_a_served_crop_are_the_pictures(device: Any) -> None:
    result, _ = served(device, Reader(), agent(1))
    assert result.labels[0].box == pytest.approx((20, 0, 120, 120), abs=2.0)


def test_what_the_service_does_not_read_is_never_chosen_and_one_warning_says_so(
    device: Any, caplog: pytest.LogCaptureFixture
) -> None:
    service = Reader(JPEG_ONLY)
    result, client = served(device, service, agent(0, codec=Codec()))
    client.process(photo())
    assert result.rung == FULL[-1]
    assert {media_type(file) for file in service.files} == {"image/jpeg"}
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(said) == 1
    assert "one does without f1-0011, w40^48of64, w40" in said[0]


def test_without_its_codec_an_agent_takes_the_next_best(device: Any) -> None:
    result, _ = served(device, Reader(), agent(0, 1, codec=None))
    assert result.rung == CROP


def test_what_is_certified_with_rungs_that_are_cut_is_not_certified() -> None:
    whole = agent(0, codec=Codec())
    assert whole.on(ALL) is whole
    cut = whole.on(JPEG_ONLY)
    assert not cut.operating_point.certified
    assert "Not certified here" in cut.operating_point.note
    point = OperatingPoint(trade_off=None, rung=0, certified=True)
    fixed = agent(0, operating_point=point, fixed=0).on(JPEG_ONLY)
    assert (fixed.operating_point.rung, fixed.fixed) == (3, None)


def test_a_broken_codec_costs_bytes_and_no_answer(device: Any) -> None:
    codec = Codec()
    codec.broken = True
    result, client = served(device, Reader(), agent(0, codec=codec))
    assert (result.rung, result.fallback) == (REFERENCE, "engine")
    assert client.stats().failures["engine"] == 1


def test_a_service_that_refuses_a_format_is_sent_the_reference(device: Any) -> None:
    service = Reader()
    service.refuses = "image/webp"
    result, client = served(device, service, agent(1))
    assert (result.rung, result.fallback, result.calls) == (REFERENCE, "format", 2)
    assert client.stats().failures["format"] == 1


def test_a_spooled_picture_is_sent_in_any_format(device: Any) -> None:
    device.shelf.add(agent(0, codec=Codec()), current=True)
    client = device.client(device.config(backend=Reader(), loop=NEVER, spool=True))
    result = client.submit(photo(), "door").result(10)
    assert (result.rung, result.key) == (STREAM, "door")
    assert client.submit(photo(), "door").result(10) == result  # from the spool, as JSON


# Looks.


def test_a_look_tells_nothing_of_other_kinds_and_features_are_not_looked_at() -> None:
    looked: list[int] = []
    table = np.full((4, 4), 0.99)

    def look(rung: int) -> Look:
        looked.append(rung)
        return Look(table[rung], 0.3)

    agreement, size = np.array([0.7, 0.2, 0.6, 1.0]), np.array([0.1, 0.2, 0.3, 1.0])
    rung, probed = climb(agreement, size, 1.0, look, 4, None, (1, 0, 0, 0), (0,))
    assert rung == 0
    assert probed == ()
    rung, probed = climb(agreement, size, 10.0, look, 4, None, (1, 0, 0, 0), (0,))
    assert 0 not in probed


def test_an_agent_that_looks_never_looks_at_features(device: Any) -> None:
    looked: list[int] = []

    class Glass:
        def run(self, original: Any, candidate: Any, rung: int, size_ratio: float) -> Any:
            looked.append(rung)
            return np.array([0.9, 0.3, 0.3, 1.0], dtype=np.float32)

    point = OperatingPoint(trade_off=1.0, max_probes=4, certified=True)
    one = agent(0, 1, codec=Codec(), probe=Glass(), operating_point=point)
    result, _ = served(device, Reader(), one)
    assert result.rung == STREAM
    assert 0 not in looked


def test_a_cropped_encoding_is_compared_with_the_crop() -> None:
    compared: dict[int, Any] = {}

    class Glass:
        def run(self, original: Any, candidate: Any, rung: int, size_ratio: float) -> Any:
            compared[rung] = original, candidate
            return np.full(4, 0.2, dtype=np.float32)

    point = OperatingPoint(trade_off=1.0, max_probes=4)
    one = agent(1, 2, probe=Glass(), operating_point=point)
    # The middle is bright and what the service does not look at is dark.
    picture = Image.new("RGB", (400, 100))
    picture.paste((250, 250, 250), (150, 0, 250, 100))
    one.decide(picture, Packer(Picture(picture), ALL).candidate)
    assert set(compared) == {1, 2}
    assert compared[1][0].mean() == pytest.approx(250, abs=2)
    assert compared[1][1].mean() == pytest.approx(250, abs=4)
    assert compared[2][0].mean() == pytest.approx(250 / 4, abs=4)


@pytest.mark.parametrize(("at_least", "lasts"), [(0, False), (3_000, True)])
def test_features_earn_the_bytes_that_verifying_them_takes(at_least: int, lasts: bool) -> None:
    """Their pictures' references are never encoded, and what they weigh at least is credit."""
    allowance = Allowance(0.02, 1000, 1.0)
    for number in range(8_000):
        checked = number % 4 == 0
        uploaded, reference = (40_400, 40_000) if checked else (400, None)
        allowance.used(
            uploaded=uploaded, reference=reference, extra=0, steady=True, at_least=at_least
        )
    assert allowance.affords(steady=True) is lasts
