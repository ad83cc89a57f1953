"""What eight clients get from the local cloud next to one; run with ``make bench``.

The server runs in a process of its own. Read the ratio, not the milliseconds: on two idle cores it
is to be 1.7 or more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edge_sdk.backends import open_backend
from edge_sdk.backends.base import Backend
from model_store.errors import EnvironmentMissing
from training import assets
from training.cloud.process import CloudProcess

CLIENTS = 8
UPLOADS = 64


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    try:
        photos = assets.photos("objects", "places")
    except EnvironmentMissing as error:
        pytest.skip(str(error))
    return [path.read_bytes() for path in (photos * UPLOADS)[:UPLOADS]]


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    try:
        assets.find("efficientnet-lite0")
    except EnvironmentMissing as error:
        pytest.skip(str(error))
    with (
        CloudProcess("efficientnet-lite0") as cloud,
        contextlib.closing(open_backend(cloud.specs["azure"])) as opened,
    ):
        yield opened


def test_eight_clients(
    benchmark: Any, backend: Backend, jpegs: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def upload(clients: int) -> None:
        with ThreadPoolExecutor(clients) as pool:
            assert all(answer.labels for answer in pool.map(backend.recognize, jpegs))

    upload(CLIENTS)  # opens connections, warms up
    alone = min(_seconds(lambda: upload(1)) for _ in range(3))
    benchmark.pedantic(upload, args=(CLIENTS,), rounds=3)
    together = benchmark.stats.stats.min
    benchmark.extra_info["ratio"] = round(alone / together, 2)
    with capsys.disabled():
        print(
            f"\none client {UPLOADS / alone:.0f} pictures/s, {CLIENTS} clients "
            f"{UPLOADS / together:.0f} pictures/s, ratio {alone / together:.2f}"
        )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
