"""``training codec`` from photos to files and figures, and its clear words for bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edge_sdk import reading
from edge_sdk.classes import NAMES_KEY
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.featurecodec.tail import Tail
from model_store.errors import UsageError
from training.__main__ import main
from training.cloud.coded import open_codec
from training.codec.classifier import open_classifier
from training.codec.prefix import parse_prefix, prefix_of
from training.codec.torfason import parse

SIDE, CLASSES = 32, 7


def _classifier(
    path: Path, *, pixels: bool = True, batch: int | str = "n", classes: int = CLASSES
) -> Path:
    """A convolutional classifier of 32 x 32 pictures; with pixels inside, or for float planes."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    weights = {
        "w1": rng.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.3, (6, 8, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (12, 6, 3, 3)).astype(np.float32),
        "fc": rng.normal(0, 1, (12, classes)).astype(np.float32),
        "unit": np.array([64.0], dtype=np.float32),
    }
    first = [
        node("Transpose", ["picture"], ["planes"], perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], ["numbers"], to=TensorProto.FLOAT),
        node("Div", ["numbers", "unit"], ["x"]),
    ]
    nodes = [
        *(first if pixels else ()),
        node("Conv", ["x", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["middle"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["middle", "w3"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["d"]),
        node("GlobalAveragePool", ["d"], ["e"]),
        node("Flatten", ["e"], ["f"]),
        node("MatMul", ["f", "fc"], ["logits"]),
    ]
    given = (
        ("picture", TensorProto.UINT8, [batch, SIDE, SIDE, 3])
        if pixels
        else ("x", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])
    )
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {NAMES_KEY: json.dumps([f"n{i}" for i in range(classes)])})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(50):
        coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def run_codec(tmp_path: Path, photos: Path) -> Callable[..., int]:
    def run(*extra: str, classifier: Path | None = None) -> int:
        path = classifier or _classifier(tmp_path / "mine.onnx")
        arguments = ["--classifier", str(path), "--images", str(photos)]
        return main(["codec", *arguments, "--run", str(tmp_path / "run"), *extra])

    return run


QUICK = ("--steps", "3", "--rates", "2", "--cut", "middle", "--no-viewer")


@pytest.mark.parametrize("entropy", ["context", "factorised"])
def test_a_codec_for_an_own_file_comes_out_and_answers(
    run_codec: Callable[..., int],
    tmp_path: Path,
    photos: Path,
    entropy: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_codec(*QUICK, "--entropy", entropy, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "adacompress.codec-report/1"
    assert report["photos"]["train"]["photos"] == 30
    assert set(report["curves"]) >= {"features", "JPEG of the full frame", "WebP of the full frame"}
    assert report["device"]["macs"] > 0
    folder = tmp_path / "run" / "codec"
    device, service = FeatureCodec.open(folder), open_codec(folder)
    image = reading.load(photos / "00.png").image
    stream = device.encode(device.integers(image), 1)
    labels = service.answer(stream)
    assert {label.name for label in labels} <= {f"n{i}" for i in range(CLASSES)}
    document = json.loads((folder / "codec.json").read_text())
    assert document["cut"] == "middle"
    assert document["entropy"] == entropy
    assert [one["n"] for one in document["calibration"]] == [20, 20]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "a feature codec" in page
    assert "<svg" in page


def test_the_same_seed_gives_the_same_codec(run_codec: Callable[..., int], tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        assert run_codec(*QUICK, "--seed", "5") == 0
        ids.append(json.loads((tmp_path / "run" / "codec" / "codec.json").read_text())["id"])
    assert ids[0] == ids[1]


def test_a_float_input_is_brought_to_pixels_a_tail_learns_and_a_viewer_shows(
    run_codec: Callable[..., int], tmp_path: Path, photos: Path
) -> None:
    path = _classifier(tmp_path / "planes.onnx", pixels=False)
    units = ("--mean", "0", "--deviation", "64", "--view", "32/36,bicubic")
    quick = [one for one in QUICK if one != "--no-viewer"]
    assert run_codec(*quick, "--fine-tune-tail", *units, classifier=path) == 0
    folder = tmp_path / "run" / "codec"
    device, tail = FeatureCodec.open(folder), Tail.open(folder)
    assert device.view.resized == 36
    integers = device.integers(reading.load(photos / "01.png").image)
    assert tail.show(device.encode(integers, 0)).ndim == 3
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "What is sent, made visible" in page
    assert page.count("what the classifier sees of a photo") == 3


def test_masks_make_a_segmentation_head(
    run_codec: Callable[..., int], tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    assert run_codec(*QUICK, "--masks", str(masks)) == 2
    assert "There is no mask" in capsys.readouterr().err
    for photo in photos.iterdir():
        dark = np.asarray(Image.open(photo).convert("L")) < 128
        Image.fromarray(dark.astype(np.uint8)).save(masks / photo.name)
    assert run_codec(*QUICK, "--masks", str(masks)) == 0
    assert "segmentation, mean IoU" in capsys.readouterr().out
    assert (tmp_path / "run" / "codec" / "segments.onnx").is_file()


@pytest.mark.slow
def test_torfason_s_architecture_is_a_codec_of_one_rate(
    run_codec: Callable[..., int], tmp_path: Path, photos: Path
) -> None:
    architecture = ("--architecture", "torfason-28x28x2:cResNet-39")
    assert run_codec("--steps", "1", *architecture) == 0
    folder = tmp_path / "run" / "codec"
    device, tail = FeatureCodec.open(folder), Tail.open(folder)
    integers = device.integers(reading.load(photos / "01.png").image)
    assert integers.shape == (1, 2, 4, 4)
    stream = device.encode(integers, 0)
    assert len(tail.answer(stream)) == 5
    assert tail.show(stream).shape == (SIDE, SIDE, 3)
    with pytest.raises(UsageError, match="torfason-28x28xC"):
        parse("resnet")


def test_a_cut_that_is_not_there_is_named_with_those_that_are(
    run_codec: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_codec("--cut", "midle") == 2
    said = capsys.readouterr().err
    assert "cannot be cut at 'midle'" in said
    assert "Did you mean 'middle'?" in said
    assert "6x8x8" in said


def test_the_default_cut_is_narrow_and_near_the_middle(tmp_path: Path) -> None:
    classifier = open_classifier(str(_classifier(tmp_path / "mine.onnx")))
    assert classifier.at(None).place.name == "middle"


def test_too_few_photos(
    run_codec: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    Image.new("RGB", (40, 40)).save(few / "one.png")
    assert run_codec("--images", str(few)) == 2
    assert "1 photo(s) are too few" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"batch": 1}, "two pictures"),
        ({"classes": 1}, "classifier's is"),
    ],
)
def test_what_is_no_classifier(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    path = _classifier(tmp_path / "mine.onnx", **changes)
    if changes.get("batch"):  # as exporters fix it: in a shape inside the graph
        model = onnx.load(path)
        flat = next(node for node in model.graph.node if node.op_type == "Flatten")
        flat.op_type = "Reshape"
        flat.input.append("fixed")
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 12]), "fixed"))
        onnx.save(model, path)
    with pytest.raises(UsageError, match=why):
        open_classifier(str(path))


