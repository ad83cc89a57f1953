from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.ladder import REFERENCE, Rung
from training.learn import features as module
from training.learn.feature_cache import FeatureCache, identity
from training.learn.features import extract, extract_looks
from training.photos import View, views

LADDER = (Rung(10, scale=0.5), Rung(40), REFERENCE)


@pytest.fixture
def photos(tmp_path: Path, photo: Image.Image) -> list[View]:
    paths = [tmp_path / "photo.png"]
    photo.save(paths[0])
    return views(paths, 3, long_side=48, seed=0)


def _never(*_: object) -> Any:
    raise AssertionError("nothing is left to compute")


def test_what_was_computed_once_is_only_read(
    stand_in: Any, photos: list[View], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng
    path, plain = tmp_path / "features.sqlite", extract_looks(stand_in, photos, LADDER)
    originals = extract(stand_in, photos, rng=rng(0))
    first = FeatureCache(path)
    assert np.array_equal(extract_looks(stand_in, photos, LADDER, cache=first), plain)
    extract(stand_in, photos, rng=rng(0), cache=first)
    first.close()
    monkeypatch.setattr(module, "encode", _never)
    monkeypatch.setattr(module._Eye, "_features", _never)
    again = FeatureCache(path)
    assert np.array_equal(extract_looks(stand_in, photos, LADDER, cache=again), plain)
    found = extract(stand_in, photos, rng=rng(0), cache=again)
    assert np.array_equal(found.values, originals.values)
    assert np.array_equal(found.inputs, originals.inputs)
    again.close()


def test_only_what_is_missing_is_computed(
    stand_in: Any, photos: list[View], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite")
    extract_looks(stand_in, photos, LADDER[:2], cache=cache)
    encoded: list[Rung] = []
    encode = module.encode
    monkeypatch.setattr(
        module, "encode", lambda image, rung: encoded.append(rung) or encode(image, rung)
    )
    looks = extract_looks(stand_in, photos, LADDER, cache=cache)
    assert looks.shape == (3, 3, 12)
    assert encoded == [REFERENCE] * 3
    cache.close()


def test_rungs_that_share_their_pixels_share_their_features(
    stand_in: Any, photos: list[View]
) -> None:
    twins = (REFERENCE, Rung(75, entropy="progressive"), Rung(40))
    looks = extract_looks(stand_in, photos, twins)
    assert np.array_equal(looks[:, 0], looks[:, 1])
    assert not np.array_equal(looks[:, 0], looks[:, 2])


def test_another_prefix_finds_nothing(tmp_path: Path) -> None:
    cache, mine, other = FeatureCache(tmp_path / "f"), identity(b"mine"), identity(b"other")
    cache.put(mine, "picture", {"": np.ones(3, np.float32)})
    assert cache.get(mine, "picture")[""].tolist() == [1.0, 1.0, 1.0]
    assert cache.get(other, "picture") == cache.get(identity(b"mine", gpu=True), "picture") == {}
    cache.close()
    cache.close()
    assert cache.get(mine, "picture") == {}


def test_a_damaged_file_is_told_once_and_done_without(
    stand_in: Any, photos: list[View], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "features.sqlite"
    path.write_bytes(b"no database" * 1000)
    with caplog.at_level(logging.WARNING):
        cache = FeatureCache(path)
        looks = extract_looks(stand_in, photos, LADDER, cache=cache)
    assert np.array_equal(looks, extract_looks(stand_in, photos, LADDER))
    assert len(caplog.records) == 1
    assert "computed anew" in caplog.text
