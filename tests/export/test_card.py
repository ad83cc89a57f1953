"""The model card says what the manifest says, in Markdown that a table survives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_sdk.ladder import PAPER
from edge_sdk.policy import OperatingPoint
from export.card import card
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Manifest, Store


@pytest.fixture(scope="module")
def manifest(run_of_training: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    figures = {"agreement": {"any_hit": {"mean": 0.984962, "lo": 0.9624, "hi": 1.0}}}
    certified = OperatingPoint(trade_off=2.0, target=0.9, delta=0.05, certified=True, note="a | b")
    facts = {**run_of_training.facts, "metrics": figures}
    run = replace(run_of_training, facts=facts, operating_point=certified)
    return publish_run(run, Store(tmp_path_factory.mktemp("store")))[0]


def test_the_card_names_the_agent_its_service_and_its_promise(manifest: Manifest) -> None:
    text = card(manifest)
    assert text.startswith(f"# Agent {manifest.id}\n")
    assert "`fake://`, on pictures of the scenery *day*" in text
    assert "| target | 0.9 |" in text
    assert "| certified | True |" in text
    assert "| note | a \\| b |" in text
    assert "| agreement any_hit | 0.985 [0.962–1] |" in text
    assert "| parity same_rung | 1.0 |" in text


def test_every_file_and_every_encoding_is_listed(manifest: Manifest) -> None:
    text = card(manifest)
    for entry in manifest.files:
        assert (
            f"| `{entry.path}` | {entry.role} | {entry.size:,} | `{entry.sha256[:16]}…` |" in text
        )
    assert ", ".join(rung.name for rung in PAPER) in text
    assert "holds training pictures" in text


def test_what_is_not_certified_is_said(run_of_training: TrainingRun, tmp_path: Path) -> None:
    manifest = publish_run(run_of_training, Store(tmp_path))[0]
    assert "Nothing is certified" in card(manifest)
