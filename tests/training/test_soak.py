"""A device that is killed again and again before a cloud that fails: nothing lost, nothing grows.

The suite runs a few hundred pictures and one kill. The long one, a few minutes::

    SOAK_IMAGES=20000 SOAK_KILLS=3 python -m pytest -s tests/training/test_soak.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_sdk import reading
from edge_sdk.backends.base import Label
from edge_sdk.engine import OnnxEngine
from edge_sdk.errors import ImageError
from edge_sdk.ladder import PAPER
from edge_sdk.preprocess import SPEC, spec_sha256
from edge_sdk.probe import expectation
from model_store import Draft, Store
from training.cloud.server import CloudServer
from training.cloud.settings import Settings

IMAGES = int(os.environ.get("SOAK_IMAGES", "300"))
KILLS = int(os.environ.get("SOAK_KILLS", "1"))
THREADS = 4
#: Pictures before figures count as settled, and share by which memory may then grow.
SETTLED, GROWTH = 1000, 0.10
FAULTS = {"5xx": 0.1, "reset": 0.06, "malformed": 0.04}
PATIENCE_S = 60.0 + IMAGES

# One life of the device: goes on where its host's own notes end, and tells what it used.
DEVICE = """
import io, json, os, sys, threading
import numpy as np
from PIL import Image
from edge_sdk import EdgeClient, EdgeConfig
from edge_sdk.backends.azure import AzureBackend
from edge_sdk.backends.http import HttpClient, HttpPolicy

store, url, folder, images, threads = sys.argv[1:]
notes = os.open(f"{folder}/answers", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
progress = f"{folder}/submitted"
begin = os.path.getsize(progress) if os.path.exists(progress) else 0

def photo(number):
    colours = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((96, 96)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()

def used(done):
    pages = int(open("/proc/self/statm").read().split()[1])
    return {"done": done, "pages": pages, "threads": threading.active_count(),
            "files": len(os.listdir("/proc/self/fd"))}

policy = HttpPolicy(backoff_s=0.01, circuit_failures=1000)
backend = AzureBackend(url, keys=lambda: ("any",), http=HttpClient(url, policy=policy))
config = EdgeConfig(store=store, backend=backend, folder=folder, spool=True,
                    spool_bytes=300_000, upload_threads=int(threads), retrain_after=500)
client = EdgeClient(config, pause=lambda failures: 0.01,
                    on_result=lambda result: os.write(notes, f"{result.key}\\n".encode()))
samples, count = [], 0
with open(progress, "ab", buffering=0) as submitted:
    for number in range(begin, int(images)):
        client.submit(photo(number), str(number))
        submitted.write(b".")
        count += 1
        if count % 50 == 0:
            samples.append(used(count))
assert client.flush(300)
stats = client.stats()
backend.close()
client.close()
print(json.dumps({"samples": samples, "failures": dict(stats.failures),
                  "drops": dict(stats.drops), "states": dict(stats.states)}))
"""


class Stub:
    name, version, boxes = "stub", "stub@1", False

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        reading.load(jpeg)
        return (Label("cat", 0.75),)

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        return [self.answer(jpeg) for jpeg in jpegs]


@pytest.fixture
def store(tmp_path: Path, make_engine: Callable[..., bytes]) -> Store:
    made, model = Store(tmp_path / "agents"), make_engine(seed=1)
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
        backend={"name": "azure://", "model_version": None, "min_score": 0.0},
        training={"fingerprint": "-", "photos": 1, "images": 1, "labels_bought": 1, "seed": 0},
        probe=expectation(OnnxEngine(model)),
    )
    made.promote(made.publish(draft, {"engine.onnx": ("engine", model)}).id)
    return made


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[CloudServer]:
    settings = Settings(seed=1, faults=FAULTS)
    with CloudServer(
        Stub(), dialects=["azure"], settings=settings, log=tmp_path / "requests.jsonl"
    ) as server:
        yield server


def start(store: Store, url: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            DEVICE,
            str(store.root),
            url,
            str(folder),
            str(IMAGES),
            str(THREADS),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answered(folder: Path) -> list[str]:
    file = folder / "answers"
    return file.read_text().split() if file.exists() else []


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="figures are read from /proc")
def test_a_device_that_is_killed_loses_nothing(
    store: Store, cloud: CloudServer, tmp_path: Path
) -> None:
    folder = tmp_path / "device"
    folder.mkdir()
    begun, waiting = time.monotonic(), threading.Event()
    for kill in range(KILLS):
        device = start(store, cloud.url, folder)
        while len(answered(folder)) < IMAGES * (kill + 1) // (KILLS + 1):
            assert device.poll() is None, device.communicate()
            assert time.monotonic() - begun < PATIENCE_S
            waiting.wait(0.05)
        device.kill()
        device.communicate()
    said, trouble = (last := start(store, cloud.url, folder)).communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, trouble

    told = Counter(answered(folder))
    report: dict[str, Any] = json.loads(said)
    assert set(told) == {str(number) for number in range(IMAGES)}
    # Told again only what was being told when the process was killed, and with the same answer.
    again = sum(told.values()) - IMAGES
    assert again <= KILLS * THREADS
    # Paid again only what was on its way then: verified ones are uploads of the reference, too.
    paid = Counter(
        one["picture"]
        for one in map(json.loads, (tmp_path / "requests.jsonl").read_text().splitlines())
        if one["billed"]
    )
    twice = sum(count - 1 for count in paid.values())
    assert twice <= KILLS * (THREADS + 1)
    assert report["failures"] == {}
    samples = report["samples"]
    assert len({one["threads"] for one in samples[1:]}) <= 1
    files = [one["files"] for one in samples[1:]]  # a connection that was reset may be missing
    assert not files or max(files) - min(files) <= THREADS
    settled = [one["pages"] for one in samples if one["done"] >= SETTLED]
    if settled:
        assert max(settled) <= (1 + GROWTH) * settled[0]
    seconds = time.monotonic() - begun
    print(f"\n{IMAGES} pictures, {KILLS} kills, {seconds:.0f} s: told again {again}, ", end="")
    print(f"paid again {twice}, requests {cloud.counts()['requests']}, drops {report['drops']}")
    print(f"states {report['states']}, pages {settled[:1]} to {settled[-1:]}, files {set(files)}")
    print(f"first and last {samples[:1]} {samples[-1:]}")
