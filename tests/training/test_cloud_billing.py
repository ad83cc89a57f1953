"""What the local cloud bills is what the ledger holds, whatever fails and whoever is killed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk import codec
from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Label
from edge_sdk.backends.http import HttpClient, HttpPolicy
from edge_sdk.backends.torchserve import TorchServeBackend
from edge_sdk.errors import ImageError
from edge_sdk.ladder import PAPER
from model_store.errors import BackendError
from training.cloud.faults import FAULTS
from training.cloud.server import CloudServer
from training.cloud.settings import Settings
from training.labels.labelling import Labeller, label_grid
from training.labels.ledger import Ledger, picture_key

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
LADDER = PAPER[2:6]


class Stub:
    name, version, boxes = "stub", "stub@1", False

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        codec.load(jpeg)
        return (Label("cat", 0.75),)

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        return [self.answer(jpeg) for jpeg in jpegs]


@dataclass(frozen=True)
class Shot:
    seed: int

    @property
    def photo(self) -> str:
        return f"photo-{self.seed}"

    def open(self) -> Image.Image:
        rng = np.random.default_rng(self.seed)
        return Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_calls_billed_by_the_server_are_answers_in_the_ledger_whatever_fails(
    tmp_path: Path, seed: int
) -> None:
    faults = dict.fromkeys(FAULTS, 0.1)
    behaviour = Settings(seed=seed, faults=faults, slow_s=0.2)
    log, pause = tmp_path / "log.jsonl", lambda _seconds: None
    with (
        CloudServer(Stub(), dialects=["torchserve"], settings=behaviour, log=log) as server,
        contextlib.closing(Ledger(tmp_path / "ledger.sqlite")) as ledger,
    ):
        http = HttpClient(server.url, policy=HttpPolicy(circuit_failures=999), sleep=pause)
        with contextlib.closing(TorchServeBackend(server.url, "default", http=http)) as backend:
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
    assert {line["what"] for line in lines(log)} >= {"answer", *(f"fault:{one}" for one in faults)}
    assert max(Counter(line["picture"] for line in lines(log) if line["billed"]).values()) == 1


#: Labels the pictures of this very test with the service and the ledger that are named.
CHILD = """
import contextlib, importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("billing", sys.argv[1])
billing = importlib.util.module_from_spec(spec)
sys.modules["billing"] = billing
spec.loader.exec_module(billing)
billing.label(sys.argv[2], Path(sys.argv[3]))
"""


def label(service: str, ledger: Path) -> None:
    with (
        contextlib.closing(open_backend(service)) as backend,
        contextlib.closing(Ledger(ledger)) as opened,
    ):
        shots = [Shot(number) for number in range(6)]
        label_grid(shots, LADDER, Labeller(backend, opened), workers=2)


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


def test_a_client_killed_in_the_middle_of_labelling_buys_no_answer_twice(tmp_path: Path) -> None:
    gate, log, path = Gate(free=7), tmp_path / "log.jsonl", tmp_path / "ledger.sqlite"
    behaviour = Settings(latency_s=0.01)
    with CloudServer(Stub(), settings=behaviour, sleep=gate.sleep, log=log) as server:
        service = server.spec_of("baidu")
        command = [sys.executable, "-c", CHILD, __file__, service, str(path)]
        with subprocess.Popen(command, cwd=ROOT) as child:
            for _ in range(2):  # both its threads wait for an answer
                assert gate.inside.acquire(timeout=PATIENCE_S)
            child.kill()
        with contextlib.closing(Ledger(path)) as ledger:
            kept = len(ledger)
        gate.open.set()
        label(service, path)
        with contextlib.closing(Ledger(path)) as ledger:
            paid = len(ledger)

    bought = Counter(line["picture"] for line in lines(log) if line["billed"])
    lost = [line["picture"] for line in lines(log) if line["what"] == "abandoned"]
    assert kept == 7
    assert paid == len(bought) == server.counts()["billed"] == 6 * (len(LADDER) + 1)
    assert set(bought.values()) == {1}
    assert len(lost) == 2
    assert set(lost) <= bought.keys()  # asked for again, and paid for only then
