from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_sdk.agreement import METRICS
from edge_sdk.backends.base import Label
from edge_sdk.ladder import FULL, PAPER, Ladder, Rung
from edge_sdk.policy import OperatingPoint
from model_store.errors import UsageError
from training.measure import baselines
from training.measure.confidence import by_confidence
from training.measure.cost import Cost, Prices
from training.measure.evaluate import evaluate_policies, gap_interval
from training.measure.failures import Failure, Failures, Shown
from training.measure.intervals import Interval
from training.measure.noise import Noise
from training.measure.opponents import fixed_settings
from training.measure.page import render
from training.measure.report import (
    TIMELINE,
    PhotoSet,
    Report,
    agent_curve,
    fixed_curve,
    opponent_curve,
    print_table,
    rung_shares,
)
from training.measure.study import Study
from training.measure.trial import Place, Trial
from training.measure.uploads import Uploads
from training.measure.validity import Validity
from training.measure.verdict import judge

jsonschema = pytest.importorskip("jsonschema")

EVIL = '<script>alert("x")</script> & $name'


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def answers(ladder: Ladder) -> Any:
    """A made-up answer table: 30 photos, 2 views each."""
    draw = np.random.default_rng(4)
    n, strength = 60, np.linspace(0.3, 1.0, len(ladder))
    agrees = (strength >= draw.random((n, 1))).astype(float)
    size = strength**2 * draw.uniform(0.7, 0.95, (n, 1))
    return SimpleNamespace(
        ladder=ladder,
        keys=np.arange(n),
        groups=np.arange(n) // 2,
        size_ratio=size,
        wire_ratio=size,
        agreement=dict.fromkeys(METRICS, agrees),
        reference_score=np.linspace(0.0, 1.0, n),
    )


