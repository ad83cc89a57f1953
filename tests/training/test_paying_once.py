"""What the local cloud bills is what the ledger holds, whatever fails and whoever is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk import codec, reading
from edge_sdk.backends import open_backend
from edge_sdk.backends.azure import AzureBackend
from edge_sdk.backends.baidu import BaiduBackend
from edge_sdk.backends.base import Backend, Label
from edge_sdk.backends.facepp import FaceppBackend
from edge_sdk.backends.google import GoogleBackend
from edge_sdk.backends.guard import Guard
from edge_sdk.backends.http import HttpClient, HttpPolicy
from edge_sdk.backends.rekognition import RekognitionBackend
from edge_sdk.backends.torchserve import TorchServeBackend
from edge_sdk.errors import ImageError
from edge_sdk.ladder import PAPER
from model_store.errors import BackendError
from training.cloud.dialects import DIALECTS
from training.cloud.faults import FAULTS
from training.cloud.server import CloudServer
from training.cloud.settings import Settings
from training.labels.labelling import Labeller, label_grid
from training.labels.ledger import Ledger, picture_key
from training.labels.table import AnswerTable

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
LADDER = PAPER[2:6]

#: Uploads of one picture: its reference and its rungs.
EACH = 1 + len(LADDER)


class Stub:
    name, version, boxes = "stub", "stub@1", False

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        reading.load(jpeg)
        return (Label("cat", 0.75),)

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        return [self.answer(jpeg) for jpeg in jpegs]


@dataclass(frozen=True)
class Shot:
    """A picture that all services take, unlike those of other numbers at every rung."""

    number: int

    @property
    def photo(self) -> str:
        return f"photo-{self.number}"

    def open(self) -> Image.Image:
        rng = np.random.default_rng(self.number)
        colours = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(colours).resize((80, 80))


class Time:
    """A clock that pauses advance; nobody waits."""

    def __init__(self) -> None:
        self._lock, self._now = threading.Lock(), 0.0

    def clock(self) -> float:
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds


def opened(dialect: str, url: str, policy: HttpPolicy, **time: Callable[..., Any]) -> Backend:
    """Open a client with the pauses and the clock of the test."""
    if dialect == "rekognition":
        guard = Guard(dialect, policy, **time)
        keys = ("key", "secret")
        return RekognitionBackend("eu-west-1", endpoint_url=url, keys=lambda: keys, guard=guard)
    builders: dict[str, Callable[..., Backend]] = {
        "azure": partial(AzureBackend, keys=lambda: ("key",)),
        "baidu": partial(BaiduBackend, keys=lambda: ("key", "secret")),
        "facepp": partial(FaceppBackend, keys=lambda: ("key", "secret")),
        "google": partial(GoogleBackend, keys=lambda: ("key",)),
        "torchserve": partial(TorchServeBackend, model="default"),
    }
    return builders[dialect](url, http=HttpClient(url, policy=policy, **time))


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


def bills(log: Path) -> Counter[str]:
    """How often each file was billed; a file is a picture at a rung."""
    return Counter(line["picture"] for line in lines(log) if line["billed"])


def sockets() -> set[str]:
    """Sockets of this process by their inodes, none where the system does not tell."""
    folder = Path("/proc/self/fd")
    links = [one for one in folder.iterdir() if one.is_symlink()] if folder.is_dir() else []
    return {target for link in links if (target := str(link.readlink())).startswith("socket:")}


# Faults.


@pytest.mark.parametrize("dialect", DIALECTS)
def test_calls_billed_by_the_server_are_answers_in_the_ledger_whatever_fails(
    tmp_path: Path, dialect: str
) -> None:
    possible = [fault for fault in FAULTS if fault != "token" or dialect == "baidu"]
    behaviour = Settings(seed=1, faults=dict.fromkeys(possible, 0.1), slow_s=0.2)
    log, time, policy = tmp_path / "log.jsonl", Time(), HttpPolicy(circuit_failures=999)
    with (
        CloudServer(Stub(), dialects=[dialect], settings=behaviour, log=log) as server,
        closing(opened(dialect, server.url, policy, clock=time.clock, sleep=time.sleep)) as backend,
        closing(Ledger(tmp_path / "ledger.sqlite")) as ledger,
    ):
        labeller = Labeller(backend, ledger)

        def insist(shot: Shot) -> int:
            """Ask about every rung until there is an answer; return how often it failed."""
            image, failed = shot.open(), 0
            for rung in LADDER:
                while True:
                    try:
                        labeller.ask(picture_key(image), rung, codec.encode(image, rung))
                        break
                    except BackendError:
                        failed += 1
            return failed

        with ThreadPoolExecutor(4) as pool:
            failures = sum(pool.map(insist, [Shot(number) for number in range(12)]))
        billed, paid = server.counts()["billed"], len(ledger)

    assert failures > 0
    assert paid == billed == 12 * len(LADDER)
    assert set(bills(log).values()) == {1}
    assert {line["what"] for line in lines(log)} >= {
        "answer",
        *(f"fault:{one}" for one in possible),
    }


@pytest.mark.slow
def test_two_thousand_uploads_with_faults_are_each_answered_or_a_typed_error_and_paid_once(
    tmp_path: Path,
) -> None:
    faults = {"5xx": 0.07, "reset": 0.07, "slow": 0.03, "malformed": 0.05}
    faults |= {"token": 0.03, "image": 0.05}
    shots = [Shot(number) for number in range(500)]
    log, threads, open_sockets = tmp_path / "log.jsonl", set(threading.enumerate()), sockets()
    # A slow answer outlasts the deadline; what comes at all comes within it.
    policy = HttpPolicy(deadline_s=1.0, circuit_failures=999)

    def label_all(server: CloudServer, ledger: Ledger, dialect: str) -> AnswerTable:
        backend = opened(dialect, server.url, policy, sleep=lambda _seconds: None)
        with closing(backend):
            labeller = Labeller(backend, ledger)
            return label_grid(shots, PAPER[3:4], labeller, workers=8, max_failures=len(shots))

    tables, paid = [], 0
    for behaviour in (Settings(seed=1, faults=faults, slow_s=20.0), Settings()):
        with (
            CloudServer(Stub(), settings=behaviour, log=log) as server,
            closing(Ledger(tmp_path / "ledger.sqlite")) as ledger,
        ):
            tables += [label_all(server, ledger, dialect) for dialect in ("baidu", "google")]
            bought, paid = len(ledger) - paid, len(ledger)
            assert server.counts()["billed"] == bought

    assert sum(bills(log).values()) == paid == 2000
    assert len(lines(log)) > 2000
    # One picture at one rung is one file, the same for both services.
    assert set(bills(log).values()) == {2}
    for table in tables[:2]:
        failed = {one.position for one in table.rejected}
        assert len(failed) + len(table) == len(shots)
        assert list(table.groups) == [shot.photo for shot in shots if shot.number not in failed]
        kinds = {one.kind for one in table.rejected}
        assert kinds == {"BackendProtocol", "BackendRejected", "BackendUnavailable"}
    assert [len(table) for table in tables[2:]] == [len(shots)] * 2
    assert {line["what"] for line in lines(log)} > {f"fault:{one}" for one in faults}
    assert set(threading.enumerate()) <= threads
    # Sockets that earlier tests left to the garbage collection may go meanwhile; none may come.
    assert sockets() <= open_sockets


# Kills.

#: Labels the pictures of this very test with the service and the ledger that are named.
CHILD = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("paying", sys.argv[1])
paying = importlib.util.module_from_spec(spec)
sys.modules["paying"] = paying
spec.loader.exec_module(paying)
paying.label(sys.argv[2], Path(sys.argv[3]))
"""


