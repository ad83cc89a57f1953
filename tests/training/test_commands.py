"""``python -m training fit`` and ``evaluate`` as their users run them, on real photos."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from edge_sdk.ladder import FULL
from model_store import Store
from training import assets
from training.__main__ import main
from training.labels.ledger import Ledger

BACKEND = "local:efficientnet-lite0"


@pytest.fixture(scope="module")
def photos(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("photos")
    for path in assets.photos("objects")[:14]:
        shutil.copy(path, made)
    (made / "broken.jpg").write_bytes(b"not a picture")
    return made


@pytest.fixture(scope="module")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and a store, left by ``fit``."""
    folder = tmp_path_factory.mktemp("fit")
    assert main(["fit", *options(photos, folder), "--scenery", "objects"]) == 0
    return folder


def options(photos: Path, folder: Path, run: str = "run") -> list[str]:
    return [
        *("--images", str(photos), "--backend", BACKEND),
        *("--store", str(folder / "store"), "--run", str(folder / run)),
    ]


@pytest.mark.slow
def test_fit_publishes_an_agent_and_leaves_a_run_to_export(fitted: Path) -> None:
    store = Store(fitted / "store")
    assert store.resolve("current") == store.resolve("scenery/objects")
    manifest = store.manifest("current")
    assert manifest.training["photos"] == 14
    assert 0 < manifest.metrics["size_ratio"]["mean"] <= 1.0
    assert manifest.backend["name"] == BACKEND
    assert manifest.backend["model_version"].startswith("efficientnet-lite0@")
    assert (fitted / "run" / "run.json").is_file()
    schema = resources.files("training.measure").joinpath("fit_report.schema.json").read_text()
    report = json.loads((fitted / "run" / "fit.json").read_text())
    jsonschema.validate(report, json.loads(schema))
    assert report["agent"] == manifest.id
    assert report["photos"]["train"]["photos"] + report["photos"]["calibration"]["photos"] == 14
    assert sum(report["rungs"].values()) == pytest.approx(1.0)
    assert (fitted / "run" / "fit.html").is_file()


@pytest.mark.slow
def test_evaluate_measures_the_published_engine(
    fitted: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--agent", "current", *options(photos, fitted), "--json"]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "adacompress.report/1"
    assert document["photos"]["test"]["photos"] == 14
    assert document["decision_ms"] > 0
    assert (fitted / "run" / "report.html").is_file()


@pytest.mark.slow
def test_a_budget_stops_the_run_keeps_the_answers_and_the_next_run_goes_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--answers", "grid", *options(photos, tmp_path)]
    assert main([*arguments, "--max-calls", "20"]) == 7
    assert "20 allowed calls" in capsys.readouterr().err
    with closing(Ledger(tmp_path / "run" / "ledger.sqlite")) as ledger:
        assert len(ledger) == 20
    assert (
        main([*arguments, "--max-calls", str(14 * len(FULL) - 20)]) == 0
    )  # what is missing is enough
    manifest = Store(tmp_path / "store").manifest("current")
    assert manifest.training["labels_bought"] == 14 * len(FULL)


@pytest.mark.slow
def test_the_papers_agent_is_fitted_on_the_papers_ladder(photos: Path, tmp_path: Path) -> None:
    assert main(["fit", *options(photos, tmp_path), "--algorithm", "dqn"]) == 0
    manifest = Store(tmp_path / "store").manifest("current")
    assert manifest.algorithm == "dqn"
    assert len(manifest.ladder) == 10
    assert "By its Q-values" in (tmp_path / "run" / "fit.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fit", "--backend", "faceplus://host"], 2, "faceplus"),
        (["fit", "--backend", "local:nonsense"], 2, "nonsense"),
        (["fit", "--target-accuracy", "1.5"], 2, "target accuracy is 1.5"),
        (["fit", "--images", "nowhere"], 2, "not a folder"),
        (["fit", "--max-cost", "1", "--backend", "baidu://host"], 2, "--price-per-call"),
        (["fit", "--min-score", "7"], 2, "minimum score is 7"),
        (["evaluate", "--agent", "nobody"], 5, "nobody"),
    ],
)
def test_bad_input_gets_one_sentence_and_the_documented_code(
    arguments: list[str],
    code: int,
    sentence: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = options(photos, tmp_path)
    command, *own = arguments
    assert main([command, *given, *own]) == code
    assert sentence in capsys.readouterr().err.splitlines()[-1]
