"""Whoever encodes the pictures, the table is the same; only files travel, and nothing hangs."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.errors import BackendUnavailable, ImageError
from edge_sdk.ladder import FULL, Ladder, Rung
from model_store.errors import BudgetReached, EnvironmentMissing, UsageError
from training.labels.executors import OpenedExecutor, WorkerFailed, open_executor
from training.labels.labelling import Budget, Labeller, label_grid
from training.labels.ledger import Ledger
from training.labels.table import AnswerTable
from training.photos import View, views

LADDER: Ladder = (Rung(quality=10), Rung(quality=40), Rung(quality=75))


class Service:
    """Names a file's length; holds a key, and counts what it is asked."""

    name = "fake://host"
    capabilities = Capabilities(max_bytes=1 << 22, min_side=8, max_side=4096)

    def __init__(self) -> None:
        self.key = lambda: "SECRET"  # cannot be pickled either
        self.uploads: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def recognize(self, jpeg: bytes) -> Recognition:
        with self._lock:
            self.uploads[jpeg] += 1
        return Recognition((Label(f"{len(jpeg) // 1000} kB", 0.5),), len(jpeg))

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg) + 9

    def close(self) -> None:
        pass


class Now(Executor):
    """Runs everything at once, on pickled copies, as if it were elsewhere."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.seen.append(pickle.dumps((fn, args)))
        function, values = pickle.loads(self.seen[-1])
        future: Future[Any] = Future()
        try:
            future.set_result(pickle.loads(pickle.dumps(function(*values))))
        except Exception as error:
            future.set_exception(error)
        return future


class Never(Executor):
    """Takes everything and does nothing."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


class Failing(Now):
    """Loses some of the pictures."""

    def __init__(self, lost: set[int], error: Exception) -> None:
        super().__init__()
        self.lost, self.error = lost, error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        if len(self.seen) - 1 in self.lost:
            future = Future()
            future.set_exception(self.error)
        return future


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> list[View]:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(6):
        noise = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((240, 160)).save(folder / f"{number}.png")
    return views(sorted(folder.iterdir()), 2, long_side=None, seed=0)


def same(one: AnswerTable, other: AnswerTable) -> bool:
    rows = ("keys", "groups", "reference_bytes", "reference_wire", "bytes", "wire")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in rows) and all(
        np.array_equal(one.agreement[name], other.agreement[name]) for name in one.agreement
    )


# --- any executor -------------------------------------------------------------------------------


def test_the_table_does_not_depend_on_the_executor(shots: list[View], tmp_path: Path) -> None:
    tables = []
    for number, spec in enumerate(("threads", "threads:3", "pickled")):
        own, service = Ledger(tmp_path / f"{number}.sqlite"), Service()
        where = OpenedExecutor(Now(), 2) if spec == "pickled" else None
        with open_executor("threads" if where else spec) as opened:
            executor, ahead = where or opened
            tables.append(
                label_grid(
                    shots,
                    LADDER,
                    Labeller(service, own),
                    wire_size=service.wire_size,
                    executor=executor,
                    ahead=ahead,
                )
            )
        assert set(service.uploads.values()) == {1}
        own.close()
    assert tables[0].calls == 12 * 3
    assert all(same(table, tables[0]) for table in tables)


def test_only_pictures_and_settings_travel(shots: list[View], ledger: Ledger) -> None:
    executor, service = Now(), Service()
    label_grid(shots, LADDER, Labeller(service, ledger), executor=executor)

    assert len(executor.seen) == len(shots)
    assert max(map(len, executor.seen)) < 2000
    assert not any(b"SECRET" in sent or b"sqlite" in sent for sent in executor.seen)


def test_no_more_than_agreed_is_begun_ahead(shots: list[View], ledger: Ledger) -> None:
    executor, done = Now(), 0

    def step(count: int) -> None:
        nonlocal done
        assert len(executor.seen) <= done + 3
        done += count

    label_grid(
        shots, LADDER, Labeller(Service(), ledger), executor=executor, ahead=3, progress=step
    )
    assert done == len(shots)