def stream(n: int = 40) -> dict[str, Any]:
    """What the loop recorded, as arrays and lists, with numpy's own numbers."""
    return {
        "image": np.arange(n),
        "scenery": ["day"] * (n // 2) + ["night"] * (n - n // 2),
        "state": ["inference"] * (n - 10) + ["retraining"] * 10,
        "p_est": np.linspace(0.1, 1.0, n),
        "accuracy": [np.float64(1.0)] * n,
        "wire_bytes": np.full(n, 20_000),
        "reference_wire_bytes": [np.int64(50_000)] * n,
        "rung": ["q15"] * n,
        "agent_id": [None] + ["day-0123456789ab"] * (n - 1),
    }


@pytest.fixture(scope="module")
def report() -> Report:
    table, paper = answers(FULL), answers(PAPER)
    agent = baselines.oracle(table)
    return Report(
        command="python -m training demo --seed 7",
        seed=7,
        photos={
            name: PhotoSet(photos=30, views=60, fingerprint="ab" * 32)
            for name in ("train", "calibration", "test")
        },
        backend={"name": "baidu://127.0.0.1:8000", "model_version": "1", "min_score": 0.3},
        ladder=FULL,
        operating_point=OperatingPoint(
            trade_off=2.0,
            target=0.95,
            delta=0.05,
            certified=True,
            test="exact binomial tail",
            n=400,
            n_effective=311.2,
            achieved=0.9726,
        ),
        policies=evaluate_policies(
            table,
            agent,
            known=table,
            paper=paper,
            known_paper=paper,
            target=0.95,
            dqn=baselines.fixed(paper, 3),
            rng=rng(),
        ),
        gap_closed={"agent": gap_interval(table, agent, rng=rng()), "dqn": None},
        verdict=judge(table, agent, target=0.95, rng=rng()),
        labels_bought=1234,
        cost_usd=1.85,
        decision_ms=6.2,
        encode_ms=2.0,
        curve={
            "fixed_paper": fixed_curve(paper),
            "fixed": fixed_curve(table),
            "agent": agent_curve(table, {1.0: agent, 0.1: baselines.fixed(table, 0)}),
        },
        sceneries={"day": rung_shares(FULL[rung].name for rung in agent), "night": {"q75": 1.0}},
        timeline=stream(),
        versions={"adacompress": "0.1.0"},
        timings_s={"labels": 12.3},
        synthetic=["night is a synthetic thermal camera model."],
    )


def trial(photos: int) -> Trial:
    place = Place(size_ratio=0.3, agreement=0.97)
    return Trial(
        seed=0,
        photos=photos,
        answers=100,
        way="static",
        certified=True,
        agent=place,
        best_fixed=place,
        best_fixed_paper=place,
        oracle=place,
        dqn=None,
        at_target=dict.fromkeys(("fixed", "fixed_paper", "static", "oracle"), 0.3),
    )


@pytest.fixture(scope="module")
def full(report: Report) -> Report:
    """A report with everything that may be asked for."""
    table, figure = answers(FULL), Interval(0.5, 0.4, 0.6)
    opponents = {"deepn_jpeg": "DeepN", "deepn_jpeg_continuous": "DeepN", "perceptual": "SSIM"}
    rung = Rung(50, tables=((16,) * 64, (17,) * 64))
    measured = replace(report.policies["best_fixed"], rung="SSIM ≥ 0.90")
    kept = Validity(
        splits=200,
        pictures=20,
        target=0.95,
        delta=0.05,
        certified=0.9,
        violations=0.01,
        most=0.03,
        size_ratio=0.3,
        agreement=0.97,
    )
    return replace(
        report,
        ladder=(*FULL, rung),
        policies={**report.policies, **dict.fromkeys(opponents, measured)},
        curve={
            **report.curve,
            **dict.fromkeys(opponents, opponent_curve(fixed_settings(table))),
        },
        confidence=by_confidence(table, baselines.oracle(table), rng=rng()),
        noise=Noise(
            pictures=50,
            agreement=dict.fromkeys(METRICS, figure),
            target_above=True,
            sentence="The noise <is> 5 %.",
        ),
        cost=Cost(
            prices=Prices(usd_per_gb=0.1),
            bytes_saved=figure,
            extra_calls=figure,
            net_usd_per_million=figure,
            net_usd_per_day=None,
            upload_ms_saved=None,
            sentence="It <saves> much.",
        ),
        study=Study((trial(10), trial(20)), kept),
        uploads=Uploads(reference_bytes=9.5, bytes_saved=figure, extra_calls=figure),
        prices=Prices(usd_per_call=0.002),
        failures=Failures(pictures=60, failed=0, worst=()),
    )


@pytest.fixture(scope="module")
def schema() -> Any:
    text = resources.files("training.measure").joinpath("report.schema.json").read_text("utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return json.loads(text)


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    pytest.importorskip("matplotlib")
    return report.to_html()


class Tags(HTMLParser):
    """Checks that elements nest, and collects names and attributes."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_document_is_valid_and_json_carries_it(report: Report, schema: Any) -> None:
    document = report.to_json()
    jsonschema.validate(document, schema)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_document_holds_what_was_measured(report: Report) -> None:
    document = report.to_json()
    assert document["schema"] == "adacompress.report/1"
    assert document["policies"]["agent"]["size_ratio"] == (
        report.policies["agent"].size_ratio.as_dict()
    )
    assert document["policies"]["best_fixed"]["rung"] in {rung.name for rung in FULL}
    assert document["verdict"]["outcome"] == "better"
    assert document["gap_closed"]["dqn"] is None
    assert document["decision_encode_ratio"] == pytest.approx(3.1)
    assert document["photos"]["test"] == {"photos": 30, "views": 60, "fingerprint": "ab" * 32}
    assert [point["name"] for point in document["curve"]["agent"]] == ["λ=0.1", "λ=1"]
    assert len(document["curve"]["fixed_paper"]) == len(PAPER)
    assert sum(document["sceneries"]["day"].values()) == pytest.approx(1.0)


def test_what_was_asked_for_besides_is_in_the_document(full: Report, schema: Any) -> None:
    document = full.to_json()
    jsonschema.validate(document, schema)
    assert [one["at_least"] for one in document["by_confidence"]] == [0.0, 0.3, 0.6]
    assert document["noise"]["qualities"] == [70, 80]
    assert document["cost"]["net_usd_per_million"] == {"mean": 0.5, "lo": 0.4, "hi": 0.6}
    assert document["ladder"][-1]["tables"] == [[16] * 64, [17] * 64]


def test_documents_of_before_are_valid_and_have_pages(report: Report, schema: Any) -> None:
    pytest.importorskip("matplotlib")
    old = report.to_json()
    for name in ("by_confidence", "noise", "cost", "study", "uploads", "prices", "failures"):
        del old[name]
    jsonschema.validate(old, schema)
    assert "own noise" not in render(old, [rung.name for rung in report.ladder])


def test_page_tells_what_was_asked_for_besides_and_nothing_else(full: Report, page: str) -> None:
    pytest.importorskip("matplotlib")
    text = full.to_html()
    Tags(text)
    assert "The noise &lt;is&gt; 5&nbsp;%." in text
    assert "It &lt;saves&gt; much." in text
    assert 'scope="row">0.3 to 0.6</th>' in text
    assert "A million images: 0.50 USD less than as references" in text
    assert 'value="0.002"' in text
    assert "On 200 random sets of 20 calibration pictures the true agreement was below" in text
    assert '<th scope="row">20</th><td>100</td>' in text
    assert "the answers to all 60 pictures agreed" in text
    assert text.count("<script>") == 1
    for title in ("DeepN-JPEG", "DeepN, continuous", "perceptual"):
        assert f'<th scope="row">{title}<small>SSIM ≥ 0.90</small>' in text
        assert title not in page
    for absent in (
        "own noise",
        "at your prices",
        "more photos buy",
        "Worst failures",
        "than as references",
    ):
        assert absent not in page


@pytest.mark.parametrize(
    "broken",
    [
        {"schema": "adacompress.report/2"},
        {"policies": {"agent": {"size_ratio": {"mean": 1.0}}}},
        {"metric": "accuracy"},
        {"verdict": {"outcome": "great"}},
        {"labels_bought": -1},
        {"noise": {"pictures": 50}},
        {"by_confidence": [{"at_least": 0.0}]},
        {"cost": "much"},
    ],
)
def test_schema_refuses_other_documents(report: Report, schema: Any, broken: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report.to_json() | broken, schema)


def test_report_without_a_stream_is_valid_and_says_so(report: Report, schema: Any) -> None:
    pytest.importorskip("matplotlib")
    still = replace(report, timeline=None, sceneries={}, synthetic=())
    jsonschema.validate(still.to_json(), schema)
    text = still.to_html()
    assert "No stream was run." in text
    assert "Nothing: all pictures are as they were given." in text


@pytest.mark.parametrize("name", TIMELINE)
def test_timeline_needs_all_columns_of_one_length(report: Report, name: str) -> None:
    missing = {column: values for column, values in stream().items() if column != name}
    with pytest.raises(UsageError, match="timeline has columns"):
        replace(report, timeline=missing)
    with pytest.raises(UsageError, match="all of one length"):
        replace(report, timeline=stream() | {name: [1]})


def test_numbers_that_json_cannot_carry_are_refused(report: Report) -> None:
    with pytest.raises(UsageError, match="finite"):
        replace(report, timings_s={"labels": float("nan")}).to_json()


def test_write_leaves_both_files_and_the_main_figures(
    report: Report, schema: Any, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    document, drawing = report.write(tmp_path / "run")
    jsonschema.validate(json.loads(document.read_text("utf-8")), schema)
    assert drawing.read_text("utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "curve.svg",
        "report.html",
        "report.json",
        "timeline.svg",
    ]
    assert (tmp_path / "run" / "curve.svg").read_text("utf-8").startswith("<svg")


def test_page_is_self_contained_and_small(page: str) -> None:
    tags = Tags(page)
    assert not {"script", "link", "img", "iframe", "image"} & set(tags.names)
    sources = [value or "" for name, value in tags.attributes if name in ("src", "xlink:href")]
    assert all(value.startswith("#") for value in sources)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page
    assert len(page.encode()) < 1_500_000
    assert "script-src 'none'" in page


def test_page_tells_the_result_in_words(page: str, report: Report) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&nbsp;", " ")
    saved = 100 * (1 - report.verdict.size_ratio)
    fixed = 100 * (1 - report.verdict.fixed_size_ratio)
    assert f"{saved:.0f} % fewer bytes at 1.000 agreement" in text
    assert f"the best fixed rung saves {fixed:.0f} %" in text
    assert report.verdict.sentence in text
    assert "On 400 held-out pictures (worth 311 independent ones" in text
    assert "a result this good would come up with probability 5 % at most" in text
    assert "python -m training demo --seed 7" in text
    assert "night is a synthetic thermal camera model." in text


def test_page_says_but_when_a_fixed_rung_does_better(report: Report) -> None:
    pytest.importorskip("matplotlib")
    table = answers(FULL)
    wasteful = judge(table, baselines.random_rungs(table, rng()), rng=rng())
    text = replace(report, verdict=wasteful).to_html()
    assert "but the best fixed rung saves" in text


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        (
            OperatingPoint(trade_off=2.0, target=0.95, n=30, achieved=0.9, note="Too few images."),
            "is <b>not certified</b>. Too few images.",
        ),
        (OperatingPoint(trade_off=None), "It carries no certificate"),
    ],
)
def test_page_never_hides_a_missing_certificate(
    report: Report, point: OperatingPoint, sentence: str
) -> None:
    pytest.importorskip("matplotlib")
    assert sentence in replace(report, operating_point=point).to_html()


def test_names_from_outside_are_escaped_everywhere(report: Report, schema: Any) -> None:
    pytest.importorskip("matplotlib")
    shown = Shown(size=9, width=1, height=1, labels=[Label(EVIL, 0.5)], picture=b"jpeg", exact=True)
    failure = Failure(photo=EVIL, rung=EVIL, agreement=0.0, reference=shown, sent=shown)
    evil = replace(
        report,
        command=EVIL,
        backend={"name": EVIL, "model_version": EVIL, "min_score": None},
        photos={
            name: PhotoSet(photos=1, views=1, fingerprint=EVIL)
            for name in ("train", "calibration", "test")
        },
        operating_point=OperatingPoint(trade_off=1.0, target=0.9, test=EVIL, note=EVIL),
        sceneries={EVIL: {EVIL: 1.0}},
        timeline=stream() | {"scenery": [EVIL] * 40, "state": [EVIL] * 40},
        policies={**report.policies, "agent": replace(report.policies["agent"], rung=EVIL)},
        verdict=replace(report.verdict, sentence=EVIL),
        versions={EVIL: EVIL},
        timings_s={EVIL: 1.0},
        synthetic=[EVIL],
        failures=Failures(pictures=1, failed=1, worst=[failure]),
    )
    jsonschema.validate(evil.to_json(), schema)
    page = evil.to_html()
    assert "<script" not in page
    assert "script" not in Tags(page).names
    assert "&lt;script&gt;" in page


def test_same_report_gives_the_same_page(report: Report, page: str) -> None:
    assert report.to_html() == page


def test_printed_table_fits_a_terminal_with_all_policies(full: Report) -> None:
    often = replace(full.policies["agent"], calls_per_image=Interval(1.25, 1.11, 1.32))
    lines = print_table({**full.policies, "agent": often}).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("perceptual (SSIM ≥ 0.90)") for line in lines)


def test_printed_table_has_a_line_a_policy(report: Report) -> None:
    lines = print_table(report.policies).splitlines()
    assert lines[0].split("  ")[0] == "policy"
    titles = ("reference", "best fixed, paper", "best fixed", "random", "paper DQN", "our agent")
    for title, line in zip((*titles, "oracle"), lines[2:], strict=False):
        assert line.startswith(title)
    agent = report.policies["agent"].size_ratio
    assert f"{agent.mean:.3f} [.{1000 * agent.lo:03.0f}–.{1000 * agent.hi:03.0f}]" in lines[7]
    assert "fixed:" not in "\n".join(lines)


def test_writing_json_needs_no_matplotlib() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from model_store.errors import EnvironmentMissing\n"
        "from training.measure import figures, report\n"
        "try:\n    figures.chosen_rungs({'day': {'q15': 1.0}}, ['q15'])\n"
        "except EnvironmentMissing as error:\n    print(error)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "install adacompress[demo]" in done.stdout
