"""Whatever breaks around it, ``process`` answers, or raises the one documented error."""

from __future__ import annotations

import errno
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.aside import AsideRetrainer
from edge_sdk.backends.base import Recognition
from edge_sdk.backends.guard import Guard, HttpPolicy
from edge_sdk.behind import Inline
from edge_sdk.client import EdgeClient
from edge_sdk.config import EdgeConfig
from edge_sdk.engine import OnnxEngine
from edge_sdk.errors import BackendUnavailable
from edge_sdk.ladder import PAPER, REFERENCE
from edge_sdk.preprocess import SPEC, spec_sha256
from edge_sdk.probe import expectation
from edge_sdk.retrain import RetrainRequest, RetrainResult
from edge_sdk.states import State
from model_store import Draft, Store

MakeEngine = Callable[..., bytes]


@pytest.fixture
def store(tmp_path: Path, make_engine: MakeEngine) -> Store:
    """A store on disk with one agent."""
    made = Store(tmp_path / "agents")
    model = make_engine(seed=1)
    outputs = {"features": 3, "q_values": 10, "agreement": 10, "size_ratio": 10}
    draft = Draft(
        algorithm="bandit",
        ladder=[rung.as_dict() for rung in PAPER],
        signature={
            "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 3]}],
            "outputs": [
                {"name": name, "dtype": "float32", "shape": [1, width]}
                for name, width in outputs.items()
            ],
        },
        preprocessing={"spec": SPEC, "sha256": spec_sha256()},
        reward={"alpha": 1.0, "beta": 0.0},
        operating_points=[{"trade_off": 2.0}],
        backend={"name": "fake://", "model_version": None, "min_score": 0.0},
        training={"fingerprint": "-", "photos": 1, "images": 1, "labels_bought": 1, "seed": 0},
        probe=expectation(OnnxEngine(model)),
    )
    made.promote(made.publish(draft, {"engine.onnx": ("engine", model)}).id)
    return made


@pytest.fixture
def client(device: Any, store: Store) -> Iterator[EdgeClient]:
    """A client with that agent, as a host has it."""
    with EdgeClient(EdgeConfig(store=store.root, backend=device.service)) as made:
        yield made


def engine_file(store: Store) -> Path:
    (entry,) = store.manifest("current").files
    return next(store.root.rglob(entry.sha256))


def test_the_engine_file_is_deleted_before_the_start(device: Any, store: Store) -> None:
    engine_file(store).unlink()
    with EdgeClient(EdgeConfig(store=store.root, backend=device.service)) as client:
        result = client.process(device.picture())
    assert (result.rung, result.labels[0].name) == (REFERENCE, "cat")
    assert result.fallback in ("store", "no-agent")


def test_the_engine_file_is_deleted_while_it_is_in_use(
    device: Any, store: Store, client: EdgeClient
) -> None:
    before = client.process(device.picture())
    engine_file(store).unlink()
    after = client.process(device.picture())
    assert before.agent_id == after.agent_id == store.manifest("current").id
    assert client.flush(10)
    assert not client.stats().failures


