"""How cost grows with callers, agents, answers and sceneries; each as a ratio; ``make bench``."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.backends.base import Label, Recognition
from edge_sdk.codec import encode
from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import FULL, REFERENCE
from edge_sdk.preprocess import SPEC, spec_sha256, to_input
from edge_sdk.probe import expectation
from edge_sdk.scenery import Glimpse, Signature, rank
from model_store import Draft, Store
from training.labels.ledger import Key, Ledger

InTurns = Callable[..., dict[str, float]]

AGENTS, FEW_AGENTS = 10_000, 10
ANSWERS, FEW_ANSWERS, LOOK_UPS = 1_000_000, 1_000, 2_000
SCENERIES, FEW_SCENERIES = 10_000, 100


def test_callers(
    benchmark: Any,
    make_engine: Callable[..., bytes],
    photo: Image.Image,
    tell: Callable[[dict[str, float], str], None],
) -> None:
    """Pictures a second with several callers, next to one caller, by the clock."""
    engine = OnnxEngine(make_engine(FULL, side=224))
    pictures = [photo.resize((1920, 1080)) for _ in range(16)]
    work: dict[str, Callable[[Image.Image], object]] = {
        "decide": lambda one: engine.run(to_input(one, engine.side)),
        "encode": lambda one: encode(one, REFERENCE),
    }

    def seconds(name: str, callers: int) -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(work[name], pictures))
        return time.perf_counter() - begun

    rounds: list[dict[tuple[str, int], float]] = []
    benchmark.pedantic(
        lambda: rounds.append({(name, n): seconds(name, n) for name in work for n in (1, 2, 4)}),
        rounds=5,
        iterations=1,
    )
    for n in (2, 4):
        gain = {
            name: float(np.median([one[name, 1] / one[name, n] for one in rounds])) for name in work
        }
        tell(gain, f"{n} callers on {os.cpu_count()} cores")
        assert all(one > 0.0 for one in gain.values())


@pytest.fixture(scope="module")
def stores(
    make_engine: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, Store]:
    """Stores with few and with many agents; what is timed only reads, so nothing is synced."""
    few, many = (Store(tmp_path_factory.mktemp(name)) for name in ("few", "many"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for store, count in ((few, FEW_AGENTS), (many, AGENTS)):
            _fill(store, count, make_engine(FULL))
    return few, many


def test_loading_of_many(in_turns: InTurns, stores: tuple[Store, Store]) -> None:
    few, many = stores
    work = {"store, load one": lambda: many.load("current")}
    assert in_turns(work, lambda: few.load("current"), "many/few")


def test_listing_of_many(in_turns: InTurns, stores: tuple[Store, Store]) -> None:
    few, many = stores
    assert in_turns({"store, list all": many.ids}, few.ids, "many/few")


def _fill(store: Store, count: int, engine: bytes) -> None:
    draft = Draft(
        algorithm="bandit",
        ladder=[rung.as_dict() for rung in FULL],
        signature={
            "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 8, 8, 3]}],
            "outputs": [{"name": "features", "dtype": "float32", "shape": [1, 3]}],
        },
        preprocessing={"spec": SPEC, "sha256": spec_sha256()},
        reward={"alpha": 1.0, "beta": 0.0},
        operating_points=[{"trade_off": 1.0}],
        backend={"name": "fake://", "model_version": None, "min_score": 0.0},
        training={"fingerprint": "-", "photos": 1, "images": 1, "labels_bought": 1, "seed": 0},
        probe=expectation(OnnxEngine(engine)),
    )
    for number in range(count):
        own = replace(draft, training={**draft.training, "seed": number})
        aliases = [] if number else ["current"]  # an alias keeps its history
        store.publish(own, {"engine.onnx": ("engine", engine)}, aliases=aliases)


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Ledger]]:
    """Ledgers with few and with many answers."""
    folder = tmp_path_factory.mktemp("ledgers")
    few, many = _ledger(folder / "few", FEW_ANSWERS), _ledger(folder / "many", ANSWERS)
    yield few, many
    few.close()
    many.close()


def test_many_answers(in_turns: InTurns, ledgers: tuple[Ledger, Ledger]) -> None:
    few, many = ledgers
    keys = [Key("service", f"{number:064x}", FULL[0], "1") for number in range(0, FEW_ANSWERS, 10)]

    def look_up(ledger: Ledger) -> Callable[[], object]:
        return lambda: [ledger.get(key) for key in keys]

    assert many.get(keys[-1]) is not None
    in_turns({"ledger, get": look_up(many)}, look_up(few), "many/few")


def test_many_look_ups(in_turns: InTurns, ledgers: tuple[Ledger, Ledger]) -> None:
    """Answers looked up at once, next to one by one, all over a large ledger."""
    _, many = ledgers
    places = np.random.default_rng(0).choice(ANSWERS, LOOK_UPS, replace=False)
    keys = [Key("service", f"{place:064x}", FULL[0], "1") for place in places]

    def one_by_one() -> list[object]:
        return [many.get(key) for key in keys]

    assert many.get_many(keys) == one_by_one()
    in_turns({"ledger, get_many": lambda: many.get_many(keys)}, one_by_one, "at once")


def _ledger(path: Path, count: int) -> Ledger:
    """Return a ledger with copies of one answer, each about another picture."""
    ledger = Ledger(path)
    ledger.put(Key("service", "x", FULL[0], "1"), Recognition((Label("cat", 0.9),), wire_bytes=9))
    connection = sqlite3.connect(path)
    with connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(answers)")]
        copied = ", ".join(name for name in names if name not in ("id", "picture"))
        connection.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1})"
            f" INSERT INTO answers (picture, {copied})"
            f" SELECT printf('%064x', i), {copied} FROM answers, n WHERE picture = 'x'"
        )
    connection.close()
    return ledger


def test_many_sceneries(in_turns: InTurns) -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(60, 1287)).astype(np.float32)
    signature = Signature.from_features(seen, rng)
    window = [Glimpse(row) for row in seen[:10]]
    few = {str(number): signature for number in range(FEW_SCENERIES)}
    many = {str(number): signature for number in range(SCENERIES)}
    ratios = in_turns(
        {"scenery, rank": lambda: rank(many, window)}, lambda: rank(few, window), "many/few"
    )
    assert ratios["scenery, rank"] < 2 * SCENERIES / FEW_SCENERIES
