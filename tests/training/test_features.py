from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from edge_sdk.codec import encode
from edge_sdk.errors import ImageError
from edge_sdk.ladder import REFERENCE, Rung
from edge_sdk.preprocess import to_input
from edge_sdk.reading import load
from export.network import CONFIDENCE, Prefix
from model_store.errors import EnvironmentMissing, UsageError
from training import assets
from training.learn import features as module
from training.learn.compute import CUDA_PROVIDER
from training.learn.features import KEEP, extract, extract_looks, load_prefix
from training.photos import View, views


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[View]:
    """More views than inputs are kept, and than fit into one batch."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = []
    for number in range(5):
        paths.append(folder / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(paths[-1])
    return views(paths, 11, long_side=48, seed=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- with a prefix that needs no weights ------------------------------------------------------


def test_every_view_gets_a_row_and_some_keep_their_input(stand_in: Any, photos: list[View]) -> None:
    found = extract(stand_in, photos, rng=rng())
    assert found.values.shape == (55, 12)
    assert found.inputs.shape == (KEEP, 16, 16, 3)
    assert (found.values.dtype.name, found.inputs.dtype.name) == ("float32", "uint8")
    assert len(set(found.rows.tolist())) == KEEP
    for row, kept in zip(found.rows, found.inputs, strict=True):
        assert np.array_equal(kept, to_input(photos[row].open(), 16)[0])


def test_the_kept_inputs_are_those_of_their_features(stand_in: Any, photos: list[View]) -> None:
    found = extract(stand_in, photos, rng=rng())
    again = stand_in(torch.from_numpy(found.inputs)).numpy()
    assert again == pytest.approx(found.values[found.rows], abs=1e-6)


class _Started:
    """A runtime's session that started on the CPU, whatever was asked for."""

    def __init__(self, model: bytes, options: Any, providers: list[Any]) -> None:
        self.asked = providers

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_a_gpu_that_does_not_start_is_told_and_an_error_where_it_was_asked_for(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "provider_of", lambda device, precision: CUDA_PROVIDER)
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Started)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    eye = module._Eye(stand_in, None, "auto")
    assert [one if isinstance(one, str) else one[0] for one in eye._session.asked] == [
        CUDA_PROVIDER,
        "CPUExecutionProvider",
    ]
    assert "cannot start CUDA" in caplog.text
    with pytest.raises(EnvironmentMissing, match="--device cpu or auto"):
        module._Eye(stand_in, None, "cuda")


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    or not torch.cuda.is_available(),
    reason="torch or ONNX Runtime has no CUDA GPU here",
)
def test_a_gpu_sees_what_the_cpu_sees(stand_in: Any, photos: list[View]) -> None:
    here, there = (extract(stand_in, photos, rng=rng(), device=one) for one in ("cpu", "cuda"))
    np.testing.assert_allclose(there.values, here.values, atol=1e-4)


def test_of_a_few_views_all_inputs_are_kept(stand_in: Any, photos: list[View]) -> None:
    assert extract(stand_in, photos[:7], rng=rng()).rows.tolist() == list(range(7))