def label(service: str, ledger: Path) -> None:
    with closing(open_backend(service)) as backend, closing(Ledger(ledger)) as book:
        label_grid([Shot(number) for number in range(6)], LADDER, Labeller(backend, book))


def child(service: str, ledger: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, __file__, service, str(ledger)], cwd=ROOT)


def rows(ledger: Path) -> int:
    with closing(Ledger(ledger)) as book:
        return len(book)


class Gate:
    """Delays pass at first; then each waits until the gate is opened."""

    def __init__(self, free: int) -> None:
        self._free, self._lock = free, threading.Lock()
        self.inside, self.open = threading.Semaphore(0), threading.Event()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._free -= 1
            if self._free >= 0:
                return
        self.inside.release()
        assert self.open.wait(PATIENCE_S)


def test_a_client_killed_while_the_server_works_for_it_buys_no_answer_twice(
    tmp_path: Path,
) -> None:
    gate, log, path = Gate(free=7), tmp_path / "log.jsonl", tmp_path / "ledger.sqlite"
    behaviour = Settings(latency_s=0.01)
    with CloudServer(Stub(), settings=behaviour, sleep=gate.sleep, log=log) as server:
        service = server.spec_of("baidu")
        with child(service, path) as labelling:
            for _ in range(2):  # both its threads wait for an answer
                assert gate.inside.acquire(timeout=PATIENCE_S)
            labelling.kill()
        kept = rows(path)
        gate.open.set()
        label(service, path)

    lost = [line["picture"] for line in lines(log) if line["what"] == "abandoned"]
    assert kept == 7
    assert rows(path) == len(bills(log)) == server.counts()["billed"] == 6 * EACH
    assert set(bills(log).values()) == {1}
    assert len(lost) == 2
    assert set(lost) <= bills(log).keys()  # asked for again, and paid for only then


class Counting(Stub):
    """Lets a test know when it has looked at so many pictures."""

    def __init__(self, wanted: int) -> None:
        self._wanted, self._lock, self.reached = wanted, threading.Lock(), threading.Event()

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        with self._lock:
            self._wanted -= 1
            if not self._wanted:
                self.reached.set()
        return super().answer(jpeg)


@pytest.mark.parametrize("looks", [1, 11, 29])
def test_a_client_killed_at_any_moment_pays_again_for_what_was_on_its_way_at_most(
    tmp_path: Path, looks: int
) -> None:
    """Between the server's last byte and the ledger's commit nobody could save an answer."""
    model, log, path = Counting(looks), tmp_path / "log.jsonl", tmp_path / "ledger.sqlite"
    with CloudServer(model, log=log) as server:
        service = server.spec_of("facepp")
        with child(service, path) as labelling:
            assert model.reached.wait(PATIENCE_S)
            labelling.kill()
        kept = rows(path)
        before = len(bills(log))
        label(service, path)

    assert before - kept <= 2  # its two threads
    assert rows(path) == len(bills(log)) == 6 * EACH
    assert bills(log).total() - 6 * EACH == before - kept
