"""The served models: errors always, answers where the real weights are installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_sdk import backends, codec, reading
from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend, Box, Label
from edge_sdk.errors import BackendRejected, ImageError
from edge_sdk.ladder import REFERENCE
from model_store.errors import EnvironmentMissing, UsageError
from model_store.files import sha256_file
from training.assets import EXTRA_FILES, find, folder, photos
from training.cloud.convert import build, convert, distinct_names
from training.cloud.local import LocalBackend, register_local
from training.cloud.models import OnnxModel, open_model
from training.cloud.runtime import Runtime
from training.cloud.zoo import MODELS

Open = Callable[[str], OnnxModel]


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def jpeg(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    return codec.encode(picture(width, height, seed), REFERENCE)


class Stub:
    name = "stub"
    version = "stub@1"

    def __init__(self, *, boxes: bool = False) -> None:
        self.boxes = boxes

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        reading.load(jpeg)
        return (Label("cat", 0.75, Box(1.0, 2.0, 3.0, 4.0) if self.boxes else None),)

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        return [self.answer(each) for each in jpegs]


@pytest.fixture(scope="module")
def opened() -> Open:
    """Open a model once; the test is skipped where its weights are not installed."""
    ready: dict[str, OnnxModel] = {}

    def open_once(name: str) -> OnnxModel:
        if name not in ready:
            try:
                ready[name] = open_model(name)
            except EnvironmentMissing as missing:
                pytest.skip(str(missing))
        return ready[name]

    return open_once


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    """Real photos of single objects, by the file name's stem."""
    try:
        return {path.stem: path.read_bytes() for path in photos("objects")}
    except EnvironmentMissing as missing:
        pytest.skip(str(missing))


# --- without weights --------------------------------------------------------------------------


def test_class_names_are_distinct() -> None:
    assert distinct_names(["crane", "dog", "crane"]) == ["crane (0)", "dog", "crane (2)"]


def test_an_unknown_model_is_named_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'efficientnet-lite0'\?"):
        open_model("efficientnet-lite-0")


@pytest.mark.parametrize("name", MODELS)
def test_missing_weights_name_the_command_that_fetches_them(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADACOMPRESS_ASSETS", str(tmp_path))
    command = "python -m training assets" + (" --all" if name in EXTRA_FILES else "")

    with pytest.raises(EnvironmentMissing, match=f"fetch it with `{command}`"):
        open_model(name)


def test_h5py_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)  # what import takes for "not there"

    with pytest.raises(EnvironmentMissing, match=r"'dog-breeds'.*pip install h5py"):
        build("dog-breeds", tmp_path / "weights.h5")


# --- the backend ------------------------------------------------------------------------------


def test_the_local_backend_answers_with_the_models_version() -> None:
    backend = LocalBackend(Stub())
    upload = jpeg(64, 48)

    answer = backend.recognize(upload)

    assert isinstance(backend, Backend)
    assert backend.name == "local:stub"
    assert answer.labels == (Label("cat", 0.75),)
    assert answer.wire_bytes == backend.wire_size(upload) == len(upload)
    assert answer.model_version == backend.model_version() == "stub@1"
    assert answer.size == (64, 48)
    backend.close()


def test_the_local_backend_declares_what_its_model_can() -> None:
    classifier, detector = LocalBackend(Stub()), LocalBackend(Stub(boxes=True))

    assert not classifier.capabilities.boxes
    assert detector.capabilities.boxes
    assert detector.capabilities.tells_version
    assert detector.capabilities.price_usd == 0.0
    assert detector.recognize(jpeg()).labels[0].box == Box(1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize("cut", [0, 30, -200])
def test_the_local_backend_rejects_what_is_no_picture(cut: int) -> None:
    with pytest.raises(BackendRejected, match="local:stub"):
        LocalBackend(Stub()).recognize(jpeg()[:cut])


def test_the_local_scheme_is_registered_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_registered", {})
    register_local()

    with pytest.raises(UsageError, match="There is no model 'nothing'"):
        open_backend("local:nothing")


# --- every model, with its weights ------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_an_answer_does_not_depend_on_its_batch(
    name: str, opened: Open, objects: dict[str, bytes]
) -> None:
    model = opened(name)
    files = list(objects.values())[:7]

    alone = [model.answer(file) for file in files]

    assert model.answer_many(files) == alone
    assert model.answer_many(files[::-1])[::-1] == alone
    assert model.answer_many(files[:2] + files[:3]) == alone[:2] + alone[:3]