def test_the_seed_chooses_what_is_kept_and_nothing_else(stand_in: Any, photos: list[View]) -> None:
    first, same, other = (extract(stand_in, photos, rng=rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first.rows, same.rows)
    assert not np.array_equal(first.rows, other.rows)
    assert np.array_equal(first.values, other.values)


def test_progress_adds_up_to_the_number_of_views(stand_in: Any, photos: list[View]) -> None:
    told: list[int] = []
    extract(stand_in, photos, rng=rng(), progress=told.append)
    assert sum(told) == len(photos)
    assert len(told) > 1


def test_a_view_that_cannot_be_read_is_an_image_error(stand_in: Any, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        extract(stand_in, [View(tmp_path / "gone.jpg")], rng=rng())


def test_an_encoding_is_looked_at_as_a_device_does(stand_in: Any, photos: list[View]) -> None:
    ladder = (Rung(10, scale=0.5), Rung(40), REFERENCE)
    told: list[int] = []
    looks = extract_looks(stand_in, photos[:4], ladder, progress=told.append)
    assert (looks.shape, looks.dtype.name, sum(told)) == ((4, 3, 12), "float32", 4)
    for row, view in enumerate(photos[:4]):
        for column, rung in enumerate(ladder):
            candidate = load(encode(view.open(), rung)).image
            pixels = torch.from_numpy(to_input(candidate, 16).copy())
            assert looks[row, column] == pytest.approx(stand_in(pixels)[0].numpy(), abs=1e-6)
    originals = extract(stand_in, photos[:4], rng=rng()).values
    harm = np.abs(looks - originals[:, None]).mean(axis=(0, 2))
    assert harm[0] > harm[1] > harm[2] > 0.0


# --- where the weights come from --------------------------------------------------------------


def test_an_unknown_source_of_weights_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match=r"'random' are unknown; allowed: auto, asset, torchvis"):
        load_prefix("random")


def test_missing_weights_name_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADACOMPRESS_ASSETS", str(tmp_path))
    with pytest.raises(EnvironmentMissing, match="python -m training assets"):
        load_prefix("asset")


@pytest.mark.parametrize("source", ["auto", "torchvision"])
def test_without_file_and_network_the_error_says_both(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(path: Path | None, **_options: Any) -> Prefix:
        assert path is None, "the online source is meant"
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("ADACOMPRESS_ASSETS", str(tmp_path))
    monkeypatch.setattr(module, "Prefix", offline)
    with pytest.raises(EnvironmentMissing, match=r"no route to host.*python -m training assets"):
        load_prefix(source)


def test_a_cut_prefix_has_no_confidence_to_offer(installed: Path) -> None:
    with pytest.raises(UsageError, match="no classifier to take confidence from"):
        load_prefix(cut=7, confidence=True)


# --- with the real weights --------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefix(installed: Path) -> Prefix:
    return load_prefix("asset", confidence=True)


@pytest.fixture(scope="module")
def real(installed: Path) -> list[View]:
    return views(assets.photos("objects")[:3], 1, long_side=320, seed=0)


def test_the_whole_prefix_gives_1280_activations_and_the_confidence(
    prefix: Prefix, real: list[View]
) -> None:
    found = extract(prefix, real, rng=rng())
    assert found.values.shape == (3, 1280 + CONFIDENCE) == (3, 1287)
    assert found.inputs.shape == (3, 224, 224, 3)
    assert prefix.dimension == 1287
    assert np.isfinite(found.values).all()


def test_a_picture_has_the_same_features_in_whatever_company(
    prefix: Prefix, real: list[View]
) -> None:
    together = extract(prefix, real, rng=rng()).values
    alone = np.concatenate([extract(prefix, [view], rng=rng()).values for view in real])
    assert np.array_equal(alone, together)


def test_the_features_are_those_of_the_torch_prefix(prefix: Prefix, real: list[View]) -> None:
    found = extract(prefix, real, rng=rng())
    with torch.inference_mode():
        by_torch = prefix(torch.from_numpy(found.inputs)).numpy()
    assert found.values == pytest.approx(by_torch, rel=1e-3, abs=1e-3)


def test_confidence_is_what_the_networks_own_classifier_says(
    prefix: Prefix, real: list[View]
) -> None:
    values = extract(prefix, real, rng=rng()).values
    pooled = torch.from_numpy(values[:, :1280])
    with torch.inference_mode():
        p = torch.softmax(prefix.logits(pooled), dim=1).numpy()
    best = np.sort(p, axis=1)[:, ::-1]
    said = values[:, 1280:]
    assert np.exp(said[:, 0]) == pytest.approx(best[:, 0], rel=1e-3)
    assert np.exp(said[:, 1]) == pytest.approx(best[:, 0] / best[:, 1], rel=1e-2)
    assert said[:, 3] == pytest.approx(-(p * np.log(p)).sum(axis=1), rel=1e-2, abs=1e-3)


def test_confidence_leaves_the_activations_alone(prefix: Prefix, real: list[View]) -> None:
    plain = load_prefix("asset", confidence=False)
    with_it, without = (extract(one, real[:1], rng=rng()).values for one in (prefix, plain))
    assert without == pytest.approx(with_it[:, :1280], rel=1e-4, abs=1e-4)
