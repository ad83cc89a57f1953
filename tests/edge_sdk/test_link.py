"""Deciding only where it gains time, by a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.backends.base import Recognition
from edge_sdk.client import EdgeClient
from edge_sdk.codec import encode
from edge_sdk.engine import Scores
from edge_sdk.estimator import LoopParameters
from edge_sdk.ladder import PAPER, REFERENCE
from edge_sdk.link import AGAIN, LARGE, Link
from edge_sdk.policy import OperatingPoint

NEVER = LoopParameters(p_0=0.0, p_min=1e-12)
AGREEMENT = np.array([0.1, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 1.0, 1.0, 1.0], np.float32)


def measured(rate: float = 1e6, uploads: int = 5) -> Link:
    link = Link()
    for _ in range(uploads):
        link.uploaded(LARGE, LARGE / rate)
    return link


def test_the_uplink_is_a_median_of_large_bodies() -> None:
    link = measured(uploads=4)
    assert link.uplink is None
    link.uploaded(LARGE - 1, 1e-9)
    link.uploaded(LARGE, 0.0)
    assert link.uplink is None
    link.uploaded(100 * LARGE, 1e-9)
    assert link.uplink == pytest.approx(1e6)


@pytest.mark.parametrize(
    ("costs", "saved", "plain", "best"),
    [
        ((0.010, 0.000), 20_000, None, "full"),
        ((0.010, 0.000), 9_000, None, "fixed"),
        ((0.010, 0.015), 24_000, None, "fixed"),
        ((0.010, 0.015), 24_000, 12_000, "plain"),
        ((0.010, 0.015), 60_000, 12_000, "full"),
        ((0.010, 0.015), 60_000, 55_000, "plain"),
    ],
)
def test_what_gains_most_time_is_done(
    costs: tuple[float, float], saved: float, plain: float | None, best: str
) -> None:
    link = measured()
    for _ in range(5):
        assert link.mode("day") == "full"
        link.decided("day", costs, saved, plain)
    assert link.mode("day") == best
    assert link.mode("night") == "full"


def test_a_full_decision_comes_again_now_and_then() -> None:
    link = measured()
    for _ in range(5):
        link.decided("day", (1.0, 0.0), 0.0, None)
    modes = [link.mode("day") for _ in range(3 * AGAIN)]
    assert modes.count("full") == 3
    for _ in range(15):
        link.uploaded(LARGE, LARGE / 1e3)
        link.decided("day", (1.0, 0.0), 5000.0, None)
    assert {link.mode("day") for _ in range(AGAIN)} == {"full"}


class Slow:
    """A clock, and what takes time by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Foresight:
    """An engine that predicts sizes and takes its time."""

    side, provider, ladder, factored = 8, "fake", PAPER, True

    def __init__(self, clock: Slow, seconds: float) -> None:
        self.clock, self.seconds, self.runs = clock, seconds, 0

    def run(self, images: Any) -> Scores:
        self.clock.now += self.seconds
        self.runs += 1
        features = images.reshape(len(images), -1, 3).mean(axis=1).astype(np.float32)
        agreement = AGREEMENT[None]
        sizes = np.linspace(0.2, 1.2, 10, dtype=np.float32)[None]
        return Scores(features, agreement - sizes, agreement, sizes)


Make = Callable[..., tuple[EdgeClient, Foresight]]


@pytest.fixture
def make(device: Any) -> Make:
    """Make a client whose link has ``rate`` bytes a second and whose engine takes ``seconds``."""

    def made(rate: float, seconds: float, **agent: Any) -> tuple[EdgeClient, Foresight]:
        clock = Slow()
        recognize = type(device.service).recognize

        def slow(jpeg: bytes) -> Recognition:
            clock.now += len(jpeg) / rate
            return recognize(device.service, jpeg)  # type: ignore[no-any-return]

        device.service.recognize = slow
        engine = Foresight(clock, seconds)
        day = device.shelf.agents["day"]
        point = OperatingPoint(trade_off=1.0, certified=True)
        device.shelf.agents["day"] = replace(day, engine=engine, operating_point=point, **agent)
        config = device.config(loop=NEVER, link_aware=True)
        return device.client(config, clock=clock), engine

    return made


def large(device: Any) -> Any:
    values = device.rng.integers(60, 256, (512, 512, 3))
    return Image.fromarray(values.astype(np.uint8))


def test_on_a_slow_link_every_picture_is_decided(device: Any, make: Make) -> None:
    client, engine = make(rate=1e5, seconds=0.02)
    for _ in range(12):
        assert client.process(large(device)).rung == PAPER[1]
    stats = client.stats()
    assert engine.runs == 12
    assert stats.uplink == pytest.approx(1e5, rel=0.01)
    assert not stats.skips


def test_on_a_fast_link_the_reference_goes_without_a_decision(device: Any, make: Make) -> None:
    client, engine = make(rate=1e8, seconds=0.02)
    pictures = [large(device) for _ in range(30)]
    results = [client.process(picture) for picture in pictures]
    assert [one.rung for one in results[:5]] == [PAPER[1]] * 5
    assert results[6].rung == REFERENCE
    assert results[6].bytes == len(encode(pictures[6], REFERENCE))
    assert (results[6].skipped, results[6].fallback) == ("decision", None)
    assert engine.runs < 10
    assert client.stats().skips["decision"] == 30 - engine.runs


def test_a_certified_fixed_rung_is_sent_instead_of_the_reference(device: Any, make: Make) -> None:
    client, _ = make(rate=1e8, seconds=0.02, fixed=5)
    results = [client.process(large(device)) for _ in range(10)]
    assert results[8].rung == PAPER[5]


class Glass:
    """A probe that says what the engine said."""

    def run(self, original: Any, candidate: Any, rung: int, size_ratio: float) -> Any:
        return AGREEMENT


def test_looks_are_spared_where_the_agent_is_certified_without(device: Any, make: Make) -> None:
    plain = OperatingPoint(trade_off=1.0, certified=True)
    client, engine = make(rate=1e6, seconds=0.02, plain=plain, probe=Glass())
    agent = device.shelf.agents["day"]
    looking = replace(agent, operating_point=replace(plain, max_probes=3))
    client._loop._crew.current = looking
    results = [client.process(large(device)) for _ in range(12)]
    assert results[0].skipped is None
    assert results[10].skipped == "looks"
    before = engine.runs
    client.process(large(device))
    assert engine.runs == before + 1
    assert client.stats().skips["looks"] >= 5


def test_estimations_are_always_decided(device: Any, make: Make) -> None:
    make(rate=1e8, seconds=0.02)
    client = device.client(device.config(link_aware=True))  # verifies every picture
    for _ in range(12):
        assert client.process(large(device)).skipped is None
