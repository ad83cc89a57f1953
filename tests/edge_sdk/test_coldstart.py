"""The agent that comes with the package: an empty store begins with it, any other does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edge_sdk import EdgeClient
from edge_sdk.ladder import SAFE, ladder_from_dicts
from edge_sdk.opening import BUILT_IN
from model_store import Store

pytest.importorskip("onnxruntime")


@pytest.fixture
def config(device: Any, tmp_path: Path) -> Any:
    return replace(device.config(), store=tmp_path / "agents", folder=None)


def test_an_empty_store_begins_with_the_agent_of_the_package(
    config: Any, photo: Image.Image
) -> None:
    with EdgeClient(config) as client:
        result = client.process(photo)
    store = Store(config.store)
    assert (result.fallback, result.agent_id) == (None, store.resolve("current"))
    assert result.rung in SAFE


def test_it_is_cautious_and_says_that_nobody_certified_it(config: Any, tmp_path: Path) -> None:
    manifest = Store(tmp_path / "other").unpack(BUILT_IN)
    assert ladder_from_dicts(manifest.ladder) == SAFE
    (point,) = manifest.operating_points
    assert (point["certified"], point["max_probes"]) == (False, 0)
    assert "Not certified" in point["note"]
    assert [entry.role for entry in manifest.files] == ["engine", "head"]


def test_it_fits_a_small_device() -> None:
    assert BUILT_IN.stat().st_size <= 4_000_000


def test_a_store_that_has_an_agent_is_left_alone(config: Any, device: Any) -> None:
    store = Store(config.store)
    theirs = store.unpack(BUILT_IN, aliases=["theirs"])
    with EdgeClient(replace(config, alias="mine")) as client:
        assert client.process(device.picture()).fallback == "no-agent"
    assert (list(store.ids()), dict(store.aliases())) == ([theirs.id], {"theirs": theirs.id})


def test_a_store_that_cannot_be_written_serves_the_reference(config: Any, device: Any) -> None:
    config.store.write_text("a file where a folder should be")
    with EdgeClient(config) as client:
        result = client.process(device.picture())
    assert result.fallback == "no-agent"