def test_pictures_that_workers_die_of_are_named(shots: list[View], ledger: Ledger) -> None:
    executor = Failing({1, 5}, BrokenProcessPool("a process died"))
    labeller = Labeller(Service(), ledger)
    table = label_grid(shots, LADDER, labeller, executor=executor, max_failures=2)

    assert [one.position for one in table.rejected] == [1, 5]
    assert {one.kind for one in table.rejected} == {"WorkerFailed"}
    assert "a process died" in table.rejected[0].reason
    assert len(table) == 10


def test_workers_that_cannot_work_are_an_environment_error(
    shots: list[View], ledger: Ledger
) -> None:
    executor = Failing(set(range(12)), ModuleNotFoundError("No module named 'training'"))

    with pytest.raises(WorkerFailed, match=r"No module named .*same adacompress"):
        label_grid(shots, LADDER, Labeller(Service(), ledger), executor=executor, max_failures=3)
    assert issubclass(WorkerFailed, EnvironmentMissing)


def test_workers_without_the_folder_are_told_from_damaged_pictures(
    shots: list[View], ledger: Ledger, tmp_path: Path
) -> None:
    class Elsewhere(Now):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(
                ImageError(f"Picture {args[0].photo!r} cannot be read: no such file.")
            )
            return future

    with pytest.raises(EnvironmentMissing, match=r"cannot read what can be read here: .*share the"):
        label_grid(
            shots, LADDER, Labeller(Service(), ledger), executor=Elsewhere(), max_failures=99
        )

    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"nothing")
    pictures = [*shots, View(damaged)]
    table = label_grid(pictures, LADDER, Labeller(Service(), ledger), executor=Now())
    assert [(one.position, one.kind) for one in table.rejected] == [(12, "ImageError")]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), BackendUnavailable("gone")])
def test_nobody_waits_for_an_executor_after_the_end(
    shots: list[View], ledger: Ledger, failure: BaseException
) -> None:
    class Late(Never):
        """Answers the first picture only, when a few are under way."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            if len(self.futures) == 4:
                self.futures[0].set_result(fn(*args))
            return future

    def interrupt(_count: int) -> None:
        raise failure

    executor, running = Late(), set(threading.enumerate())
    with pytest.raises(type(failure)):
        label_grid(
            shots,
            LADDER,
            Labeller(Service(), ledger),
            executor=executor,
            ahead=4,
            progress=interrupt,
        )
    assert all(future.done() for future in executor.futures)
    assert set(threading.enumerate()) <= running


def test_the_budget_holds_with_an_executor(shots: list[View], ledger: Ledger) -> None:
    service, labeller = Service(), None
    with open_executor("threads:4") as opened:
        labeller = Labeller(service, ledger, Budget(max_calls=7))
        with pytest.raises(BudgetReached):
            label_grid(
                shots, LADDER, labeller, workers=4, executor=opened.executor, ahead=opened.ahead
            )
    assert service.uploads.total() == len(ledger) == 7


# --- opening one --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    ["thread", "threads:", "threads:0", "threads:-1", "threads:x", "dask:", "dask://host", ""],
)
def test_what_is_no_executor_is_a_usage_error(spec: str) -> None:
    with pytest.raises(UsageError, match="allowed are threads"), open_executor(spec):
        pass


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(EnvironmentMissing, match=r"adacompress\[cluster\]"),
        open_executor("dask://127.0.0.1:8786"),
    ):
        pass


# --- a real cluster -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler and two worker processes on loopback."""
    with local_cluster(2) as made:
        yield made


def local_cluster(workers: int) -> Any:
    distributed = pytest.importorskip("distributed")
    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    )


