"""What swapping agents costs pictures under way: p99 of ``process`` over p99 without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.agent import Agent
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.client import EdgeClient
from edge_sdk.config import EdgeConfig
from edge_sdk.engine import Scores
from edge_sdk.ladder import PAPER
from edge_sdk.policy import OperatingPoint
from model_store.errors import AgentNotFound

CALLERS, PICTURES, SWAPS = 4, 400, 1000


class Eye:
    """An engine that costs next to nothing, so that what is timed is the swapping."""

    side, provider, ladder, factored = 8, "fake", PAPER, False

    def __init__(self, rung: int) -> None:
        self._q_values = np.eye(len(PAPER), dtype=np.float32)[rung][None]

    def run(self, images: NDArray[np.uint8]) -> Scores:
        del images
        return Scores(features=np.zeros((1, 3), np.float32), q_values=self._q_values)


class Service:
    """Answers at once."""

    name = "fake://"
    capabilities = Capabilities(max_bytes=2**22, min_side=1, max_side=4096)

    def recognize(self, jpeg: bytes) -> Recognition:
        return Recognition((Label("cat", 0.9),), len(jpeg), 0.0)

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None: ...


@dataclass
class Shelf:
    """A store with two agents."""

    root: Path
    agents: dict[str, Agent] = field(default_factory=dict)

    def ids(self) -> tuple[str, ...]:
        return ()

    def load(self, reference: str, /) -> Any:
        return reference

    def load_healthy(self, alias: str, /) -> tuple[Any, tuple[str, ...]]:
        if not self.agents:
            raise AgentNotFound(alias)
        return next(iter(self.agents)), ()

    def promote(self, reference: str, /, alias: str, reason: str) -> None: ...


@pytest.fixture
def client(tmp_path: Path) -> Any:
    shelf = Shelf(tmp_path / "store")
    for rung, name in enumerate(("odd", "even")):
        shelf.agents[name] = Agent(name, Eye(rung), OperatingPoint(trade_off=None))
    config = EdgeConfig(store=shelf, backend=Service(), folder=tmp_path)
    with EdgeClient(config, load=shelf.agents.__getitem__) as opened:
        yield opened


def p99(client: EdgeClient, beside: Callable[[threading.Event], None]) -> float:
    """Return the 99th percentile of seconds of ``process`` in four threads."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    done = threading.Event()

    def serve(_: int) -> list[float]:
        spent = []
        for _ in range(PICTURES):
            begun = time.perf_counter()
            client.process(picture)
            spent.append(time.perf_counter() - begun)
        return spent

    with ThreadPoolExecutor(CALLERS + 1) as pool:
        swapping = pool.submit(beside, done)
        spent = [one for part in pool.map(serve, range(CALLERS)) for one in part]
        done.set()
        swapping.result()
    return float(np.quantile(spent, 0.99))


def test_swaps_beside_four_callers(benchmark: Any, client: EdgeClient) -> None:
    def swap(done: threading.Event) -> None:
        for number in range(SWAPS):
            client.use(("odd", "even")[number % 2])
            if done.wait(0.001):
                break

    quiet = p99(client, lambda done: None)
    busy = benchmark.pedantic(lambda: p99(client, swap), rounds=3)
    benchmark.extra_info["p99 during swaps / without"] = round(busy / quiet, 2)
    benchmark.extra_info["swaps"] = client.stats().swaps
