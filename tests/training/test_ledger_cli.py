"""``python -m training ledger`` as its users run it."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from contextlib import closing
from pathlib import Path

import pytest

from edge_sdk.backends.base import Box, Label, Recognition
from edge_sdk.ladder import REFERENCE, Rung
from training.__main__ import main
from training.labels.ledger import Key, Ledger

DAY_S = 24 * 3600.0
NOON = 1_800_014_400.0  # 2027-01-15, 12:00 UTC


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder; three answers of a priced service on two days, one of another."""
    now = [NOON]
    with closing(Ledger(tmp_path / "ledger.sqlite", clock=lambda: now[0])) as ledger:
        for picture, rung, when in (("a", REFERENCE, 0), ("a", Rung(10), 0), ("b", REFERENCE, 1)):
            now[0] = NOON + when * DAY_S
            answer = Recognition(
                (Label("cat", 0.75, Box(1, 2, 3, 4)), Label("dog", 0.25)), 1500, size=(8, 6)
            )
            ledger.put(Key("rekognition://eu-west-1", picture, rung, "3.0"), answer, 0.001)
        ledger.put(Key("baidu://host", "a", REFERENCE), Recognition((), 500, request_id="=7"))
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["ledger", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_ls_tells_what_is_held(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "ls", "--run", run)
    assert [line.split() for line in told.splitlines()[1:3]] == [
        ["baidu://host", "-", "1", "1", "1", "2027-01-16", "2027-01-16", "0.0", "unknown"],
        [
            *("rekognition://eu-west-1", "3.0", "3", "2", "2"),
            *("2027-01-15", "2027-01-16", "0.0", "0.003", "USD"),
        ],
    ]
    document = json.loads(said(capsys, "ls", run / "ledger.sqlite", "--json"))
    assert (document["schema"], document["ok"]) == ("adacompress.ledger/2", True)
    assert document["holdings"][1] == {
        "service": "rekognition://eu-west-1",
        "model": "3.0",
        "answers": 3,
        "pictures": 2,
        "rungs": 2,
        "first": "2027-01-15T12:00:00+00:00",
        "last": "2027-01-16T12:00:00+00:00",
        "wire_bytes": 4500,
        "cost_usd": pytest.approx(0.003),
        "unpriced": 0,
    }


def test_cost_adds_up_by_service_and_day(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "cost", "--run", run)
    assert "rekognition://eu-west-1  2027-01-15  2        0.002 USD" in told
    assert told.splitlines()[-1] == "total: 4 answers, 0.003 USD and 1 of unknown price"
    document = json.loads(said(capsys, "cost", "--run", run, "--json"))
    assert document["cost_usd"] == pytest.approx(0.003)
    assert [(bill["day"], bill["answers"]) for bill in document["bills"]] == [
        ("2027-01-16", 1),
        ("2027-01-15", 2),
        ("2027-01-16", 1),
    ]


def test_an_empty_ledger_is_shown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Ledger(tmp_path / "ledger.sqlite").close()
    assert said(capsys, "ls", "--run", tmp_path).startswith("service")
    assert said(capsys, "cost", "--run", tmp_path).endswith("total: 0 answers, 0.000 USD\n")
    assert said(capsys, "export", "--run", tmp_path) == ""


def test_export_gives_one_answer_a_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in said(capsys, "export", "--run", run).splitlines()]
    assert len(rows) == 4
    assert rows[0] == {
        "service": "rekognition://eu-west-1",
        "model": "3.0",
        "picture": "a",
        "rung": REFERENCE.as_dict(),
        "labels": [["cat", 0.75, [1.0, 2.0, 3.0, 4.0]], ["dog", 0.25]],
        "size": [8, 6],
        "wire_bytes": 1500,
        "price_usd": 0.001,
        "bought": "2027-01-15T12:00:00+00:00",
        "request_id": "",
    }


def test_export_as_csv_into_a_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run / "answers.csv"
    out.write_text("what was there before")
    told = said(capsys, "export", "--run", run, "--format", "csv", "--out", out)
    assert told == f"4 answers are in {out}.\n"
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["picture"] for row in rows] == ["a", "a", "b", "a"]
    assert json.loads(rows[0]["labels"]) == [["cat", 0.75, [1, 2, 3, 4]], ["dog", 0.25]]
    assert (rows[3]["price_usd"], rows[3]["size"], rows[3]["labels"]) == ("", "", "[]")
    assert sorted(path.name for path in run.iterdir()) == ["answers.csv", "ledger.sqlite"]


def test_prune_deletes_what_is_old(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Ledger(run / "ledger.sqlite", clock=lambda: 0.0)) as ledger:
        ledger.put(Key("old://host", "c", REFERENCE), Recognition((), 1))
    age = ("--older-than", f"{(time.time() + DAY_S) / DAY_S / 2:.0f}d")
    assert said(capsys, "prune", "--run", run, *age, "--dry-run") == (
        "1 of 5 answers would be deleted.\n"
    )
    kept = said(capsys, "prune", "--run", run, *age, "--service", "baidu://host", "--json")
    assert json.loads(kept)["answers"] == 0
    assert said(capsys, "prune", "--run", run, *age) == "1 answers are deleted, 4 are left.\n"
    assert "old://host" not in said(capsys, "ls", "--run", run)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ls",), "Name one ledger"),
        (("ls", "{run}/ledger.sqlite", "--run", "{run}"), "Name one ledger"),
        (("cost", "--run", "{run}/nowhere"), "There is no ledger"),
        (("ls", "{run}"), "There is no ledger"),
        (("prune", "--run", "{run}", "--older-than", "1d", "--service", "me"), "of 'me'; .*baidu:"),
        (("prune", "--run", "{run}", "--older-than", "soon"), "'soon' is not an age; write 30d"),
        (("prune", "--run", "{run}"), "--older-than"),
        ((), "COMMAND"),
    ],
)
def test_bad_input_gets_one_sentence(
    run: Path, arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.iterdir())
    try:
        code = main(["ledger", *(one.format(run=run) for one in arguments)])
    except SystemExit as ended:  # argparse's own way
        code = int(ended.code or 0)
    assert code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(sentence, last)
    assert sorted(run.iterdir()) == before  # nothing was made


def test_an_export_that_cannot_be_written_is_an_environment_error(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(run / "nowhere" / "answers.csv")
    assert main(["ledger", "export", "--run", str(run), "--out", out]) == 4
    assert "cannot be written" in capsys.readouterr().err
