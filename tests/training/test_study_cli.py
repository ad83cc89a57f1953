"""``python -m training study``, ``coldstart`` and ``fit --start`` as their users run them."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk import backends
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.errors import BackendRejected
from edge_sdk.ladder import FULL, PAPER
from model_store import Store
from training.__main__ import main
from training.labels.ledger import Ledger

BACKEND = "local:efficientnet-lite0"
PICTURES = 16

#: As the report's page fails where the certificate was tested, see test_study.py.
UNTESTED = ("--splits", "0")


@pytest.fixture(scope="module")
def photos(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny pictures of soft noise, each with a colour and a grain of its own."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(PICTURES):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (3 + number % 5, 4 + number % 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(
            folder / f"{number:02}.png"
        )
    return folder


def study(photos: Path, run: Path, *more: str) -> list[str]:
    return [
        *("study", "--images", str(photos), "--backend", BACKEND, "--run", str(run)),
        *("--ladder", "paper", "--max-probes", "0", "--seeds", "2", *more),
    ]


def valid(document: Any) -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = resources.files("training.measure").joinpath("report.schema.json").read_text("utf-8")
    jsonschema.validate(document, json.loads(schema))
    return document


# --- study ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studied(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a study, whose answers later ones find in the ledger."""
    pytest.importorskip("matplotlib")
    run = tmp_path_factory.mktemp("study")
    assert main(study(photos, run, *UNTESTED)) == 0
    return run


