"""A codec's server side for TorchServe and Triton, and its device side in INT8 behind a gate."""

from __future__ import annotations

import base64
import io
import itertools
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from edge_sdk.agreement import Agreement
from edge_sdk.codec import encode
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.featurecodec.artefact import FILES
from edge_sdk.featurecodec.tail import Tail
from edge_sdk.ladder import REFERENCE
from edge_sdk.reading import load
from export.__main__ import main
from export.codec_archive import CODEC_REQUIREMENTS, CodecFiles, codec_archive
from export.codec_handler import HEADER, handle
from export.codec_int8 import with_int8
from model_store.errors import CorruptAgent, GateFailed, UsageError

MakeCodec = Callable[..., dict[str, bytes]]
MakeContext = Callable[..., Any]


def written(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def folder(make_codec: MakeCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(make_codec(), tmp_path_factory.mktemp("codec"))


@pytest.fixture(scope="module")
def unpacked(folder: Path, unpack: Callable[[bytes], Path]) -> Path:
    return unpack(codec_archive(CodecFiles.open(folder)))


@pytest.fixture(scope="module")
def device(folder: Path) -> FeatureCodec:
    return FeatureCodec.open(folder)


@pytest.fixture
def stream(device: FeatureCodec, photo: Image.Image) -> bytes:
    return device.encode(device.integers(photo), 1)


def test_the_archive_says_which_codec_it_reads(unpacked: Path, device: FeatureCodec) -> None:
    manifest = json.loads((unpacked / "MAR-INF" / "MANIFEST.json").read_text())
    assert manifest["model"] == {
        "modelName": "colours",
        "modelVersion": f"codec-{device.id}",
        "serializedFile": "tail.onnx",
        "handler": "handler.py",
        "requirementsFile": "requirements.txt",
    }
    for name in ("tail.onnx", "handler.py", "classifier.onnx", "entropy.npz", "codec.json"):
        assert (unpacked / name).is_file()
    assert (unpacked / "requirements.txt").read_text() == CODEC_REQUIREMENTS
    assert "constriction" in CODEC_REQUIREMENTS


def test_equal_codecs_make_equal_archives(folder: Path) -> None:
    assert codec_archive(CodecFiles.open(folder)) == codec_archive(CodecFiles.open(folder))


def test_streams_and_pictures_are_answered_at_one_address(
    folder: Path, unpacked: Path, stream: bytes, make_context: MakeContext
) -> None:
    red = encode(Image.new("RGB", (64, 48), (210, 40, 30)), REFERENCE)
    context = make_context(unpacked)
    assert handle(None, context) == []

    one, two = handle([{"body": bytearray(stream)}, {"data": red}], context)

    expected = Tail.open(folder).answer(stream)
    assert one == {label.name: label.score for label in expected}
    assert (next(iter(two)), len(two)) == ("red", 5)
    assert not context.states


@pytest.mark.parametrize(
    ("fields", "headers"),
    [({"view": b"1"}, {}), ({}, {HEADER.lower(): "1"}), ({"view": "yes"}, {})],
)
def test_what_was_sent_is_shown_on_request(
    fields: dict[str, Any],
    headers: dict[str, str],
    unpacked: Path,
    folder: Path,
    stream: bytes,
    make_context: MakeContext,
) -> None:
    (answer,) = handle([{"data": stream, **fields}], make_context(unpacked, headers))

    picture = np.asarray(load(base64.b64decode(answer["picture"])).image)
    assert np.array_equal(picture, Tail.open(folder).show(stream))
    (answer,) = handle(
        [{"data": encode(Image.new("RGB", (9, 9)), REFERENCE), "view": "1"}], make_context(unpacked)
    )
    assert {*answer} == {"scores"}


@pytest.mark.parametrize("row", [{"body": b"no picture"}, {}, {"body": {"json": 1}},
                                 {"body": b"\xaf" + bytes(40)}])  # fmt: skip
def test_what_is_neither_is_told_so_and_the_others_are_answered(
    row: dict[str, Any], unpacked: Path, stream: bytes, make_context: MakeContext
) -> None:
    context = make_context(unpacked)
    good, bad = handle([{"body": stream}, row], context)
    assert len(good) == 5
    assert (bad["code"], bad["type"]) in ((400, "ImageError"), (400, "FeatureStreamError"))
    assert context.states == [(400, "not a picture", 1)]


def test_without_the_whole_classifier_a_picture_is_refused_with_the_reason(
    make_codec: MakeCodec, tmp_path: Path, make_context: MakeContext
) -> None:
    files = make_codec()
    whole = files.pop("classifier.onnx")
    bare = CodecFiles.open(written(files, tmp_path / "bare"))
    with zipfile.ZipFile(io.BytesIO(codec_archive(bare))) as mar:
        mar.extractall(tmp_path / "out")
    (answer,) = handle([{"body": b"\xff\xd8"}], make_context(tmp_path / "out"))
    assert "without the whole" in answer["message"]
    (tmp_path / "mine.onnx").write_bytes(whole)
    codec = CodecFiles.open(tmp_path / "bare", tmp_path / "mine.onnx")
    assert codec.server()["classifier.onnx"] == whole


def test_a_classifier_of_other_classes_is_refused(
    make_codec: MakeCodec, folder: Path, tmp_path: Path
) -> None:
    model = onnx.load_model_from_string(make_codec()["classifier.onnx"])
    onnx.helper.set_model_props(model, {"adacompress.names": json.dumps([*"abcdef"])})
    (tmp_path / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="other classes"):
        CodecFiles.open(folder, tmp_path / "other.onnx")
    with pytest.raises(UsageError, match="cannot be read"):
        CodecFiles.open(folder, tmp_path / "nowhere.onnx")


def test_the_archive_needs_nothing_of_us_installed(
    unpacked: Path, stream: bytes, make_context: MakeContext
) -> None:
    (unpacked / "photo.af").write_bytes(stream)
    code = (
        "import sys; folder = sys.argv[1]; sys.path.insert(0, folder)\n"
        "from types import SimpleNamespace as Space\n"
        "import handler, edge_sdk, model_store, json\n"
        "assert all(m.__file__.startswith(folder) for m in (handler, edge_sdk, model_store))\n"
        "context = Space(system_properties={'model_dir': folder},"
        " get_all_request_header=lambda _: {})\n"
        "row = {'body': open(folder + '/photo.af', 'rb').read()}\n"
        "print(json.dumps(handler.handle([row], context)[0]))\n"
        "assert not {'torch', 'onnx', 'export', 'requests'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(unpacked)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == handle([{"body": stream}], make_context(unpacked))[0]


# --- the command ------------------------------------------------------------------------------


def test_the_command_writes_both_halves_and_the_packages(
    folder: Path, device: FeatureCodec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--codec", str(folder), "--out", str(out), "--onnx", "--mar", "--triton"]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"--backend torchserve+http://HOST:8080/colours/codec-{device.id}" in said
    assert FeatureCodec.open(out / "device").id == Tail.open(out / "server").id == device.id
    assert not (out / "device" / "tail.onnx").exists()
    assert (out / "colours.mar").read_bytes() == codec_archive(CodecFiles.open(folder))
    config = (out / "triton" / "colours-tail" / "config.pbtxt").read_text()
    assert 'name: "integers" data_type: TYPE_INT8 dims: [ -1, 3, 4, 4 ]' in config
    assert {path.name for path in (out / "triton").iterdir()} == {
        "colours",
        "colours-tail",
        "colours-viewer",
    }
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["codec"]) == (True, device.id)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "What is to be made"),
        (["--mar", "--card"], "--card: for agents only"),
        (["--onnx", "--store", "agents", "--trt"], "--store, --trt: for agents only"),
        (["--int8"], "needs photos"),
        (["--onnx", "--calibration", "photos"], "--calibration is for --int8"),
    ],
)
def test_options_that_make_no_sense_are_told(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--codec", str(folder), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_no_codec_and_a_damaged_one_have_their_exit_codes(
    make_codec: MakeCodec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--codec", str(tmp_path), "--mar"]) == 2
    damaged = written({**make_codec(), "entropy.npz": b"nothing"}, tmp_path / "codec")
    assert main(["--codec", str(damaged), "--mar"]) == CorruptAgent.exit_code
    assert "other files" in capsys.readouterr().err
    assert main(["--agent", "current", "--mar"]) == 2
    assert "--store" in capsys.readouterr().err


def test_a_tail_that_is_not_open_in_its_number_is_refused(
    make_codec: MakeCodec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_codec()
    model = onnx.load_model_from_string(files["tail.onnx"])
    graph, helper = model.graph, onnx.helper
    place = next(i for i, node in enumerate(graph.node) if "features" in node.input)
    graph.node[place].input[0] = "one"
    graph.node.insert(place, helper.make_node("Reshape", ["features", "shape"], ["one"]))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 3, 4, 4]), "shape"))
    folder = written({**files, "tail.onnx": model.SerializeToString()}, tmp_path / "codec")
    assert main(["--codec", str(folder), "--mar"]) == 5
    assert "tail failed" in capsys.readouterr().err


