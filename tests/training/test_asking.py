"""Rungs that somebody else chose are asked about, picture by picture, and paid for once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.errors import BackendUnavailable
from edge_sdk.ladder import Ladder, Rung
from model_store.errors import BudgetReached
from training.labels.answers import Answers
from training.labels.labeller import Labeller
from training.labels.labelling import Budget
from training.labels.ledger import Ledger
from training.labels.recorded import Recorded
from training.labels.sampling import stratified

#: Rung 3 decodes to the reference's pixels.
LADDER: Ladder = (Rung(5), Rung(20), Rung(50), Rung(75), Rung(90))
SAME, COUNT = 3, 5


class Service:
    """Says ``cat`` to files of at least ``enough`` bytes; fails from upload ``fails`` on."""

    def __init__(self, enough: int = 0, fails: int = 10**9) -> None:
        self.name, self.enough, self.fails, self.uploads = "fake://host", enough, fails, 0
        self.capabilities = Capabilities(max_bytes=1 << 20, min_side=8, max_side=4096)
        self._lock = threading.Lock()

    def recognize(self, jpeg: bytes) -> Recognition:
        with self._lock:
            self.uploads += 1
            if self.uploads >= self.fails:
                raise BackendUnavailable("gone")
        name = "cat" if len(jpeg) >= self.enough else "blur"
        return Recognition((Label(name, 0.9),), len(jpeg))

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Shot:
    seed: int

    @property
    def photo(self) -> str:
        return f"photo{self.seed}"

    def open(self) -> Image.Image:
        rng = np.random.default_rng(self.seed)
        return Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))


SHOTS = [Shot(seed) for seed in range(COUNT)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def opened(service: Service, ledger: Ledger, **choices: Any) -> Answers:
    return Answers(SHOTS, LADDER, Labeller(service, ledger), **choices)


def known(answers: Answers) -> np.ndarray:
    return np.asarray(~np.isnan(answers.table().agreement["any_hit"]))


def test_each_picture_is_asked_about_its_own_rungs(ledger: Ledger) -> None:
    service = Service()
    answers = opened(service, ledger)
    steps: list[int] = []
    rungs = np.array([[0, 1], [1, 2], [2, 4], [4, 0], [SAME, 1]])
    answers.ask(rungs, steps.append)
    expected = np.zeros((COUNT, len(LADDER)), dtype=bool)
    np.put_along_axis(expected, rungs, values=True, axis=1)
    expected[:, SAME] = True
    np.testing.assert_array_equal(known(answers), expected)
    assert service.uploads == COUNT + 9  # the references, and all but the one that is free
    assert sum(steps) == COUNT


def test_what_is_known_is_not_asked_again(ledger: Ledger) -> None:
    service = Service()
    answers = opened(service, ledger)
    answers.sample(2, np.random.default_rng(0))
    paid, before = service.uploads, known(answers)
    answers.ask(stratified(COUNT, len(LADDER), 2, np.random.default_rng(0)))
    assert service.uploads == paid
    np.testing.assert_array_equal(known(answers), before)
    answers.ask(np.empty((COUNT, 0), dtype=np.int64))
    assert service.uploads == paid


def test_a_record_of_all_answers_gives_out_the_same(ledger: Ledger) -> None:
    """What ``Recorded`` stands in for."""
    service = Service(enough=900)
    bought = opened(service, ledger)
    whole = opened(service, ledger)
    whole.ask(np.tile(np.arange(len(LADDER)), (COUNT, 1)))
    recorded = Recorded(whole.table())
    paid = Labeller(service, ledger).bought
    for answers in (bought, recorded):
        answers.sample(2, np.random.default_rng(3))
        answers.ask(np.array([[1], [0], [4], [2], [SAME]]))
    for metric, values in bought.table().agreement.items():
        np.testing.assert_array_equal(recorded.table().agreement[metric], values)
    rungs = np.array([4, 4, 2, 0, 1])
    np.testing.assert_array_equal(
        bought.observe("any_hit", rungs), recorded.observe("any_hit", rungs)
    )
    assert paid == 0
    table = bought.table()
    assert table.calls + table.from_ledger == recorded.answers


def test_a_failure_leaves_a_gap_and_a_budget_stops(ledger: Ledger) -> None:
    service = Service(fails=COUNT + 3)
    answers = opened(service, ledger, workers=1, max_failures=COUNT)
    answers.ask(np.full((COUNT, 1), 1))
    assert known(answers)[:, 1].tolist() == [True, True, False, False, False]
    capped = Answers(SHOTS, LADDER, Labeller(Service(), ledger, Budget(max_calls=2)), workers=1)
    with pytest.raises(BudgetReached):
        capped.ask(np.full((COUNT, 1), 1))
    assert known(capped)[:, 1].tolist() == [True, True, True, True, False]
