"""The service's side: what the tail says of a stream, and what is wrong with files and streams."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from edge_sdk.errors import EngineError, FeatureStreamError
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.featurecodec.tail import Tail, Whole
from model_store.errors import UsageError

MakeCodec = Callable[..., dict[str, bytes]]

COLOURS = {"red": (220, 30, 30), "cyan": (30, 220, 220), "yellow": (230, 230, 20)}


def written(files: dict[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module", params=["factorised", "context"])
def folder(
    request: pytest.FixtureRequest,
    make_codec: MakeCodec,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    return written(make_codec(kind=request.param), tmp_path_factory.mktemp("codec"))


@pytest.fixture(scope="module")
def device(folder: Path) -> FeatureCodec:
    return FeatureCodec.open(folder)


@pytest.fixture(scope="module")
def tail(folder: Path) -> Tail:
    return Tail.open(folder)


@pytest.fixture(scope="module")
def streams(device: FeatureCodec) -> dict[str, bytes]:
    pictures = {name: Image.new("RGB", (60, 40), colour) for name, colour in COLOURS.items()}
    return {
        name: device.encode(device.integers(picture), number)
        for number, (name, picture) in enumerate(pictures.items())
    }


def test_the_tail_names_what_the_picture_showed(tail: Tail, streams: dict[str, bytes]) -> None:
    assert {name: tail.answer(stream)[0].name for name, stream in streams.items()} == {
        name: name for name in COLOURS
    }


def test_a_batch_answers_each_and_tells_which_are_wrong(
    tail: Tail, streams: dict[str, bytes]
) -> None:
    first, *others = streams.values()

    answers = tail.answer_many([first, b"\xaf" + bytes(30), *others, b""])

    assert [isinstance(each, FeatureStreamError) for each in answers] == [0, 1, 0, 0, 1]
    assert [answers[0], answers[2], answers[3]] == [tail.answer(each) for each in streams.values()]
    with pytest.raises(FeatureStreamError):
        tail.answer(b"")
    assert tail.answer_many([]) == []


def test_the_whole_classifier_says_the_same(folder: Path, tail: Tail) -> None:
    device = FeatureCodec.open(folder)
    whole = Whole((folder / "classifier.onnx").read_bytes(), device.view)
    assert whole.names == tail.names
    for name, colour in COLOURS.items():
        pixels = device.view.pixels(Image.new("RGB", (60, 40), colour))
        assert whole.answer(pixels)[0].name == name


def test_the_viewer_shows_what_was_sent(tail: Tail, streams: dict[str, bytes]) -> None:
    seen = tail.show(streams["yellow"])

    assert (seen.shape, seen.dtype) == ((4, 4, 3), np.uint8)
    assert np.abs(seen.astype(int) - COLOURS["yellow"]).max() < 20


def test_a_codec_without_a_viewer_or_a_tail_says_so(
    make_codec: MakeCodec, streams: dict[str, bytes], tmp_path: Path
) -> None:
    folder = written(make_codec(), tmp_path)
    (folder / "viewer.onnx").unlink()
    tail, device = Tail.open(folder), FeatureCodec.open(folder)
    stream = device.encode(device.integers(Image.new("RGB", (9, 9))), 0)
    assert not tail.shows
    with pytest.raises(UsageError, match="no viewer"):
        tail.show(stream)
    (folder / "tail.onnx").unlink()
    with pytest.raises(UsageError, match=r"no tail\.onnx"):
        Tail.open(folder)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("tail.onnx", "classifier.onnx"),
        ("viewer.onnx", "encoder.onnx"),
        ("tail.onnx", "viewer.onnx"),
    ],
)
def test_a_graph_of_another_kind_is_refused(
    make_codec: MakeCodec, name: str, other: str, tmp_path: Path
) -> None:
    files = make_codec()
    folder = written({**files, name: files[other]}, tmp_path)
    with pytest.raises(EngineError):
        Tail.open(folder)


def test_a_tail_that_names_other_classes_than_it_has_is_refused(
    make_codec: MakeCodec, tmp_path: Path
) -> None:
    files = make_codec()
    model = onnx.load_model_from_string(files["tail.onnx"])
    onnx.helper.set_model_props(model, {"adacompress.names": json.dumps(["cat", "dog"])})
    folder = written({**files, "tail.onnx": model.SerializeToString()}, tmp_path)
    with pytest.raises(EngineError, match="names 2 classes"):
        Tail.open(folder)
    with pytest.raises(EngineError, match="names 2 classes"):
        Whole(_renamed(files["classifier.onnx"]), FeatureCodec.open(folder).view)


def test_the_number_of_pictures_has_to_be_open_but_needs_no_name(
    make_codec: MakeCodec, tmp_path: Path
) -> None:
    files = make_codec()
    for size, fits in ((None, True), (1, False)):
        model = onnx.load_model_from_string(files["tail.onnx"])
        for value in (*model.graph.input, *model.graph.output):
            first = value.type.tensor_type.shape.dim[0]
            first.Clear()
            if size is not None:
                first.dim_value = size
        folder = written({**files, "tail.onnx": model.SerializeToString()}, tmp_path)
        if fits:
            assert len(Tail.open(folder).names) == 6
            continue
        with pytest.raises(EngineError, match="open number"):
            Tail.open(folder)


def _renamed(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(model, {"adacompress.names": json.dumps(["cat", "dog"])})
    return bytes(model.SerializeToString())
