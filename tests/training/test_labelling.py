"""Labelling with a fake service that counts what it is asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_sdk import codec, reading
from edge_sdk.agreement import METRICS
from edge_sdk.backends.base import Backend, Capabilities, Label, Recognition
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendUnavailable,
    ImageError,
)
from edge_sdk.ladder import FULL, PAPER, REFERENCE, Ladder, Rung
from model_store.errors import BudgetReached, UsageError
from training.labels.labeller import ModelChanged
from training.labels.labelling import Budget, Labeller, label_grid
from training.labels.ledger import Ledger
from training.labels.table import Rejected, concatenate

LADDER: Ladder = (Rung(quality=10), Rung(quality=40), Rung(quality=75))


class Service:
    """Says "cat" to everything of 16-level contrast, and lower scores for smaller files."""

    def __init__(self, name: str = "fake://host", version: str | None = None) -> None:
        self.name, self.version = name, version
        self.capabilities = Capabilities(max_bytes=1 << 20, min_side=8, max_side=4096)
        self.uploads: list[bytes] = []
        self.before: Callable[[bytes], None] = lambda jpeg: None
        self._lock = threading.Lock()

    def recognize(self, jpeg: bytes) -> Recognition:
        self.before(jpeg)
        with self._lock:
            self.uploads.append(jpeg)
        shade = int(np.asarray(reading.load(jpeg).image).mean()) // 32
        labels = (Label(f"shade-{shade}", 0.9), Label("picture", min(1.0, len(jpeg) / 1e5)))
        return Recognition(labels, self.wire_size(jpeg), model_version=self.version)

    def wire_size(self, jpeg: bytes) -> int:
        return 2 * len(jpeg) + 7

    def close(self) -> None:
        pass


class Telling(Service):
    """A service that can be asked for its model without paying."""

    def model_version(self) -> str | None:
        return self.version


@dataclass(frozen=True)
class Shot:
    seed: int
    photo: str
    side: int = 48

    def open(self) -> Image.Image:
        rng = np.random.default_rng(self.seed)
        return Image.fromarray(rng.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8))


SHOTS = [Shot(seed, f"photo-{seed // 2}") for seed in range(6)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def test_a_service_is_a_backend() -> None:
    assert isinstance(Service(), Backend)


def test_the_table_holds_sizes_of_every_picture_and_rung(ledger: Ledger) -> None:
    service = Service()
    table = label_grid(SHOTS, LADDER, Labeller(service, ledger), wire_size=service.wire_size)

    assert list(table.groups) == [shot.photo for shot in SHOTS]
    assert len(set(table.keys)) == len(table) == 6
    image = SHOTS[2].open()
    files = [len(codec.encode(image, rung)) for rung in LADDER]
    assert table.bytes[2].tolist() == files
    assert table.wire[2].tolist() == [2 * size + 7 for size in files]
    assert table.reference_bytes[2] == len(codec.encode(image, REFERENCE))
    assert table.size_ratio[2, 0] == files[0] / table.reference_bytes[2]
    assert table.wire_ratio[2, 0] == table.wire[2, 0] / table.reference_wire[2]
    assert table.reference_score.tolist() == [0.9] * 6


def test_every_metric_compares_with_the_references_answer(ledger: Ledger) -> None:
    table = label_grid(SHOTS, LADDER, Labeller(Service(), ledger))

    assert set(table.agreement) == set(METRICS)
    for values in table.agreement.values():
        assert values.shape == (6, 3)
        assert values.dtype == np.float64
        assert np.all(values[:, 2] == 1.0)  # the reference's own pixels


def test_labels_below_the_minimum_score_do_not_count(ledger: Ledger) -> None:
    strict = label_grid(SHOTS, LADDER, Labeller(Service(), ledger), min_score=0.95)

    assert all(np.all(values == 1.0) for values in strict.agreement.values())  # nothing is left


def test_rungs_of_the_same_pixels_share_one_upload(ledger: Ledger) -> None:
    ladder = (Rung(75, entropy="plain"), Rung(75), Rung(75, entropy="progressive"), Rung(10))
    service = Service()

    table = label_grid(SHOTS, ladder, Labeller(service, ledger))

    assert table.calls == len(service.uploads) == 6 * 2
    assert len(set(table.bytes[0, :3])) == 3


def test_a_second_run_buys_nothing_and_tells_the_same(ledger: Ledger) -> None:
    first = label_grid(SHOTS, FULL, Labeller(Service(), ledger))
    service = Service()
    second = label_grid(SHOTS, FULL, Labeller(service, ledger))

    assert service.uploads == []
    assert (second.calls, second.from_ledger) == (0, first.calls)
    for metric in METRICS:
        np.testing.assert_array_equal(second.agreement[metric], first.agreement[metric])
    np.testing.assert_array_equal(second.bytes, first.bytes)


def test_a_second_ladder_buys_only_what_is_new(ledger: Ledger) -> None:
    label_grid(SHOTS, FULL, Labeller(Service(), ledger))
    shared = {rung.pixels for rung in FULL} & {rung.pixels for rung in PAPER}

    table = label_grid(SHOTS, PAPER, Labeller(Service(), ledger))

    assert table.calls == 6 * (len(PAPER) - len(shared))


@pytest.mark.parametrize("workers", [1, 4])
def test_the_same_picture_twice_is_bought_once(ledger: Ledger, workers: int) -> None:
    service = Service()
    label_grid([SHOTS[0]] * 8, LADDER, Labeller(service, ledger), workers=workers)

    assert len(service.uploads) == 3


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    tables = []
    for workers in (1, 3):
        own = Ledger(tmp_path / f"{workers}.sqlite")
        tables.append(label_grid(SHOTS, LADDER, Labeller(Service(), own), workers=workers))
        own.close()

    assert list(tables[0].keys) == list(tables[1].keys)
    np.testing.assert_array_equal(tables[0].bytes, tables[1].bytes)


def test_progress_is_told_once_a_picture(ledger: Ledger) -> None:
    steps: list[int] = []
    label_grid(SHOTS, LADDER, Labeller(Service(), ledger), progress=steps.append)

    assert steps == [1] * 6


def test_the_budget_stops_before_the_first_call_too_many(ledger: Ledger) -> None:
    service, budget = Service(), Budget(max_calls=7)

    with pytest.raises(BudgetReached, match="All 7 allowed calls"):
        label_grid(SHOTS, LADDER, Labeller(service, ledger, budget))

    assert len(service.uploads) == budget.calls == len(ledger) == 7


def test_what_was_paid_for_is_not_paid_for_again(ledger: Ledger) -> None:
    with pytest.raises(BudgetReached):
        label_grid(SHOTS, LADDER, Labeller(Service(), ledger, Budget(max_calls=7)))

    table = label_grid(SHOTS, LADDER, Labeller(Service(), ledger, Budget(max_calls=11)))

    assert (table.calls, table.from_ledger) == (11, 7)


def test_a_budget_of_nothing_still_reads_the_ledger(ledger: Ledger) -> None:
    label_grid(SHOTS, LADDER, Labeller(Service(), ledger))

    assert len(label_grid(SHOTS, LADDER, Labeller(Service(), ledger, Budget(max_calls=0)))) == 6


def test_a_refused_picture_is_left_out_and_named(ledger: Ledger) -> None:
    service = Service()
    shots = [*SHOTS[:2], Shot(9, "tiny", side=7), *SHOTS[2:]]

    table = label_grid(shots, LADDER, Labeller(service, ledger))

    assert len(table) == 6
    assert [(r.position, r.photo) for r in table.rejected] == [(2, "tiny")]
    assert "7x7" in table.rejected[0].reason
    assert all(reading.load(jpeg).image.size == (48, 48) for jpeg in service.uploads)


def test_a_rung_too_small_for_the_service_is_the_next_dearer_one_as_on_a_device(
    ledger: Ledger,
) -> None:
    service = Service()
    ladder = (Rung(quality=50, scale=0.5), Rung(quality=60), Rung(quality=90))

    table = label_grid([Shot(9, "small", side=14)], ladder, Labeller(service, ledger))

    assert table.bytes[0, 0] == table.bytes[0, 1] != table.bytes[0, 2]
    assert len(service.uploads) == 3  # the reference, and two rungs
    assert all(reading.load(jpeg).image.size == (14, 14) for jpeg in service.uploads)


def test_a_picture_that_the_service_itself_refuses_is_left_out(ledger: Ledger) -> None:
    service = Service()
    shade = codec.encode(SHOTS[3].open(), REFERENCE)

    def refuse(jpeg: bytes) -> None:
        if jpeg == shade:
            raise BackendRejected("error 216201")

    service.before = refuse
    table = label_grid(SHOTS, LADDER, Labeller(service, ledger))

    assert [r.position for r in table.rejected] == [3]
    assert len(ledger) == 5 * 3


def test_if_every_picture_is_refused_the_reason_is_told(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match=r"None of 1 pictures could be labelled: .*5x5"):
        label_grid([Shot(1, "tiny", side=5)], LADDER, Labeller(Service(), ledger))


def fail_after(calls: int, error: BaseException) -> Callable[[bytes], None]:
    count = Counter[str]()

    def before(_jpeg: bytes) -> None:
        count["calls"] += 1
        if count["calls"] > calls:
            raise error

    return before


@pytest.mark.parametrize("error", [BackendUnavailable("gone"), KeyboardInterrupt()])
def test_a_stop_keeps_what_was_paid_for(ledger: Ledger, error: BaseException) -> None:
    service = Service()
    service.before = fail_after(7, error)

    with pytest.raises(type(error)):
        label_grid(SHOTS, LADDER, Labeller(service, ledger), workers=1)

    assert len(service.uploads) == len(ledger) == 7
    assert label_grid(SHOTS, LADDER, Labeller(Service(), ledger)).from_ledger == 7


def test_after_an_interruption_no_further_answer_is_begun(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, asked, go_on = Service(), threading.Event(), threading.Event()
    shutdown = ThreadPoolExecutor.shutdown

    def wait(_jpeg: bytes) -> None:
        if len(service.uploads) == 4:  # the second picture's second upload is under way ...
            asked.set()
            go_on.wait(10)

    def interrupt(_step: int) -> None:
        assert asked.wait(10)
        raise KeyboardInterrupt  # ... when the user presses Ctrl-C

    def release(pool: ThreadPoolExecutor, **how: bool) -> None:
        go_on.set()
        shutdown(pool, **how)

    service.before = wait
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", release)
    with pytest.raises(KeyboardInterrupt):
        label_grid(SHOTS, LADDER, Labeller(service, ledger), workers=1, progress=interrupt)

    assert len(service.uploads) == len(ledger) == 5


class Broken(Shot):
    def open(self) -> Image.Image:
        raise ImageError("Picture 'x.jpg' is damaged.")


def test_an_unreadable_picture_is_left_out_and_named(ledger: Ledger) -> None:
    table = label_grid([SHOTS[0], Broken(1, "x"), SHOTS[1]], LADDER, Labeller(Service(), ledger))

    assert len(table) == 2
    assert table.rejected == (Rejected(1, "x", "Picture 'x.jpg' is damaged.", "ImageError"),)


def test_if_no_picture_can_be_read_the_reason_is_told(ledger: Ledger) -> None:
    with pytest.raises(UsageError, match=r"None of 1 pictures .*x\.jpg"):
        label_grid([Broken(1, "x")], LADDER, Labeller(Service(), ledger))


# --- failures of the service --------------------------------------------------------------------


def failing(positions: set[int], error: Exception) -> Service:
    """A service that fails on the references of some of the shots."""
    service = Service()
    files = {codec.encode(SHOTS[position].open(), REFERENCE) for position in positions}

    def before(jpeg: bytes) -> None:
        if jpeg in files:
            raise error

    service.before = before
    return service


@pytest.mark.parametrize(
    "error", [BackendProtocol("not of the dialect"), BackendUnavailable("gone")]
)
def test_a_few_pictures_may_fail_and_are_named(ledger: Ledger, error: Exception) -> None:
    service = failing({1, 4}, error)
    table = label_grid(SHOTS, LADDER, Labeller(service, ledger), workers=3, max_failures=2)

    assert [(one.position, one.photo) for one in table.rejected] == [(1, "photo-0"), (4, "photo-2")]
    assert {(one.kind, one.reason) for one in table.rejected} == {
        (type(error).__name__, str(error))
    }
    assert list(table.groups) == ["photo-0", "photo-1", "photo-1", "photo-2"]
    assert len(service.uploads) == len(ledger) == 4 * 3


def test_too_many_failures_stop_and_say_so(ledger: Ledger) -> None:
    service = failing({1, 3, 4}, BackendUnavailable("gone"))

    with pytest.raises(BackendUnavailable, match=r"3 pictures failed, more than the 2 .*gone"):
        label_grid(SHOTS, LADDER, Labeller(service, ledger), max_failures=2)


def test_if_every_picture_fails_that_is_the_services_error(ledger: Ledger) -> None:
    service = failing(set(range(6)), BackendUnavailable("gone"))

    with pytest.raises(BackendUnavailable, match=r"^gone$"):
        label_grid(SHOTS, LADDER, Labeller(service, ledger), max_failures=10)


@pytest.mark.parametrize(
    "error", [BackendThrottled("slower"), BackendQuota("spent"), BackendAuth("keys")]
)
@pytest.mark.parametrize("workers", [1, 4])
def test_what_will_not_pass_stops_at_once(ledger: Ledger, error: Exception, workers: int) -> None:
    service = failing({1}, error)
    shots = [Shot(shade, f"photo{shade}") for shade in range(60)]

    with pytest.raises(type(error)):
        label_grid(shots, LADDER, Labeller(service, ledger), workers=workers, max_failures=10)

    # Alone, no other picture is begun; together, threads finish what they have in hand.
    assert len(service.uploads) <= (3 if workers == 1 else 3 * len(shots) // 2)


def test_every_picture_gets_a_row_or_an_error_and_what_is_billed_is_kept(ledger: Ledger) -> None:
    """A service with faults of every kind, asked by many threads."""
    rng, lock, billed = np.random.default_rng(0), threading.Lock(), Counter[bytes]()
    faults = (BackendUnavailable("gone"), BackendRejected("216201"), BackendProtocol("what?"))

    def before(jpeg: bytes) -> None:
        with lock:
            draw = rng.random()
            if draw >= 0.3:
                billed[jpeg] += 1
        if draw < 0.3:
            raise faults[int(draw * 10)]

    service, budget = Service(), Budget(price_per_call=0.001)
    service.before = before
    labeller = Labeller(service, ledger, budget)
    shots = [Shot(seed, f"photo-{seed}") for seed in range(120)]
    running = set(threading.enumerate())

    table = label_grid(shots, LADDER, labeller, workers=8, max_failures=1000)

    assert set(threading.enumerate()) <= running
    places = {one.position for one in table.rejected}
    assert len(places) + len(table) == 120
    assert list(table.groups) == [shot.photo for n, shot in enumerate(shots) if n not in places]
    assert {one.kind for one in table.rejected} == {type(fault).__name__ for fault in faults}
    assert billed.total() == len(billed) == len(ledger) == labeller.bought == table.calls
    unclear = sum(one.kind == "BackendProtocol" for one in table.rejected)
    assert budget.calls == len(ledger) + unclear
    assert sum(one.price_usd or 0 for one in ledger.entries()) == pytest.approx(0.001 * len(ledger))


# --- which model answers ------------------------------------------------------------------------


def test_a_local_cloud_is_the_same_service_on_another_port(ledger: Ledger) -> None:
    for port in (8000, 8001):
        service = Telling(f"baidu://127.0.0.1:{port}", version="lite0@1")
        table = label_grid(SHOTS, LADDER, Labeller(service, ledger))

    assert table.calls == 0


def test_another_model_is_another_service(ledger: Ledger) -> None:
    for version in ("lite0@1", "lite0@2"):
        service = Telling("baidu://127.0.0.1:8000", version=version)
        table = label_grid(SHOTS, LADDER, Labeller(service, ledger))
        assert table.calls == 18


def test_a_service_that_does_not_tell_its_model_is_known_by_its_name(ledger: Ledger) -> None:
    for name, calls in (("baidu://a", 18), ("baidu://b", 18), ("baidu://a", 0)):
        table = label_grid(SHOTS, LADDER, Labeller(Service(name), ledger))
        assert table.calls == calls


def test_a_service_that_names_its_model_only_in_answers_is_not_paid_twice(ledger: Ledger) -> None:
    for calls in (18, 0):
        labeller = Labeller(Service(version="3.0"), ledger)
        table = label_grid(SHOTS, LADDER, labeller, workers=4)
        assert table.calls == calls
        assert labeller.model_version == "3.0"
    assert {one.model for one in ledger.entries()} == {"3.0"}


def test_many_look_ups_know_what_asking_one_by_one_would_know(ledger: Ledger) -> None:
    old, new = Service(), Service(version="3.0")
    for rung in LADDER:  # the first one's answer is gone
        if rung != LADDER[0]:
            Labeller(old, ledger, model_version=None).ask("a", rung, _jpeg(rung))
    labeller = Labeller(new, ledger)
    uploads = [("a", rung) for rung in (LADDER[1], LADDER[0], LADDER[2])]
    assert [one is not None for one in labeller.known_many(uploads)] == [True, False, False]
    assert labeller.found == 1

    labeller = Labeller(new, ledger)  # buys the first one, which tells the model of all others
    assert labeller.known_many([("a", rung) for rung in LADDER]) == [None] * 3
    for rung in LADDER:
        labeller.ask("a", rung, _jpeg(rung))
    assert (labeller.bought, labeller.found, labeller.model_version) == (3, 0, "3.0")
    assert None not in labeller.known_many([("a", rung) for rung in LADDER])


def _jpeg(rung: Rung) -> bytes:
    return codec.encode(SHOTS[0].open(), rung)


def test_a_picture_that_is_known_is_one_look_up(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_grid(SHOTS, LADDER, Labeller(Service(), ledger))
    asked: list[int] = []
    look_up = Ledger.get_many
    monkeypatch.setattr(
        Ledger, "get_many", lambda self, keys: asked.append(len(keys)) or look_up(self, keys)
    )
    assert label_grid(SHOTS, LADDER, Labeller(Service(), ledger)).from_ledger == 18
    assert asked == [len(LADDER)] * len(SHOTS)


def test_the_first_answer_names_the_model(ledger: Ledger) -> None:
    labeller = Labeller(Service(version="3.0"), ledger)
    assert labeller.model_version is None
    labeller.ask("a", REFERENCE, codec.encode(SHOTS[0].open(), REFERENCE))
    assert labeller.model_version == "3.0"


def test_a_new_model_refutes_the_ledgers_and_the_next_run_uses_it(ledger: Ledger) -> None:
    label_grid(SHOTS[:5], LADDER, Labeller(Service(version="3.0"), ledger))
    service = Service(version="3.1")

    with pytest.raises(ModelChanged, match=r"model 3\.1 instead of 3\.0"):
        label_grid(SHOTS, LADDER, Labeller(service, ledger), workers=1, max_failures=10)
    labeller = Labeller(service, ledger)
    table = label_grid(SHOTS, LADDER, labeller)

    assert (table.calls, table.from_ledger) == (17, 1)
    assert labeller.model_version == "3.1"
    assert len(service.uploads) == 18


def test_a_model_that_comes_back_finds_its_answers_again(ledger: Ledger) -> None:
    for version in ("3.0", "3.1"):
        service = Telling(version=version)
        label_grid(SHOTS, LADDER, Labeller(service, ledger))

    with pytest.raises(ModelChanged):
        label_grid([Shot(99, "new")], LADDER, Labeller(Service(version="3.0"), ledger))
    table = label_grid(SHOTS, LADDER, Labeller(Service(version="3.0"), ledger))

    assert table.calls == 0


def test_answers_without_a_model_do_not_mix_with_a_models(ledger: Ledger) -> None:
    label_grid(SHOTS[:1], LADDER, Labeller(Service(), ledger))
    service = Service(version="3.0")

    with pytest.raises(ModelChanged, match="instead of one that it did not name"):
        label_grid(SHOTS, LADDER, Labeller(service, ledger), workers=1)

    assert label_grid(SHOTS, LADDER, Labeller(service, ledger)).calls == 17


def test_two_models_on_one_machine_that_count_alike_are_two_services(ledger: Ledger) -> None:
    for name in ("cats", "dogs"):
        service = Service(f"torchserve://127.0.0.1:8080/{name}", version="1.0")
        assert label_grid(SHOTS, LADDER, Labeller(service, ledger)).calls == 18
    again = Service("torchserve://127.0.0.1:9090/cats", version="1.0")
    assert label_grid(SHOTS, LADDER, Labeller(again, ledger)).calls == 0


def test_a_host_is_part_of_a_service_that_is_elsewhere(ledger: Ledger) -> None:
    for region in ("eu-west-1", "us-east-1"):
        service = Service(f"rekognition://{region}", version="3.0")
        assert label_grid(SHOTS, LADDER, Labeller(service, ledger)).calls == 18


def test_the_list_price_is_kept_with_every_answer(ledger: Ledger) -> None:
    service = Service()
    service.capabilities = replace(service.capabilities, price_usd=0.002)
    labeller = Labeller(service, ledger)
    label_grid(SHOTS, LADDER, labeller)

    assert {one.price_usd for one in ledger.entries()} == {0.002}
    assert labeller.cost_usd == pytest.approx(18 * 0.002)


def test_a_model_that_changes_during_the_run_stops_it_and_its_answer_is_kept(
    ledger: Ledger,
) -> None:
    service = Telling(version="lite0@1")
    labeller = Labeller(service, ledger)
    service.version = "lite0@2"

    with pytest.raises(BackendProtocol, match=r"lite0@2 instead of lite0@1"):
        label_grid(SHOTS, LADDER, labeller, workers=1)

    again = label_grid(SHOTS, LADDER, Labeller(service, ledger), workers=1)
    assert again.from_ledger >= 1
    assert again.calls + again.from_ledger == 18


def test_tables_of_one_ladder_are_joined(ledger: Ledger) -> None:
    labeller = Labeller(Service(), ledger)
    one, two = label_grid(SHOTS[:2], LADDER, labeller), label_grid(SHOTS[2:], LADDER, labeller)

    whole = concatenate([one, two])

    assert list(whole.keys) == [*one.keys, *two.keys]
    assert whole.bytes.shape == whole.agreement["eq1"].shape == (6, 3)
    assert whole.calls == one.calls + two.calls == 18
    other = label_grid(SHOTS, PAPER, labeller)
    with pytest.raises(UsageError, match="one ladder"):
        concatenate([one, other])