def test_the_store_is_read_only(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device.shelf.add(device.agent("night", quality=45, scenery="night"))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(device.shelf, "promote", refuse)
    client = device.client(behind=None)
    for _ in range(60):
        assert client.process(device.picture("night")).labels
        client.flush(10)
    assert client.stats().agent_id == "night"
    assert client.stats().failures == {"store": 1}


def test_the_devices_folder_cannot_be_made(device: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    config = device.config(folder=tmp_path / "taken" / "folder", spool=True)
    client = device.client(config, behind=None)
    assert client.process(device.picture()).labels
    assert client.submit(device.picture()).result(10).labels
    assert client.flush(10)
    assert client.stats().failures == {"memory": 1, "spool": 1}


def test_the_disk_is_full(device: Any) -> None:
    client = device.client(device.config(spool=True), behind=None)
    for owner in (client._loop._lessons._memory, client._sender._spool):
        (pages,) = owner._connection.execute("PRAGMA page_count").fetchone()
        owner._connection.execute(f"PRAGMA max_page_count = {pages}")
    futures = [client.submit(device.picture(size=(256, 256)), str(n)) for n in range(3)]
    results = [client.process(device.picture()) for _ in range(60)]
    assert all(one.labels for one in [*results, *(future.result(10) for future in futures)])
    assert client.flush(10)
    failures = client.stats().failures
    assert failures["spool"] >= 3
    assert set(failures) <= {"spool", "memory"}


def test_the_clock_jumps(device: Any) -> None:
    times = itertools.cycle([0.0, 5e8, -5e8, 1e18, 3.0])
    client = device.client(behind=None, clock=lambda: next(times))
    for _ in range(20):
        assert client.process(device.picture()).labels
    assert client.flush(10)
    assert not client.stats().failures


@pytest.mark.parametrize("method", ["begin", "finish"])
def test_the_loop_makes_a_mistake(
    device: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise AssertionError("cannot be")

    for behind in (None, Inline()):
        client = device.client(behind=behind)
        monkeypatch.setattr(client._loop, method, broken)
        result = client.process(device.picture())
        assert result.labels[0].name == "cat"
        assert result.fallback == ("loop" if method == "begin" else None)
        assert client.flush(10)
        assert client.stats().failures == {"loop": 1}
        client.close()


def test_the_spool_is_corrupt(device: Any) -> None:
    (device.folder / "spool.sqlite").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    client = device.client(device.config(spool=True), behind=None)
    assert client.process(device.picture()).labels
    assert client.submit(device.picture()).result(10).labels
    assert client.stats().failures == {"spool": 1}
    assert (device.folder / "spool.sqlite.damaged").exists()


def test_the_spool_breaks_while_it_is_in_use(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = device.client(device.config(spool=True), behind=None)

    def broken(*_: Any) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    for method in ("put", "answer", "image", "settle", "delivered", "remove"):
        monkeypatch.setattr(client._sender._spool, method, broken)
    results = [client.submit(device.picture()).result(10) for _ in range(3)]
    assert all(one.labels for one in results)
    assert client.stats().failures["spool"] >= 3


def test_another_client_has_the_spool(device: Any) -> None:
    config = device.config(spool=True)
    first, second = device.client(config, behind=None), device.client(config, behind=None)
    assert first.submit(device.picture()).result(10).labels
    assert second.submit(device.picture()).result(10).labels
    assert "spool" in second.stats().failures
    assert "spool" not in first.stats().failures


class Deaf:
    """A retrainer that hangs until it is closed, and ignores that it is."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()

    def start(self, request: RetrainRequest) -> None:
        self.reached.set()
        self.open.wait()

    def poll(self) -> RetrainResult | None:
        return None

    def close(self) -> None:
        self.open.wait()


def test_the_retrainer_hangs(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_sdk.aside._CLOSE_S", 0.01)
    retrainer = Deaf()
    client = device.client(behind=None, retrainer=retrainer)
    while not retrainer.reached.is_set():
        assert client.process(device.picture("night")).labels
        client.flush(10)
    assert client.process(device.picture("night")).state is State.RETRAINING
    assert isinstance(client._loop._lessons._retrainer, AsideRetrainer)
    client.close()
    retrainer.open.set()


class Link:
    """A service behind a link that is down for an hour, by a clock that only the test moves."""

    def __init__(self, service: Any) -> None:
        self.now, self.asked = 0.0, 0
        self._recognize = service.recognize
        self._guard = Guard(
            "fake", HttpPolicy(), clock=lambda: self.now, sleep=self.sleep, jitter=lambda: 0.5
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def recognize(self, jpeg: bytes) -> Recognition:
        return self._guard.call(lambda deadline: self._try(jpeg))

    def _try(self, jpeg: bytes) -> Recognition:
        self.asked += 1
        if self.now < 3600.0:
            raise BackendUnavailable("fake cannot be reached (connection refused).")
        return self._recognize(jpeg)  # type: ignore[no-any-return]


def test_the_backend_is_down_for_an_hour(device: Any) -> None:
    link = Link(device.service)
    device.service.recognize = link.recognize
    client = device.client(behind=None)
    for _ in range(600):
        link.now += 6.0
        if link.now >= 3600.0:
            break
        with pytest.raises(BackendUnavailable):
            client.process(device.picture())
    assert link.asked < 200  # the circuit asks now and then
    link.now += 60.0
    assert client.process(device.picture()).labels
    stats = client.stats()
    assert not stats.failures
    assert (stats.images, stats.state) in {(1, State.INFERENCE), (1, State.ESTIMATION)}


def test_pictures_of_that_hour_are_answered_after_it(device: Any) -> None:
    link = Link(device.service)
    device.service.recognize = link.recognize
    done: list[str] = []

    def pause(failures: int) -> float:
        link.now += 60.0
        return 0.0

    config = replace(device.config(spool=True), upload_threads=1)
    client = device.client(
        config, behind=None, pause=pause, on_result=lambda result: done.append(result.key)
    )
    futures = [client.submit(device.picture(), f"{number:02}") for number in range(20)]
    assert [future.result(30).key for future in futures] == sorted(done)
    assert sorted(done) == [f"{number:02}" for number in range(20)]
