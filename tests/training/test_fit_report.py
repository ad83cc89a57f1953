from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_sdk.ladder import FULL
from edge_sdk.policy import OperatingPoint
from training.measure.fit_report import FitReport
from training.measure.report import PhotoSet

jsonschema = pytest.importorskip("jsonschema")

EVIL = '<script>alert("x")</script> & $name'
CERTIFIED = OperatingPoint(
    trade_off=2.0,
    target=0.95,
    delta=0.05,
    certified=True,
    test="binomial",
    n=200,
    n_effective=200.0,
    achieved=0.98,
    max_probes=4,
)


def report(point: OperatingPoint = CERTIFIED, **changed: Any) -> FitReport:
    figure = {"mean": 0.25, "lo": 0.2, "hi": 0.3}
    agent: Any = SimpleNamespace(
        id="day-0123",
        algorithm="bandit",
        scenery={"name": "day"},
        backend={"name": "local:model", "model_version": None, "min_score": 0.0},
        ladder=[rung.as_dict() for rung in FULL],
        operating_points=[point.as_dict(), OperatingPoint(trade_off=1.0).as_dict()],
        training={
            "seed": 0,
            "labels_bought": 1500,
            "contest": {"winner": "probing", "log_loss": {"probing": 0.2, "fixed": 0.4}},
            "started": True,
        },
        metrics={"size_ratio": figure, "wire_ratio": figure, "agreement": {"any_hit": figure}},
        versions={"python": "3"},
    )
    vars(agent).update(changed)
    photos = PhotoSet(photos=100, views=100, fingerprint="ab" * 32)
    return FitReport(
        command=f"python -m training fit {EVIL}",
        agent=agent,
        photos={"train": photos, "calibration": photos},
        rungs={"q15@0.5": 0.75, EVIL: 0.25},
        cost_usd=1.5,
        timings_s={"learning": 1.0},
    )


def written(made: FitReport, folder: Path) -> str:
    document, page = made.write(folder)
    schema = resources.files("training.measure").joinpath("fit_report.schema.json").read_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(schema))
    jsonschema.validate(json.loads(document.read_text("utf-8")), json.loads(schema))
    return page.read_text("utf-8")


def test_page_tells_what_is_promised_and_compares_nothing(tmp_path: Path) -> None:
    page = written(report(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit.html", "fit.json"]
    assert "<strong>95&nbsp;%</strong>" in page
    assert "On 200 held-out pictures the agent agreed in 98.0&nbsp;%." in page
    assert "25.0&nbsp;% of the reference’s bytes; it was chosen on those very photos" in page
    assert "By looks at candidate encodings." in page
    assert page.index("one rung for every picture</th>") < page.index("encodings</th>")
    assert "best fixed" not in page


def test_names_from_outside_are_escaped_and_nothing_is_loaded(tmp_path: Path) -> None:
    page = written(report(), tmp_path)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2
    assert "script-src 'none'" in page


def test_page_never_hides_a_missing_certificate(tmp_path: Path) -> None:
    point = OperatingPoint(trade_off=2.0, target=0.95, n=30, achieved=0.9, note="Too few.")
    page = written(report(point), tmp_path)
    assert "carries no certificate" in page
    assert "is <b>not certified</b>. Too few." in page


def test_the_papers_agent_has_neither_contest_nor_target(tmp_path: Path) -> None:
    training = {"seed": 0, "labels_bought": 1500}
    made = report(OperatingPoint(trade_off=None), training=training, metrics={}, scenery=None)
    page = written(made, tmp_path)
    assert "By its Q-values" in page
    assert "not calibrated to a target" in page
    assert made.to_json()["on_calibration"] is None
