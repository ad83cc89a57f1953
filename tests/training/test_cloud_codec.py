"""Feature streams on the local cloud: the device encodes, HTTP carries, the tail answers."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from PIL import Image

from edge_sdk.backends import open_backend
from edge_sdk.codec import encode
from edge_sdk.errors import BackendProtocol, BackendRejected
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.featurecodec.tail import Tail
from edge_sdk.ladder import REFERENCE
from model_store.errors import UsageError
from training.cloud import command
from training.cloud.coded import open_codec
from training.cloud.lineup import Renamed
from training.cloud.local import LocalBackend, register_local
from training.cloud.models import OnnxModel, codecs_of
from training.cloud.server import CloudServer
from training.cloud.zoo import Entry

MakeCodec = Callable[..., dict[str, bytes]]


def written(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def folder(make_codec: MakeCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(make_codec(kind="context"), tmp_path_factory.mktemp("codec"))


@pytest.fixture(scope="module")
def device(folder: Path) -> FeatureCodec:
    return FeatureCodec.open(folder)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[CloudServer]:
    with CloudServer(open_codec(folder)) as server:
        yield server


@pytest.fixture
def red() -> Image.Image:
    return Image.new("RGB", (64, 48), (210, 40, 30))


def test_a_stream_gets_over_http_what_the_tail_says_of_it(
    server: CloudServer, folder: Path, device: FeatureCodec, photo: Image.Image
) -> None:
    backend, tail = open_backend(server.spec_of("torchserve")), Tail.open(folder)
    integers = device.integers(photo)
    assert backend.capabilities.codecs == (device.id,)
    for rate in range(device.rates):
        stream = device.encode(integers, rate)

        answer = backend.recognize(stream)

        assert [label.name for label in answer.labels] == [one.name for one in tail.answer(stream)]
        assert answer.wire_bytes == len(stream)
        assert answer.size is None
    backend.close()


def test_a_picture_gets_the_same_names_under_the_same_version(
    server: CloudServer, device: FeatureCodec, red: Image.Image
) -> None:
    backend = open_backend(server.spec_of("torchserve"))

    reference = backend.recognize(encode(red, REFERENCE))
    stream = backend.recognize(device.encode(device.integers(red), 2))

    assert reference.labels[0].name == stream.labels[0].name == "red"
    assert reference.model_version == stream.model_version == "colours@1"
    backend.close()


def test_another_codecs_stream_is_refused_before_it_is_sent(
    server: CloudServer, make_codec: MakeCodec, red: Image.Image, tmp_path: Path
) -> None:
    other = FeatureCodec.open(written(make_codec(seed=1), tmp_path / "other"))
    backend, before = open_backend(server.spec_of("torchserve")), server.counts()
    with pytest.raises(BackendRejected, match="codec"):
        backend.recognize(other.encode(other.integers(red), 0))
    assert server.counts() == before
    backend.close()


def test_a_server_refuses_a_stream_that_is_damaged_and_a_version_that_is_not_there(
    server: CloudServer, device: FeatureCodec, red: Image.Image
) -> None:
    spec, stream = server.spec_of("torchserve"), device.encode(device.integers(red), 0)
    backend = open_backend(spec)
    with pytest.raises(BackendRejected):
        backend.recognize(stream[:-1] + bytes([stream[-1] ^ 1]))
    backend.close()
    elsewhere = open_backend(spec.replace(device.id, "0" * 16))
    with pytest.raises(BackendProtocol, match="no model of that server"):
        elsewhere.recognize(encode(red, REFERENCE))
    elsewhere.close()


@pytest.mark.parametrize("dialect", ["baidu", "facepp", "google", "azure", "rekognition"])
def test_other_services_refuse_a_stream_in_a_sentence_and_send_nothing(
    server: CloudServer, device: FeatureCodec, dialect: str, red: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("BAIDU_API_KEY", "BAIDU_SECRET_KEY", "FACEPP_API_KEY", "FACEPP_API_SECRET",
                 "AZURE_KEY"):  # fmt: skip
        monkeypatch.setenv(f"ADACOMPRESS_{name}", "key")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(name, "key")
    backend, before = open_backend(server.spec_of(dialect)), server.counts()
    with pytest.raises(BackendRejected, match=r"takes pictures, .* features"):
        backend.recognize(device.encode(device.integers(red), 0))
    assert server.counts() == before
    assert backend.capabilities.codecs == ()
    backend.close()


def test_in_this_process_a_folder_stands_where_a_model_does(
    folder: Path, device: FeatureCodec, red: Image.Image
) -> None:
    register_local()
    backend = open_backend(f"local:{folder}")

    assert (backend.name, backend.capabilities.codecs) == ("local:colours", (device.id,))
    assert backend.recognize(device.encode(device.integers(red), 1)).labels[0].name == "red"
    assert backend.recognize(encode(red, REFERENCE)).labels[0].name == "red"
    with pytest.raises(BackendRejected):
        backend.recognize(device.encode(device.integers(red), 1)[:-1])


def test_a_renamed_model_reads_the_same_codecs(
    folder: Path, device: FeatureCodec, red: Image.Image
) -> None:
    model = Renamed(open_codec(folder))
    backend = LocalBackend(model)
    assert codecs_of(model) == (device.id,)
    (first, *_) = backend.recognize(device.encode(device.integers(red), 1)).labels
    assert first.name == "red (renamed)"


def test_a_batch_of_both_is_answered_in_order(
    folder: Path, device: FeatureCodec, red: Image.Image
) -> None:
    model, jpeg = open_codec(folder), encode(red, REFERENCE)
    stream = device.encode(device.integers(red), 2)
    assert model.answer_many([jpeg, stream, jpeg]) == [
        model.answer(jpeg),
        model.answer(stream),
        model.answer(jpeg),
    ]


def test_a_codec_without_its_classifier_is_told_what_is_missing(
    make_codec: MakeCodec, tmp_path: Path
) -> None:
    folder = written(make_codec(document={"classifier": "mine"}), tmp_path / "codec")
    (folder / "classifier.onnx").unlink()
    with pytest.raises(UsageError, match=r"'mine'.*classifier\.onnx"):
        open_codec(folder)


def test_a_model_of_the_zoo_needs_no_file_but_the_same_weights(
    make_codec: MakeCodec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = OnnxModel(
        "squeezenet", "squeezenet@1", Entry(input=FeatureCodec.open(folder).view),
        folder / "classifier.onnx",
    )  # fmt: skip
    monkeypatch.setattr("training.cloud.coded.open_model", lambda name: zoo)
    for version, fits in ((None, True), ("squeezenet@1", True), ("squeezenet@2", False)):
        stated = {"classifier": {"name": "squeezenet", "version": version}}
        bare = written(make_codec(document=stated), tmp_path / "codec")
        (bare / "classifier.onnx").unlink()
        if fits:
            assert open_codec(bare).version == "squeezenet@1"
            continue
        with pytest.raises(UsageError, match=r"for squeezenet@2, .* squeezenet@1"):
            open_codec(bare)


def test_a_classifier_with_other_names_is_refused(make_codec: MakeCodec, tmp_path: Path) -> None:
    files = make_codec()
    model = onnx.load_model_from_string(files["classifier.onnx"])
    names = json.dumps(list("abcdef"))
    onnx.helper.set_model_props(model, {"adacompress.names": names})
    files["classifier.onnx"] = model.SerializeToString()
    with pytest.raises(UsageError, match="other"):
        open_codec(written(files, tmp_path / "codec"))


def test_the_command_serves_a_codec_and_no_other_model_with_it(folder: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["cloud", "--codec", str(folder)])
    assert codecs_of(command._server(arguments).model) == (FeatureCodec.open(folder).id,)
    wrong = parser.parse_args(["cloud", "--codec", str(folder), "--model", "squeezenet"])
    with pytest.raises(UsageError, match="leave --model out"):
        command._server(wrong)
    with pytest.raises(UsageError, match=r"no codec\.json"):
        command._server(parser.parse_args(["cloud", "--codec", str(folder / "nothing")]))


def test_a_png_of_the_view_is_answered_too(folder: Path, red: Image.Image) -> None:
    buffer = io.BytesIO()
    red.save(buffer, "PNG")
    assert open_codec(folder).answer(buffer.getvalue())[0].name == "red"