def address(cluster: Any) -> str:
    return str(cluster.scheduler_address).removeprefix("tcp://")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[View]:
    """Pictures that take a moment each."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(1)
    for number in range(30):
        noise = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((900, 600)).save(folder / f"{number}.jpg")
    return views(sorted(folder.iterdir()), 1, long_side=None, seed=0)


@pytest.mark.slow
def test_a_worker_that_is_killed_half_way_costs_no_answer(
    cluster: Any, many: list[View], tmp_path: Path
) -> None:
    service, steps = Service(), 0
    victim = next(iter(cluster.workers.values())).process.pid

    def step(count: int) -> None:
        nonlocal steps
        steps += count
        if steps == 8:
            os.kill(victim, signal.SIGKILL)

    with (
        Ledgers(tmp_path) as ledgers,
        open_executor(f"dask://{address(cluster)}") as opened,
    ):
        budget = Budget(max_calls=30 * len(FULL), price_per_call=0.001)
        table = label_grid(
            many,
            FULL,
            Labeller(service, ledgers("cluster"), budget),
            executor=opened.executor,
            ahead=opened.ahead,
            progress=step,
        )
        alone = label_grid(many, FULL, Labeller(Service(), ledgers("alone")))
    with pytest.raises(ProcessLookupError):
        os.kill(victim, 0)
    assert steps == 30
    assert table.rejected == ()
    assert same(table, alone)
    assert set(service.uploads.values()) == {1}
    assert table.calls == budget.calls == 30 * len(FULL)


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_folder_says_so(
    cluster: Any, many: list[View], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(many[0].path.parent)  # where the workers are not
    here = [View(Path(view.path.name)) for view in many[:3]]
    with (
        open_executor(f"dask://{address(cluster)}") as opened,
        pytest.raises(EnvironmentMissing, match=r"'\d\.jpg' cannot be read.*under the same path"),
    ):
        label_grid(here, FULL, Labeller(Service(), ledger), executor=opened.executor)


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_an_environment_error() -> None:
    pytest.importorskip("distributed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with (
        pytest.raises(EnvironmentMissing, match="no dask scheduler at"),
        open_executor(f"dask://127.0.0.1:{port}", patience_s=0.3),
    ):
        pass


class Gone(Failing):
    """A scheduler that was lost: no picture comes back, and no goodbye is heard."""

    def __init__(self, *_address: object, **_options: object) -> None:
        super().__init__(set(range(100)), RuntimeError("the scheduler is gone"))

    def __enter__(self) -> Gone:
        return self

    def __exit__(self, *_failure: object) -> None:
        pass

    def wait_for_workers(self, count: int, timeout: float) -> None:
        pass

    def nthreads(self) -> dict[str, int]:
        return {"worker": 2}

    def get_executor(self, **_options: object) -> Executor:
        return self

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        raise RuntimeError("the client is closed")


def test_a_scheduler_that_is_lost_is_told_once(
    shots: list[View], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=Gone))

    with (
        open_executor("dask://scheduler:8786") as opened,
        pytest.raises(WorkerFailed, match="the scheduler is gone"),
    ):
        label_grid(shots, LADDER, Labeller(Service(), ledger), executor=opened.executor)


@pytest.mark.slow
def test_a_cluster_without_workers_is_an_environment_error() -> None:
    with (
        local_cluster(0) as empty,
        pytest.raises(EnvironmentMissing, match="has no workers"),
        open_executor(f"dask://{address(empty)}", patience_s=0.3),
    ):
        pass


class Ledgers:
    """Opens ledgers in a folder and closes them all."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._opened = folder, list[Ledger]()

    def __call__(self, name: str) -> Ledger:
        self._opened.append(Ledger(self._folder / f"{name}.sqlite"))
        return self._opened[-1]

    def __enter__(self) -> Ledgers:
        return self

    def __exit__(self, *failure: object) -> None:
        for one in self._opened:
            one.close()