@pytest.mark.parametrize("name", MODELS)
def test_threads_get_the_same_answer(name: str, opened: Open, objects: dict[str, bytes]) -> None:
    model, file = opened(name), next(iter(objects.values()))
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(model.answer, [file] * 8))

    assert len(answers) == 1


@pytest.mark.parametrize("name", MODELS)
def test_the_version_names_the_weights(name: str, opened: Open) -> None:
    model = opened(name)

    assert model.name == name
    assert model.version == f"{name}@{sha256_file(find(name))[:8]}"


@pytest.mark.parametrize("name", MODELS)
def test_the_converted_network_answers_as_the_original(name: str, tmp_path: Path) -> None:
    import torch

    try:
        weights = find(name)
        network, names = build(name, weights)
    except EnvironmentMissing as missing:
        pytest.skip(str(missing))
    convert(name, weights, tmp_path / "x.onnx")
    runtime, own = Runtime(tmp_path / "x.onnx"), MODELS[name].input
    pixels = np.stack([own.pixels(picture(300, 200, seed)) for seed in range(3)])
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels))

    outputs = wanted if MODELS[name].boxes else [wanted]
    for one, other in zip(runtime.run(pixels), outputs, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-3)
    assert runtime.names == tuple(names)
    assert str(folder()) not in sys.path  # a network's code was imported from there


def test_serving_does_not_import_torch(opened: Open) -> None:
    opened("efficientnet-lite0")  # converted by now
    code = (
        "import sys; from training.cloud.models import open_model;"
        "open_model('efficientnet-lite0'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_stands_in_its_pictures_place(opened: Open) -> None:
    model, good = opened("efficientnet-lite0"), jpeg()

    first, second, third = model.answer_many([b"no picture", good, good[:-200]])

    assert isinstance(first, ImageError)
    assert second == model.answer(good)
    assert isinstance(third, ImageError)
    assert model.answer_many([]) == []
    with pytest.raises(ImageError):
        model.answer(b"no picture")


# --- what they see ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODELS if not MODELS[name].boxes])
def test_a_classifiers_answer_is_five_labels_best_first(name: str, opened: Open) -> None:
    labels = opened(name).answer(jpeg())

    scores = [label.score for label in labels]
    assert len({label.name for label in labels}) == 5
    assert scores == sorted(scores, reverse=True)
    assert 0.0 < sum(scores) <= 1.0
    assert all(label.box is None for label in labels)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "mobilenet-v2", "squeezenet"])
def test_the_classifiers_know_real_photos(
    name: str, opened: Open, objects: dict[str, bytes]
) -> None:
    model = opened(name)

    known = {stem: {label.name for label in model.answer(objects[stem])[:2]} for stem in objects}

    assert "bull mastiff" in known["imagenet_00_243"]
    assert "folding chair" in known["imagenet_01_559"]
    assert "goose" in known["imagenet_15_99"]
    assert len(set.union(*known.values())) > len(objects)


def test_the_dogs_are_a_label_space_of_their_own(opened: Open, objects: dict[str, bytes]) -> None:
    best = opened("dog-breeds").answer(objects["imagenet_00_243"])[0]

    assert best.name == "bull mastiff"
    assert best.score > 0.9


def test_the_detector_says_where(opened: Open, objects: dict[str, bytes]) -> None:
    detector = opened("ssd-mobilenet-v2")

    (car, *_) = detector.answer(objects["imagenet_07_609"])
    birds = [label for label in detector.answer(objects["imagenet_15_99"]) if label.score > 0.85]

    assert detector.boxes
    assert (car.name, car.score > 0.9) == ("car", True)
    assert car.box == pytest.approx((44, 151, 465, 228), abs=3)
    assert [label.name for label in birds] == ["bird"] * 3


def test_boxes_are_in_pixels_of_the_uploaded_picture(
    opened: Open, objects: dict[str, bytes]
) -> None:
    backend = LocalBackend(opened("ssd-mobilenet-v2"))
    image = reading.load(objects["imagenet_07_609"]).image
    half = codec.encode(image.resize((image.width // 2, image.height // 2)), REFERENCE)

    whole = backend.recognize(objects["imagenet_07_609"])
    small = backend.recognize(half)

    assert small.size == (image.width // 2, image.height // 2)
    assert small.at(image.size).labels[0].box == pytest.approx(whole.labels[0].box, abs=8)
    for label in whole.labels:
        assert label.box is not None
        assert min(label.box) >= 0
        assert label.box.left + label.box.width <= image.width + 1e-3
        assert label.box.top + label.box.height <= image.height + 1e-3