# --- INT8 -------------------------------------------------------------------------------------


def views(count: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (count, 1, 1, 3))
    grain = rng.integers(-20, 21, (count, 32, 32, 3))
    return [*np.clip(colours + grain, 0, 255).astype(np.uint8)]


def ticking(fp32: float, int8: float) -> Callable[[], float]:
    """Return a clock by which the two device sides, run in turns, take so long."""
    steps = itertools.cycle([0.0, fp32, 0.0, int8])
    return itertools.accumulate(steps).__next__


def test_int8_is_published_if_its_integers_get_the_same_answers(folder: Path) -> None:
    made = with_int8(CodecFiles.open(folder), views(), clock=ticking(0.03, 0.01))

    assert made.facts["times_faster"] == 3.0
    assert made.facts["agreement"] == 1.0
    assert made.facts["answers"] == 6 * 3
    quick = FeatureCodec.open({**_roles(made.codec.device())})
    exact = FeatureCodec.open(folder)
    assert quick.id == exact.id
    (view, *_) = views()
    stream = quick.encode(quick.of_pixels(view), 2)
    assert np.array_equal(exact.decode(stream)[1], quick.of_pixels(view)[2])


def _roles(files: dict[str, bytes]) -> dict[str, bytes]:
    return {role: files[name] for role, name in FILES.items() if name in files}