@pytest.mark.slow
def test_a_study_leaves_a_report_with_a_learning_curve(studied: Path) -> None:
    document = valid(json.loads((studied / "report.json").read_text("utf-8")))
    (point,) = document["study"]["points"]
    assert (point["photos"], point["trials"]) == (10, 2)  # what six of sixteen leave
    assert point["answers"] < 10 * len(PAPER)
    assert document["labels_bought"] == PICTURES * len(PAPER)
    assert document["study"]["validity"] is None
    assert (document["decision_ms"], document["encode_ms"]) == (None, None)
    assert "dqn" in document["policies"]
    assert [trial["seed"] for trial in document["study"]["trials"]] == [0, 1]
    assert (studied / "learning.svg").is_file()
    assert "What more photos buy" in (studied / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_another_study_of_the_same_photos_pays_for_nothing(
    studied: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(studied, tmp_path / "run")
    with closing(Ledger(run / "ledger.sqlite")) as ledger:
        before = len(ledger)
    more = (*UNTESTED, "--photos", "6,10", "--seeds", "1", "--seed", "3", "--json")
    assert main(study(photos, run, *more)) == 0
    document = valid(json.loads(capsys.readouterr().out))
    assert [point["photos"] for point in document["study"]["points"]] == [6, 10]
    assert {trial["seed"] for trial in document["study"]["trials"]} == {3}
    dqn = [trial["dqn"] is not None for trial in document["study"]["trials"]]
    assert dqn == [False, True]
    with closing(Ledger(run / "ledger.sqlite")) as ledger:
        assert len(ledger) == before


@pytest.mark.slow
def test_the_certificate_is_tested_if_wanted(
    studied: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(studied, tmp_path / "run")
    assert main(study(photos, run, "--splits", "5")) == 0
    said = capsys.readouterr().out
    assert "On 5 random sets of 7 calibration pictures" in said
    assert "10 photos, " in said


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--seeds", "0"], "--seeds is 0 and --splits 200; allowed are at least 1"),
        (["--splits", "-1"], "--splits -1; allowed are at least 1 and at least 0"),
        (["--photos", "ten"], "'ten' is no list of whole numbers"),
        (["--target-accuracy", "1"], "target accuracy is 1.0"),
        (["--ladder", "learned"], "invalid choice: 'learned'"),
        (["--metric", "f1"], "invalid choice: 'f1'"),
        (["--images", "nowhere"], "not a folder"),
    ],
)
def test_bad_options_of_a_study_are_refused_before_anything_is_asked(
    more: list[str],
    sentence: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code(study(photos, tmp_path, *more)) == 2
    assert sentence in capsys.readouterr().err
    if (tmp_path / "ledger.sqlite").is_file():
        with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
            assert len(ledger) == 0


def code(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as left:  # argparse's own
        return int(left.code or 0)


@pytest.mark.slow
def test_more_photos_than_there_are_are_a_clear_error(
    studied: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(study(photos, studied, *UNTESTED, "--photos", "11")) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--photos names 11; allowed is" in said
    assert "to 10, because 6 of 16 only measure" in said


def test_more_photos_than_there_are_are_refused_before_anything_is_asked(
    photos: Path, tmp_path: Path
) -> None:
    options = study(photos, tmp_path, *UNTESTED, "--photos", "11", "--max-calls", "3")
    assert main(options) == 2  # and not that the budget is spent


class Choosy:
    """Refuses the first picture that it is shown."""

    capabilities = Capabilities(max_bytes=1 << 20, min_side=8, max_side=4096)
    name = "choosy://host"

    def __init__(self) -> None:
        self.refused = False

    def recognize(self, jpeg: bytes) -> Recognition:
        if not self.refused:
            self.refused = True
            raise BackendRejected("The service does not like this picture.")
        return Recognition((Label("cat" if len(jpeg) > 900 else "blur", 0.9),), len(jpeg))

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_a_refused_picture_does_not_end_a_study(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(backends._registered, "choosy", lambda spec: Choosy())
    options = study(photos, tmp_path, *UNTESTED, "--backend", "choosy://host", "--workers", "1")
    assert main(options) == 0


def test_one_picture_cannot_be_studied(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.png").write_bytes((photos / "00.png").read_bytes())
    assert main(study(tmp_path / "one", tmp_path / "run")) == 2
    assert "1 picture(s) cannot be studied" in capsys.readouterr().err


# --- coldstart --------------------------------------------------------------------------------


def cold(photos: Path, folder: Path, *more: str) -> list[str]:
    return [
        *("coldstart", "--images", str(photos), "--ladder", "paper", "--models", "squeezenet"),
        *("--store", str(folder / "store"), "--run", str(folder / "run"), *more),
    ]


@pytest.fixture(scope="module")
def started(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of a cold agent."""
    folder = tmp_path_factory.mktemp("cold")
    more = ("--scenery", "noise", "--target-accuracy", "0.5")
    assert main(cold(photos, folder, *more)) == 0
    return folder


@pytest.mark.slow
def test_a_cold_start_publishes_an_agent_without_a_certificate(started: Path) -> None:
    store = Store(started / "store")
    manifest = store.manifest("current")
    assert store.resolve("current") == store.resolve("scenery/noise")
    point = manifest.operating_points[0]
    assert (point["certified"], point["target"], point["n"]) == (False, 0.5, PICTURES // 2)
    assert point["note"].startswith("Not certified")
    assert list(manifest.training["models"]) == ["squeezenet"]
    assert manifest.backend["name"] == "none"
    assert (started / "run" / "run.json").is_file()
    assert (started / "run" / "squeezenet" / "ledger.sqlite").is_file()


@pytest.mark.slow
def test_fit_starts_from_the_cold_agent(started: Path, photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(started / "store", store)
    arguments = [
        *("fit", "--images", str(photos), "--backend", BACKEND, "--ladder", "paper"),
        *("--store", str(store), "--run", str(tmp_path / "run"), "--start", "current"),
    ]
    before = Store(store).resolve("current")
    assert main(arguments) == 0
    manifest = Store(store).manifest("current")
    assert manifest.id != before
    assert manifest.training["started"] in (True, False)
    assert manifest.backend["name"] == BACKEND


@pytest.mark.slow
def test_a_start_with_another_ladder_is_refused_before_anything_is_asked(
    started: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("fit", "--images", str(photos), "--backend", BACKEND, "--ladder", "full"),
        *("--store", str(started / "store"), "--run", str(tmp_path), "--start", "scenery/noise"),
    ]
    assert len(FULL) != len(PAPER)
    assert main(arguments) == 2
    assert "has another ladder of 10 rungs" in capsys.readouterr().err.splitlines()[-1]
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        assert len(ledger) == 0
    assert main([*arguments[:-1], "nobody"]) == 5
    assert "nobody" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--models", "resnet"], "the model 'resnet' is unknown; allowed are efficientnet-lite0"),
        (["--models", "squeezenet,resnet"], "the model 'resnet' is unknown"),
        (["--models", ","], "the model ',' is unknown"),
        (["--target-accuracy", "0"], "target accuracy is 0.0"),
        (["--images", "nowhere"], "not a folder"),
        (["--ladder", "learned"], "invalid choice: 'learned'"),
    ],
)
def test_bad_options_of_a_cold_start_get_one_sentence(
    more: list[str],
    sentence: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code(cold(photos, tmp_path, *more)) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_one_photo_is_too_few_for_a_cold_start(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.png").write_bytes((photos / "00.png").read_bytes())
    assert main(cold(tmp_path / "one", tmp_path)) == 2
    assert "give at least 4" in capsys.readouterr().err.splitlines()[-1]
