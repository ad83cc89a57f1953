from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edge_sdk
from edge_sdk import backends
from edge_sdk.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(device: Any, tmp_path: Path) -> Path:
    """Three pictures, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "more/c.webp"):
        device.picture().save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def options(device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a run at a fake service, without an agent."""
    monkeypatch.setitem(backends._registered, "fake", lambda spec: device.service)
    monkeypatch.setenv("ADACOMPRESS_COLD_START", "false")
    return ["--backend", "fake://host", "--store", str(tmp_path / "agents")]


def test_run_prints_a_summary(
    photos: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--images", str(photos), *options]) == 0
    said = capsys.readouterr()
    assert "pictures              3" in said.out
    assert "none: every picture went at the reference" in said.out
    assert "no-agent 3" in said.out
    assert said.err == ""


def test_run_prints_json_in_a_stable_order(
    photos: Path, options: list[str], device: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--images", str(photos), *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "adacompress.run/1"
    names = [Path(image["path"]).name for image in document["images"]]
    assert names == ["a.JPG", "b.png", "c.webp"]
    assert document["images"][1]["labels"] == [["cat", 0.9]]
    assert document["images"][1]["rung"] == "q75-plain"
    assert document["stats"]["calls"] == 3
    assert document["stats"]["fallbacks"] == {"no-agent": 3}
    assert device.service.closed == 1  # the command opened it


def test_run_reports_and_skips_unreadable_pictures(
    photos: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.jpg").write_bytes(b"\xff\xd8 not really")
    missing = photos / "nowhere.jpg"
    assert main(["run", "--images", str(photos), str(missing), *options, "--json"]) == 0
    said = capsys.readouterr()
    skipped = [Path(one["path"]).name for one in json.loads(said.out)["skipped"]]
    assert skipped == ["bad.jpg", "nowhere.jpg"]
    assert said.err.count("skipped:") == 2


def test_a_folder_without_pictures_is_a_usage_error(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["run", "--images", str(tmp_path / "empty"), *options]) == 2
    assert "holds no picture" in capsys.readouterr().err


def test_nothing_but_unreadable_pictures_is_a_usage_error(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--images", str(tmp_path / "nowhere.jpg"), *options]) == 2
    said = capsys.readouterr()
    assert "None of the 1 pictures" in said.err
    assert said.out == ""


def test_a_service_that_is_down_ends_with_what_was_done_so_far(
    photos: Path, options: list[str], device: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    device.service.failing = {75}
    assert main(["run", "--images", str(photos), *options, "--json"]) == 6
    said = capsys.readouterr()
    assert json.loads(said.out)["images"] == []
    assert "The fake service is down." in said.err


def test_an_impossible_choice_is_a_usage_error(
    photos: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--images", str(photos), *options, "--min-score", "7"]) == 2
    assert "min_score is 7.0" in capsys.readouterr().err


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "doctor" in capsys.readouterr().err


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = "import sys, edge_sdk; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    heavy = {"torch", "torchvision", "onnx", "onnxruntime", "tensorrt", "requests", "PIL"}
    assert not heavy & set(loaded.split())


def test_every_public_name_can_be_imported() -> None:
    assert set(edge_sdk.__all__) <= set(dir(edge_sdk))
    for name in edge_sdk.__all__:
        assert getattr(edge_sdk, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        edge_sdk.nonsense  # noqa: B018


def test_public_names_load_no_torch_onnx_or_runtime() -> None:
    script = "import sys; from edge_sdk import *; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", script]
    loaded = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not {"torch", "torchvision", "onnx", "onnxruntime", "requests"} & set(loaded.split())


def test_run_takes_its_choices_from_a_file(
    photos: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(f'backend = "{options[1]}"\nstore = "{options[3]}"\n')
    assert main(["run", "--images", str(photos), "--config", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stats"]["images"] == 3
    assert main(["run", "--images", str(photos), "--store", "agents"]) == 2
    assert "No backend is chosen" in capsys.readouterr().err