def test_int8_that_gains_nothing_or_was_not_proved_is_refused(folder: Path) -> None:
    codec = CodecFiles.open(folder)
    with pytest.raises(GateFailed, match=r"1\.00 times as fast"):
        with_int8(codec, views(), clock=ticking(0.01, 0.01))
    with pytest.raises(GateFailed, match="3 photo"):
        with_int8(codec, views(3))


def test_int8_is_proved_on_photos_that_took_no_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, seen = CodecFiles.open(folder), []

    def compared(*pair: Any) -> Agreement:
        seen.append(pair)
        # The search's photos come first, all of them in INT8: 6 of 3 rates.
        return Agreement(*[float(len(seen) <= 6 * 3)] * 4)

    monkeypatch.setattr("export.codec_int8.compare", compared)
    with pytest.raises(GateFailed, match=r"0\.0% of 18 answers"):
        with_int8(codec, views(), clock=ticking(0.03, 0.01))
    assert len(seen) == 2 * 6 * 3


def test_int8_that_changes_answers_is_refused_with_its_exit_code(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "photos").mkdir()
    for number, view in enumerate(views(8)):
        Image.fromarray(view).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.setattr("export.codec_int8.MIN_SAME", 1.01)
    out = tmp_path / "out"
    code = main(
        ["--codec", str(folder), "--int8", "--calibration", str(tmp_path / "photos"),
         "--out", str(out), "--json"]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 3
    assert "INT8 is refused" in said.err
    assert (json.loads(said.out)["ok"], json.loads(said.out)["int8"]) == (False, None)
    assert not (out / "device" / "encoder-int8.onnx").exists()
    assert FeatureCodec.open(out / "device").id == FeatureCodec.open(folder).id