def test_pixels_of_a_float_input_must_be_told(tmp_path: Path) -> None:
    path = _classifier(tmp_path / "planes.onnx", pixels=False)
    with pytest.raises(UsageError, match="--mean and --deviation"):
        open_classifier(str(path))


def test_names_that_are_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no classifier 'nothing'"):
        open_classifier("nothing")
    with pytest.raises(UsageError, match="finds objects"):
        open_classifier("ssd-mobilenet-v2")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UsageError, match="no ONNX model"):
        open_classifier(str(tmp_path / "text.onnx"))


@pytest.mark.parametrize("text", ["mine", "own:3", "mobilenetv2:99", "mobilenetv2:x"])
def test_prefixes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="'own', 'mobilenetv2'"):
        parse_prefix(text)


def test_a_generic_prefix_whose_maps_do_not_fit(tmp_path: Path) -> None:
    cut = open_classifier(str(_classifier(tmp_path / "mine.onnx"))).at("middle")
    with pytest.raises(UsageError, match="are not 8 x 8"):
        prefix_of("mobilenetv2:12", cut)


@pytest.mark.parametrize("text", ["224:256", "224/256,lanczos", "x/256", "256/224"])
def test_views_that_are_none(run_codec: Callable[..., int], text: str) -> None:
    with pytest.raises(SystemExit):
        run_codec("--view", text)
