"""The served classifiers: pre-processing and names always, real weights where they are."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_sdk import backends, codec
from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend, Label
from edge_sdk.errors import BackendRejected, ImageError
from edge_sdk.ladder import REFERENCE
from model_store.errors import EnvironmentMissing, UsageError
from training.assets import find, photos
from training.cloud.convert import distinct_names
from training.cloud.local import LocalBackend, register_local
from training.cloud.models import SIDES, Classifier, open_classifier, preprocess


def picture(width: int = 64, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class Stub:
    name = "stub"
    version = "stub@1"

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        codec.load(jpeg)
        return (Label("cat", 0.75),)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    try:
        return open_classifier("efficientnet-lite0")
    except EnvironmentMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (15, 15), (1000, 20), (224, 224)])
def test_every_shape_becomes_the_input_of_the_model(size: tuple[int, int]) -> None:
    image = preprocess(picture(*size), 224)

    assert image.shape == (1, 3, 224, 224)
    assert image.dtype == np.float32
    assert image.flags["C_CONTIGUOUS"]


def test_the_model_sees_the_middle_square_at_its_own_scale() -> None:
    photo = Image.new("RGB", (512, 256), "red")
    photo.paste("blue", (256 - 112, 16, 256 + 112, 240))  # 224 of 256 pixels of the short side

    image = preprocess(photo, 224)

    inner = image[0, :, 2:-2, 2:-2]
    assert np.all(inner[2] == 1.0)  # (255 - 127) / 128
    assert np.all(inner[0] == -127 / 128)


def test_class_names_are_distinct() -> None:
    assert distinct_names(["crane", "dog", "crane"]) == ["crane (0)", "dog", "crane (2)"]


def test_an_unknown_model_is_named_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'efficientnet-lite0'\?"):
        open_classifier("efficientnet-lite-0")


def test_missing_weights_name_the_command_that_fetches_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ADACOMPRESS_ASSETS", str(tmp_path))

    with pytest.raises(EnvironmentMissing, match="python -m training assets"):
        open_classifier("efficientnet-lite1")


def test_the_local_backend_answers_with_the_models_version() -> None:
    backend = LocalBackend(Stub())
    jpeg = codec.encode(picture(), REFERENCE)

    answer = backend.recognize(jpeg)

    assert isinstance(backend, Backend)
    assert backend.name == "local:stub"
    assert answer.labels == (Label("cat", 0.75),)
    assert answer.wire_bytes == backend.wire_size(jpeg) == len(jpeg)
    assert answer.model_version == backend.model_version() == "stub@1"
    backend.close()


@pytest.mark.parametrize("cut", [0, 30, -200])
def test_the_local_backend_rejects_what_is_no_picture(cut: int) -> None:
    damaged = codec.encode(picture(), REFERENCE)[:cut]

    with pytest.raises(BackendRejected, match="local:stub"):
        LocalBackend(Stub()).recognize(damaged)


def test_the_local_scheme_is_registered_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_registered", {})
    register_local()

    with pytest.raises(UsageError, match="There is no model 'nothing'"):
        open_backend("local:nothing")


def test_the_real_model_knows_real_photos(classifier: Classifier) -> None:
    try:
        files = photos("objects")
    except EnvironmentMissing as missing:
        pytest.skip(str(missing))

    best = [classifier.answer(path.read_bytes())[0] for path in files]

    assert len({label.name for label in best}) > len(files) // 2
    assert np.median([label.score for label in best]) > 0.5


def test_an_answer_is_five_labels_best_first(classifier: Classifier) -> None:
    labels = classifier.answer(codec.encode(picture(), REFERENCE))

    scores = [label.score for label in labels]
    assert len({label.name for label in labels}) == 5
    assert scores == sorted(scores, reverse=True)
    assert 0.0 < sum(scores) <= 1.0


def test_threads_get_the_same_answer(classifier: Classifier) -> None:
    jpeg = codec.encode(picture(), REFERENCE)
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(classifier.answer, [jpeg] * 8))

    assert len(answers) == 1


def test_what_is_no_picture_is_an_image_error(classifier: Classifier) -> None:
    with pytest.raises(ImageError):
        classifier.answer(b"no picture")


def test_the_version_names_the_weights(classifier: Classifier) -> None:
    weights = find("efficientnet-lite0")

    assert classifier.version == f"efficientnet-lite0@{weights.stem.rpartition('-')[2]}"


@pytest.mark.usefixtures("classifier")
def test_serving_does_not_import_torch() -> None:
    code = (
        "import sys; from training.cloud.models import open_classifier;"
        "open_classifier('efficientnet-lite0'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", list(SIDES))
def test_the_converted_network_answers_as_the_original(name: str, tmp_path: Path) -> None:
    try:
        weights, code = find(name), find("efficientnet_lite_pytorch")
    except EnvironmentMissing as missing:
        pytest.skip(str(missing))
    torch = pytest.importorskip("torch")
    import onnxruntime

    from training.cloud.convert import _network, convert

    convert(name, weights, code, SIDES[name], tmp_path / "x.onnx")
    image = preprocess(picture(300, 200), SIDES[name])
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = _network(name, weights, code)(torch.from_numpy(image)).numpy()

    np.testing.assert_allclose(session.run(None, {"image": image})[0], wanted, atol=1e-3)
    assert sys.path.count(str(code)) == 0
