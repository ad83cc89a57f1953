"""What a decision costs next to the encode it replaces; run with ``make bench``.

Both are timed in one run, one thread each: read the ratio of the two medians, not the milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.codec import encode
from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import FULL, REFERENCE
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.preprocess import to_input
from export.fuse import export_prefix, fuse
from export.network import FactoredHead, Prefix
from model_store.errors import EnvironmentMissing
from training import assets

SIZES = {"500x375": (500, 375), "1920x1080": (1920, 1080)}


@pytest.fixture(scope="module")
def engine() -> OnnxEngine:
    try:
        weights = assets.find("mobilenet-v2")
    except EnvironmentMissing as error:
        pytest.skip(str(error))
    prefix = Prefix(weights, confidence=True)
    head = FactoredHead(prefix.dimension, FULL)
    return OnnxEngine(fuse(export_prefix(prefix, assets.cache_dir() / "prefix"), head, FULL))


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys())
def picture(request: pytest.FixtureRequest, installed_photo: Path) -> Image.Image:
    with Image.open(installed_photo) as photo:
        return photo.convert("RGB").resize(request.param, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def installed_photo() -> Path:
    try:
        return assets.photos("interiors")[0]
    except EnvironmentMissing as error:
        pytest.skip(str(error))


def test_decide(benchmark: Callable[..., Any], engine: OnnxEngine, picture: Image.Image) -> None:
    point = OperatingPoint(trade_off=5.0)
    rung = benchmark(lambda: choose(engine.run(to_input(picture, engine.side)), point))
    assert np.all((rung >= 0) & (rung < len(FULL)))


def test_encode_the_reference(benchmark: Callable[..., Any], picture: Image.Image) -> None:
    assert benchmark(encode, picture, REFERENCE).startswith(b"\xff\xd8")
