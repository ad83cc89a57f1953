"""A job's terms: what it may spend, by how many at once, and what it says of it."""

from __future__ import annotations

import io
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk import backends
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.errors import BackendUnavailable
from edge_sdk.ladder import REFERENCE, Rung
from model_store.errors import BudgetReached, UsageError
from training.job import NAMED, Job, Terms
from training.labels.ledger import Ledger
from training.photos import View, views
from training.progress import Stages

LADDER = (Rung(10), Rung(75))


class Service:
    capabilities = Capabilities(max_bytes=1 << 20, min_side=8, max_side=4096, price_usd=0.01)

    def __init__(self) -> None:
        self.name, self.closed, self.fails = "fake://host", False, False

    def recognize(self, jpeg: bytes) -> Recognition:
        if self.fails:
            raise BackendUnavailable("gone")
        return Recognition((Label("cat", 0.5),), len(jpeg), model_version="3.0")

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setitem(backends._registered, "fake", lambda spec: made)
    return made


@pytest.fixture
def pictures(tmp_path: Path) -> list[View]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return views(sorted(folder.iterdir()), 1, long_side=None, seed=0)


def job(tmp_path: Path, stream: io.StringIO | None = None, **terms: Any) -> Job:
    stages = Stages(stream or io.StringIO())
    return Job("fake://host", tmp_path / "run", stages, terms=Terms(**terms))


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


def test_the_list_price_counts_and_is_told(
    service: Service, pictures: list[View], tmp_path: Path, told: io.StringIO
) -> None:
    with job(tmp_path, told, max_cost_usd=0.05) as first, pytest.raises(BudgetReached):
        first.label(pictures, LADDER, "asking")
    with job(tmp_path, told, max_calls=3) as second:
        second.label(pictures, LADDER, "asking")
        assert second.labeller.cost_usd == pytest.approx(0.03)
        assert second.labeller.model_version == "3.0"
        second.label(pictures[:2], LADDER, "asking again")
    lines = told.getvalue().splitlines()
    assert lines[-2].endswith(" s, 3 calls for 0.030 USD")
    assert lines[-1].endswith(" s, 0 calls")
    assert service.closed


def test_a_price_of_ones_own_counts_instead(
    service: Service, pictures: list[View], tmp_path: Path
) -> None:
    with job(tmp_path, max_cost_usd=1.0, price_per_call=0.5) as mine:
        with pytest.raises(BudgetReached):
            mine.label(pictures, LADDER, "asking")
        assert {one.price_usd for one in mine.ledger.entries()} == {0.5}


def test_dollars_cannot_be_capped_where_nobody_knows_the_price(
    service: Service, tmp_path: Path
) -> None:
    service.capabilities = replace(service.capabilities, price_usd=None)
    with pytest.raises(UsageError, match="--price-per-call"):
        job(tmp_path, max_cost_usd=1.0)
    assert service.closed


def test_old_answers_are_bought_anew(
    service: Service, pictures: list[View], tmp_path: Path
) -> None:
    aged = time.time() - 8 * 24 * 3600.0
    with job(tmp_path) as first:
        first.ledger._clock = lambda: aged
        assert first.label(pictures, LADDER, "asking").calls == 8
    with job(tmp_path, answer_ttl_days=9) as second:
        assert second.label(pictures, LADDER, "asking").calls == 0
    with job(tmp_path, answer_ttl_days=7) as third:
        assert len(third.ledger) == 0
        assert third.label(pictures, LADDER, "asking").calls == 8


def test_pictures_that_are_left_out_are_named_a_few_of_them(
    service: Service, pictures: list[View], tmp_path: Path, told: io.StringIO
) -> None:
    small = tmp_path / "small.png"
    Image.new("RGB", (4, 4)).save(small)
    with job(tmp_path, told) as mine:
        table = mine.label([*pictures, *[View(small)] * (NAMED + 2)], LADDER, "asking")
    assert len(table) == 4
    lines = [line for line in told.getvalue().splitlines() if line.startswith("left out")]
    assert len(lines) == NAMED + 1
    assert "small.png: The picture has 4x4 pixels" in lines[0]
    assert lines[-1] == "left out besides: 2 pictures"


def test_the_terms_reach_the_threads(
    service: Service, pictures: list[View], tmp_path: Path
) -> None:
    service.fails = True
    with (
        job(tmp_path, max_failures=2, workers=1, executor="threads:2") as mine,
        pytest.raises(BackendUnavailable, match="3 pictures failed, more than the 2"),
    ):
        mine.label(pictures, LADDER, "asking")


def test_a_few_answers_are_bought_and_every_encoding_is_looked_at(
    service: Service, pictures: list[View], stand_in: Any, tmp_path: Path, told: io.StringIO
) -> None:
    small = tmp_path / "small.png"
    Image.new("RGB", (4, 4)).save(small)
    ladder = (Rung(10), Rung(20), Rung(40), Rung(75))
    with job(tmp_path, told) as mine:
        found = mine.answered(
            stand_in, [pictures[0], View(small), *pictures[1:]], ladder, "photos", 2
        )
        assert found.answers is not None
        assert found.answers.positions == [0, 2, 3, 4]
        assert found.looks is not None
        assert found.looks.shape == (4, 4, 12)
        assert found.features.values.shape == (4, 12)
        assert 4 < found.table.calls == len(mine.ledger) <= 4 * 3
        again = mine.answered(stand_in, pictures, ladder, "photos again", 2)
        assert (again.table.calls, again.table.from_ledger) == (0, found.table.calls)
        known = np.isnan(found.table.agreement["any_hit"]).sum()
        assert found.observer("any_hit")(np.zeros(4, dtype=np.int64)).tolist() == [1.0] * 4
        assert np.isnan(found.refreshed().table.agreement["any_hit"]).sum() <= known
    lines = told.getvalue().splitlines()
    assert [line for line in lines if "small.png" in line]
    assert [line for line in lines if "encodings of photos" in line]


def test_references_alone_may_be_asked_about(
    service: Service, pictures: list[View], stand_in: Any, tmp_path: Path
) -> None:
    with job(tmp_path) as mine:
        found = mine.answered(stand_in, pictures, (Rung(10), Rung(75)), "photos", 0)
        assert found.table.calls == 4
        assert np.isnan(found.table.agreement["any_hit"][:, 0]).all()


def test_an_executor_that_is_not_there_leaves_nothing_open(
    service: Service, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="executor 'cloud' is unknown"):
        job(tmp_path, executor="cloud")
    assert service.closed
    with closing(Ledger(tmp_path / "run" / "ledger.sqlite")) as ledger:
        ledger._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        ledger._connection.execute("DELETE FROM answers")  # nobody else holds it


def test_a_picture_can_be_asked_about_by_itself(
    service: Service, pictures: list[View], tmp_path: Path
) -> None:
    with job(tmp_path) as mine:
        assert mine.reference_labels(pictures[0].open()) == (Label("cat", 0.5),)
        assert mine.label(pictures[:1], (REFERENCE,), "asking").from_ledger == 1


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"max_failures": -1}, "--max-failures is -1"),
        ({"answer_ttl_days": 0.0}, r"--answer-ttl is 0\.0"),
    ],
)
def test_terms_without_sense_are_refused(terms: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Terms(**terms)
