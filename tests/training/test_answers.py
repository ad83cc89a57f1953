"""Answers bought on the way: what is asked, what is not, and what becomes of failures."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_sdk import codec
from edge_sdk.agreement import METRICS
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.errors import BackendAuth, BackendRejected, BackendUnavailable, ImageError
from edge_sdk.ladder import REFERENCE, Ladder, Rung
from model_store.errors import BudgetReached, UsageError
from training.labels import answers as module
from training.labels.answers import Answers
from training.labels.labeller import Labeller, ModelChanged
from training.labels.labelling import Budget, label_grid
from training.labels.ledger import Ledger

#: Rung 3 decodes to the reference's pixels.
LADDER: Ladder = (Rung(5), Rung(20), Rung(50), Rung(75), Rung(90))
SAME = 3


class Service:
    """Says ``cat`` to files of at least ``enough`` bytes, ``blur`` to smaller ones."""

    def __init__(self, enough: int = 0) -> None:
        self.name, self.enough, self.version = "fake://host", enough, "1"
        self.capabilities = Capabilities(max_bytes=1 << 20, min_side=8, max_side=4096)
        self.uploads: list[bytes] = []
        self.before: Callable[[int], None] = lambda upload: None
        self._lock = threading.Lock()

    def recognize(self, jpeg: bytes) -> Recognition:
        with self._lock:
            self.uploads.append(jpeg)
            upload = len(self.uploads)
        self.before(upload)
        name = "cat" if len(jpeg) >= self.enough else "blur"
        return Recognition((Label(name, 0.9),), len(jpeg), model_version=self.version)

    def wire_size(self, jpeg: bytes) -> int:
        return 2 * len(jpeg)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Shot:
    seed: int
    photo: str
    side: int = 32
    whole: bool = True

    def open(self) -> Image.Image:
        if not self.whole:
            raise ImageError(f"Picture {self.photo!r} is damaged.")
        rng = np.random.default_rng(self.seed)
        return Image.fromarray(rng.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8))


SHOTS = [Shot(seed, f"photo-{seed // 2}") for seed in range(6)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def sampled(ledger: Ledger, service: Any = None, calls: int = 2, **choices: Any) -> Answers:
    answers = Answers(SHOTS, LADDER, Labeller(service or Service(), ledger), **choices)
    answers.sample(calls, np.random.default_rng(0))
    return answers


def bought(ledger: Ledger) -> dict[str, list[int]]:
    """Return the qualities that were bought of each picture, in order of size."""
    found = defaultdict(list)
    for entry in ledger.entries():
        found[entry.picture].append(entry.rung["quality"])
    return {picture: sorted(qualities) for picture, qualities in found.items()}


# --- what is asked ----------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [0, 1, 2, 4, 7])
def test_a_sample_asks_about_the_reference_and_few_rungs(calls: int, ledger: Ledger) -> None:
    answers = sampled(ledger, calls=calls)
    for qualities in bought(ledger).values():
        assert len(qualities) <= calls + 1
        assert len(set(qualities)) == len(qualities)
        assert REFERENCE.quality in qualities
    known = ~np.isnan(answers.table().agreement["any_hit"])
    assert (np.delete(known, SAME, axis=1).sum(axis=1) <= calls).all()
    if calls == 0:
        assert known.any(axis=0).tolist() == [False, False, False, True, False]


@given(calls=st.integers(1, 5), seed=st.integers(0, 100))
@settings(max_examples=10)
def test_a_sample_has_one_rung_of_each_part_of_the_ladder(
    calls: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with_rungs = tuple(Rung(quality) for quality in range(10, 70, 6))  # none is the reference's
    ledger = Ledger(tmp_path_factory.mktemp("sample") / "ledger.sqlite")
    answers = Answers(SHOTS[:3], with_rungs, Labeller(Service(), ledger))
    answers.sample(calls, np.random.default_rng(seed))
    ledger.close()
    edges = np.linspace(0, len(with_rungs), calls + 1)
    for known in ~np.isnan(answers.table().agreement["top1"]):
        asked = np.flatnonzero(known)
        for low, high in pairwise(edges):
            assert ((np.floor(low) <= asked) & (asked < high)).any()


def test_what_is_asked_does_not_depend_on_the_answers(tmp_path: Path) -> None:
    asked = []
    for number, enough in enumerate((0, 700, 10**9)):
        with_answers = Ledger(tmp_path / f"{number}.sqlite")
        table = sampled(with_answers, Service(enough)).table()
        asked.append(bought(with_answers))
        with_answers.close()
        assert np.nanmin(table.agreement["any_hit"]) == (0.0 if enough == 700 else 1.0)
    assert asked == [asked[0]] * 3


def test_another_seed_asks_about_other_rungs(ledger: Ledger) -> None:
    answers = sampled(ledger)
    before = len(ledger)
    answers.sample(2, np.random.default_rng(1))
    assert before < len(ledger) < 2 * before


def test_nothing_is_asked_twice(ledger: Ledger) -> None:
    service = Service()
    answers = sampled(ledger, service)
    paid = len(service.uploads)
    assert len(set(service.uploads)) == paid == len(ledger)
    answers.sample(2, np.random.default_rng(0))
    first = answers.table()
    assert len(service.uploads) == paid
    assert (first.calls, first.from_ledger) == (paid, 0)

    again = sampled(ledger, service).table()  # of another process, with the same ledger
    assert len(service.uploads) == paid
    assert (again.calls, again.from_ledger) == (0, paid)
    for metric in METRICS:
        np.testing.assert_array_equal(again.agreement[metric], first.agreement[metric])


def test_what_the_ledger_has_is_looked_up_at_once_and_not_encoded(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    rungs = np.array([[0, 1], [1, 2], [4, 4], [2, 0], [0, 4], [1, 1]])
    first = Answers(SHOTS, LADDER, Labeller(Service(enough=900), ledger))
    first.ask(rungs)
    seen, table = first.observe("any_hit", rungs[:, 0]), first.table()

    again = Answers(SHOTS, LADDER, Labeller(Service(enough=900), ledger))
    asked: list[int] = []
    look_up = Ledger.get_many
    monkeypatch.setattr(
        Ledger, "get_many", lambda self, keys: asked.append(len(keys)) or look_up(self, keys)
    )
    monkeypatch.setattr(module, "encode", None)  # nothing is
    told: list[int] = []
    again.ask(rungs, told.append)
    np.testing.assert_array_equal(again.observe("any_hit", rungs[:, 0]), seen)

    assert told == [1] * len(SHOTS)
    assert [count for count in asked if count] == [len({*map(tuple, _cells(rungs))})]
    for metric in METRICS:
        np.testing.assert_array_equal(again.table().agreement[metric], table.agreement[metric])
    assert (again.table().calls, again.table().from_ledger) == (0, table.calls)


def _cells(rungs: np.ndarray) -> list[list[int]]:
    return [[row, rung] for row, several in enumerate(rungs.tolist()) for rung in several]


def test_pictures_that_are_alike_are_asked_about_once(ledger: Ledger) -> None:
    service = Service()
    twins = [Shot(1, "one"), Shot(1, "other")]
    answers = Answers(twins, LADDER, Labeller(service, ledger), workers=4)
    answers.observe("any_hit", np.array([2, 2]))
    assert len(service.uploads) == 2
    assert list(answers.groups) == ["one", "other"]


# --- observing --------------------------------------------------------------------------------


def test_observing_buys_only_what_is_missing(ledger: Ledger) -> None:
    service = Service(enough=900)
    answers = sampled(ledger, service)
    known = ~np.isnan(answers.table().agreement["any_hit"])
    rungs = np.array([0, 1, 2, SAME, 4, 0])
    paid = len(service.uploads)
    seen = answers.observe("any_hit", rungs)
    missing = int((~known[np.arange(6), rungs]).sum())
    assert 0 < missing < 6
    assert len(service.uploads) == paid + missing
    np.testing.assert_array_equal(answers.observe("any_hit", rungs), seen)
    assert len(service.uploads) == paid + missing
    table = answers.table()
    np.testing.assert_array_equal(table.agreement["any_hit"][np.arange(6), rungs], seen)
    assert table.calls == paid + missing


def test_it_observes_what_the_whole_grid_would_tell(ledger: Ledger) -> None:
    service = Service(enough=900)
    answers = Answers(SHOTS, LADDER, Labeller(service, ledger), wire_size=service.wire_size)
    seen = {
        metric: np.stack(
            [answers.observe(metric, np.full(6, rung)) for rung in range(len(LADDER))], axis=1
        )
        for metric in METRICS
    }
    got = answers.table()
    table = label_grid(SHOTS, LADDER, Labeller(service, ledger), wire_size=service.wire_size)
    assert 0.0 < seen["any_hit"].mean() < 1.0
    for metric in METRICS:
        np.testing.assert_array_equal(seen[metric], table.agreement[metric])
        np.testing.assert_array_equal(got.agreement[metric], table.agreement[metric])
    for name in ("keys", "groups", "bytes", "wire", "reference_bytes", "reference_wire"):
        np.testing.assert_array_equal(getattr(got, name), getattr(table, name))
    assert got.reference_label.tolist() == table.reference_label.tolist() == ["cat"] * 6
    assert got.reference_score.tolist() == table.reference_score.tolist()
    np.testing.assert_array_equal(answers.size_ratio, table.size_ratio)


def test_the_references_pixels_agree_without_a_call(ledger: Ledger) -> None:
    service = Service(enough=900)
    answers = Answers(SHOTS, LADDER, Labeller(service, ledger))
    assert answers.observe("eq1", np.full(6, SAME)).tolist() == [1.0] * 6
    assert len(service.uploads) == 6  # the references


def test_nobody_asked_is_not_a_number_but_sizes_are_known_all_the_same(ledger: Ledger) -> None:
    table = Answers(SHOTS, LADDER, Labeller(Service(), ledger)).table()
    for metric in METRICS:
        unknown = np.isnan(table.agreement[metric])
        assert unknown.all(axis=0).tolist() == [rung != SAME for rung in range(5)]
    image = SHOTS[2].open()
    assert table.bytes[2].tolist() == [len(codec.encode(image, rung)) for rung in LADDER]
    assert table.size_ratio[2, 0] == table.bytes[2, 0] / len(codec.encode(image, REFERENCE))


def test_labels_below_the_minimum_score_do_not_count(ledger: Ledger) -> None:
    blind = Answers(SHOTS, LADDER, Labeller(Service(enough=900), ledger), min_score=0.95)
    assert blind.observe("any_hit", np.zeros(6, dtype=int)).tolist() == [1.0] * 6
    seeing = Answers(SHOTS, LADDER, Labeller(Service(enough=900), ledger), min_score=0.5)
    assert 0.0 in seeing.observe("any_hit", np.zeros(6, dtype=int))


# --- pictures that are left out ---------------------------------------------------------------


def test_a_picture_that_cannot_be_used_is_left_out_with_its_reason(ledger: Ledger) -> None:
    shots = [Shot(0, "a"), Shot(1, "b", whole=False), Shot(2, "c"), Shot(3, "d", side=6)]
    told: list[int] = []
    answers = Answers(shots, LADDER, Labeller(Service(), ledger), progress=told.append)
    assert (answers.positions, list(answers.groups), len(answers)) == ([0, 2], ["a", "c"], 2)
    assert [(one.position, one.photo, one.kind) for one in answers.rejected] == [
        (1, "b", "ImageError"),
        (3, "d", "BackendRejected"),
    ]
    assert "damaged" in answers.rejected[0].reason
    assert "6x6" in answers.rejected[1].reason
    assert answers.table().rejected == tuple(answers.rejected)
    assert sum(told) == 4
    answers.sample(2, np.random.default_rng(0), progress=told.append)
    assert sum(told) == 6


def test_a_picture_that_the_service_refuses_is_left_out(ledger: Ledger) -> None:
    service = Service()

    def refuse(upload: int) -> None:
        if upload == 2:
            raise BackendRejected("The service sees no picture in it.")

    service.before = refuse
    answers = Answers(SHOTS, LADDER, Labeller(service, ledger), workers=1)
    assert answers.positions == [0, 2, 3, 4, 5]
    assert answers.rejected[0].reason == "The service sees no picture in it."


@pytest.mark.parametrize("shots", [[], [Shot(0, "a", whole=False), Shot(1, "b", whole=False)]])
def test_no_picture_at_all_is_an_error(shots: list[Shot], ledger: Ledger) -> None:
    with pytest.raises(UsageError, match=rf"None of {len(shots)} pictures could be labelled: "):
        Answers(shots, LADDER, Labeller(Service(), ledger))


# --- failures ---------------------------------------------------------------------------------


def down(service: Service, when: Callable[[int], bool]) -> None:
    def fail(upload: int) -> None:
        if when(upload):
            raise BackendUnavailable(f"upload {upload} failed")

    service.before = fail


def test_failures_within_what_is_allowed_leave_their_pictures_out(ledger: Ledger) -> None:
    service = Service()
    down(service, lambda upload: upload in (2, 5))
    answers = Answers(SHOTS, LADDER, Labeller(service, ledger), workers=1, max_failures=2)
    assert answers.positions == [0, 2, 3, 5]
    assert {one.kind for one in answers.rejected} == {"BackendUnavailable"}


def test_one_failure_too_many_stops_at_once_and_what_was_paid_is_kept(ledger: Ledger) -> None:
    service = Service()
    down(service, lambda upload: upload > 3)
    many = [Shot(seed, str(seed)) for seed in range(60)]
    with pytest.raises(BackendUnavailable, match="failed"):
        Answers(many, LADDER, Labeller(service, ledger), workers=2, max_failures=2)
    assert len(ledger) == 3
    assert len(service.uploads) < 30  # those under way, not all 60


def test_failures_are_counted_over_all_that_is_asked(ledger: Ledger) -> None:
    service = Service()
    down(service, lambda upload: upload == 1)
    answers = Answers(SHOTS, LADDER, Labeller(service, ledger), workers=1, max_failures=1)
    paid = len(ledger)
    down(service, lambda upload: True)
    with pytest.raises(BackendUnavailable):
        answers.sample(1, np.random.default_rng(0))
    assert len(ledger) == paid


def test_a_service_that_fails_on_every_picture_is_to_blame(ledger: Ledger) -> None:
    service = Service()
    down(service, lambda upload: True)
    with pytest.raises(BackendUnavailable):
        Answers(SHOTS, LADDER, Labeller(service, ledger), max_failures=100)


def test_a_failure_while_sampling_leaves_a_gap(ledger: Ledger) -> None:
    service = Service()
    answers = Answers(SHOTS, LADDER, Labeller(service, ledger), workers=1, max_failures=1)
    down(service, lambda upload: upload == 7)
    answers.sample(2, np.random.default_rng(0))
    table = answers.table()
    assert len(table) == 6
    assert np.isnan(table.agreement["any_hit"]).any()


def test_a_failure_while_observing_proves_nothing_and_so_counts_against_us(ledger: Ledger) -> None:
    service = Service()
    answers = Answers(SHOTS, LADDER, Labeller(service, ledger), workers=1, max_failures=1)
    down(service, lambda upload: upload == 8)
    assert answers.observe("any_hit", np.full(6, 1)).tolist() == [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert answers.table().agreement["eq1"][:, 1].tolist() == [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("error", [BackendAuth("The key expired."), KeyboardInterrupt()])
def test_what_concerns_every_picture_stops_everything(error: BaseException, ledger: Ledger) -> None:
    service = Service()

    def fail(upload: int) -> None:
        raise error

    service.before = fail
    with pytest.raises(type(error)):
        Answers(SHOTS, LADDER, Labeller(service, ledger), workers=1, max_failures=100)
    assert len(service.uploads) == 1


def test_another_model_stops_everything(ledger: Ledger) -> None:
    service = Service()
    answers = Answers(SHOTS, LADDER, Labeller(service, ledger), workers=1, max_failures=100)
    service.version = "2"
    with pytest.raises(ModelChanged):
        answers.sample(2, np.random.default_rng(0))
    assert len(ledger) == 7  # its answer was paid for, too


# --- the budget -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_a_run_that_reached_its_budget_goes_on_where_it_stopped(
    workers: int, ledger: Ledger
) -> None:
    whole, service = Service(), Service()
    everything = Ledger(ledger.path.with_name("other.sqlite"))
    expected = sampled(everything, whole).table()
    everything.close()
    capped = Labeller(service, ledger, Budget(max_calls=9))
    answers = Answers(SHOTS, LADDER, capped, workers=workers)
    with pytest.raises(BudgetReached):
        answers.sample(2, np.random.default_rng(0))
    assert len(ledger) == len(service.uploads) == 9
    table = sampled(ledger, service, workers=workers).table()
    assert len(service.uploads) == len(whole.uploads)
    assert table.from_ledger == 9
    for metric in METRICS:
        np.testing.assert_array_equal(table.agreement[metric], expected.agreement[metric])


def test_the_reason_for_stopping_comes_out_whichever_thread_hears_of_it_first(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the first picture begins only when another one has stopped everything."""

    class Late(threading.Event):
        def __init__(self) -> None:
            super().__init__()
            self.turn = iter([True])

        def is_set(self) -> bool:
            if next(self.turn, False):
                self.wait(10.0)
            return super().is_set()

    answers = Answers(SHOTS, LADDER, Labeller(Service(), ledger, Budget(max_calls=6)), workers=2)
    monkeypatch.setattr(module, "threading", SimpleNamespace(Event=Late))
    with pytest.raises(BudgetReached):
        answers.observe("any_hit", np.zeros(6, dtype=int))


def test_what_was_asked_of_another_ladder_is_not_asked_again(ledger: Ledger) -> None:
    service = Service(enough=900)
    labeller = Labeller(service, ledger, Budget())
    other = Answers(SHOTS, (Rung(90), Rung(50, entropy="plain"), Rung(33)), labeller)
    other.ask(np.tile([0, 1], (6, 1)))
    bought = labeller.bought
    answers = Answers(SHOTS, LADDER, labeller)
    answers.adopt(other)
    known = ~np.isnan(answers.table().agreement["any_hit"])
    assert known.tolist() == [[False, False, True, True, True]] * 6
    assert labeller.bought == bought
    assert answers.table().agreement["any_hit"][:, 4] == pytest.approx(
        other.table().agreement["any_hit"][:, 0]
    )
