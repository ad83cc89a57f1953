"""From pictures to a device: what training chose is what the published agent sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import EdgeClient, EdgeConfig, LoopParameters
from edge_sdk.agent import Agent
from edge_sdk.assembly import load_agent
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.codec import encode
from edge_sdk.engine import Scores
from edge_sdk.ladder import PAPER, REFERENCE, Ladder, Rung
from edge_sdk.policy import OperatingPoint
from edge_sdk.reading import load
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Store
from training.labels.answers import Answers
from training.labels.labeller import Labeller
from training.labels.ledger import Ledger
from training.learn.contest import Contest
from training.learn.decisions import choices
from training.learn.decisions import policy_of as policy_in_training
from training.learn.features import extract, extract_looks
from training.learn.fit import fit_bandit
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.learn.policies import ByValue, Fixed, Probing, Static
from training.measure.agents import policy_of
from training.photos import View

#: The last rung decodes to the reference's pixels.
LADDER: Ladder = (Rung(3), Rung(8), Rung(16), Rung(30), Rung(75))
NEVER = LoopParameters(p_0=0.0, p_min=1e-12)
#: The corners of a small cube.
COLOURS = 128 + 8 * np.array([(r, g, b) for r in (-1, 1) for g in (-1, 1) for b in (-1, 1)])


class Painter:
    """A service that names the colour of a picture. Coarse quantisation shifts colours."""

    name = "fake://painter"
    capabilities = Capabilities(max_bytes=1 << 20, min_side=1, max_side=4096)

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def recognize(self, jpeg: bytes) -> Recognition:
        with self._lock:
            self.calls += 1
        mean = np.asarray(load(jpeg).image).mean(axis=(0, 1))
        best = int(((COLOURS - mean) ** 2).sum(axis=1).argmin())
        return Recognition((Label(f"colour {best}", 0.9),), len(jpeg))

    def wire_size(self, jpeg: bytes) -> int:
        return len(jpeg)

    def close(self) -> None:
        pass


def paint(folder: Path, seed: int, count: int) -> list[View]:
    """Return grainy pictures of one colour each."""
    rng, views = np.random.default_rng(seed), []
    folder.mkdir()
    for number in range(count):
        colour = COLOURS[rng.integers(8)] + rng.normal(0.0, 2.5, 3)
        pixels = np.clip(colour + rng.normal(0.0, 20.0, (64, 64, 1)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        views.append(View(folder / f"{number}.png"))
    return views


@dataclass(frozen=True)
class House:
    """What training left, and what it was made from."""

    service: Painter
    run: TrainingRun
    contest: Contest
    store: Store
    fresh: list[View]
    seen: Labelled


@pytest.fixture(scope="module")
def house(stand_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An agent that was trained by asking about a few rungs, certified, and published."""
    folder, service = tmp_path_factory.mktemp("house"), Painter()
    ledger = Ledger(folder / "ledger.sqlite")
    labeller = Labeller(service, ledger)

    def labelled(name: str, seed: int, count: int, calls: int) -> tuple[list[View], Labelled]:
        views = paint(folder / name, seed, count)
        answers = Answers(views, LADDER, labeller, wire_size=service.wire_size)
        answers.sample(calls, np.random.default_rng(seed))
        features = extract(stand_in, views, rng=np.random.default_rng(seed))
        looks = extract_looks(stand_in, views, LADDER)
        return views, Labelled(features, answers.table(), looks, answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        train, held = labelled("train", 0, 130, 3)[1], labelled("held", 1, 130, 0)[1]
        goal = Goal(backend=service.name, target=0.9, delta=0.1, scenery="paint")
        run, found = fit_bandit(stand_in, train, held, goal)
        store = Store(folder / "store")
        publish_run(run, store, aliases=["current"])
        fresh, seen = labelled("fresh", 2, 40, 0)
        yield House(service, run, found.contest, store, fresh, seen)
    ledger.close()


def test_where_only_a_look_tells_the_agent_looks(house: House) -> None:
    point = house.run.operating_point
    assert house.contest.winner == "probing"
    assert (point.certified, point.max_probes) == (True, 4)
    assert house.run.probe is not None
    assert [one.max_probes for one in house.run.points] == [0]
    assert house.run.facts["training"]["contest"] == house.contest.as_dict()
    bought = house.run.facts["training"]["labels_bought"]
    assert bought < 0.75 * 260 * len(LADDER)  # what the whole grid would have cost


def test_training_and_the_published_agent_choose_alike(house: House) -> None:
    agent = load_agent(house.store.load("current"))
    told: list[int] = []
    policy = policy_of(agent, house.fresh, progress=told.append)
    expected = choices(house.run, house.seen)
    assert isinstance(policy, Probing)
    assert sum(told) == 40
    np.testing.assert_array_equal(policy.at(agent.operating_point), expected)
    assert len(set(expected.tolist())) > 1
    in_training = policy_in_training(house.run, house.seen)
    assert isinstance(in_training, Probing)
    np.testing.assert_allclose(policy.size_ratio, in_training.size_ratio)
    np.testing.assert_allclose(policy.predictions, in_training.predictions, atol=1e-3)
    for step in (0.3, 1.0, 20.0):
        same = policy.rungs(step) == in_training.rungs(step)
        assert same.mean() >= 0.98  # two values may be equal but for rounding


@pytest.mark.parametrize("max_probes", [None, 0])
def test_a_device_sends_what_training_chose(max_probes: int | None, house: House) -> None:
    agent = load_agent(house.store.load("current"), max_probes=max_probes)
    expected = policy_of(agent, house.fresh).at(agent.operating_point)
    config = EdgeConfig(
        store=house.store.root,
        backend=house.service,
        loop=NEVER,
        monitor="paper",
        max_probes=max_probes,
        strict=True,
    )
    asked = house.service.calls
    with EdgeClient(config) as client:
        results = [client.process(view.open()) for view in house.fresh]
        assert dict(client.stats().failures) == {}
    assert house.service.calls - asked == len(house.fresh)
    for view, result, rung in zip(house.fresh, results, expected, strict=True):
        image = view.open()
        sent, reference = encode(image, LADDER[rung]), encode(image, REFERENCE)
        assert result.rung == (LADDER[rung] if len(sent) <= len(reference) else REFERENCE)
        assert result.bytes == min(len(sent), len(reference))


def test_what_the_device_sends_keeps_the_promise(house: House) -> None:
    chosen = choices(house.run, house.seen)
    agreement = house.seen.observer("any_hit")(chosen)
    assert agreement.mean() >= 0.85
    spent = house.seen.table.size_ratio[np.arange(40), chosen]
    enough = [
        float(house.seen.table.size_ratio[:, rung].mean())
        for rung in range(len(LADDER))
        if house.seen.observer("any_hit")(np.full(40, rung)).mean() >= agreement.mean()
    ]
    assert spent.mean() < min(enough)  # of any one rung that agrees as often


# --- other agents -----------------------------------------------------------------------------


class Eye:
    """An engine that predicts by mean colour, with or without agreement."""

    side, provider, ladder = 8, "fake", PAPER

    def __init__(self, *, factored: bool) -> None:
        self.factored = factored

    def run(self, images: NDArray[np.uint8]) -> Scores:
        features = images.reshape(len(images), -1, 3).mean(axis=1).astype(np.float32)
        q_values = np.cos(features[:, :1] + np.arange(10, dtype=np.float32))
        size_ratio = np.tile(np.linspace(0.1, 1.2, 10, dtype=np.float32), (len(images), 1))
        both = (np.abs(q_values), size_ratio) if self.factored else (None, None)
        return Scores(features, q_values, *both)


@pytest.mark.parametrize(
    ("point", "factored", "kind"),
    [
        (OperatingPoint(trade_off=2.0), True, Static),
        (OperatingPoint(trade_off=2.0, max_probes=3), True, Static),  # without a probe
        (OperatingPoint(trade_off=None), False, ByValue),
        (OperatingPoint(trade_off=None, rung=4), True, Fixed),
    ],
)
def test_an_agent_that_does_not_look_decides_by_the_picture_or_not_at_all(
    point: OperatingPoint, factored: bool, kind: type, tmp_path: Path
) -> None:
    views = paint(tmp_path / "views", 3, 12)
    agent = Agent("any", Eye(factored=factored), point)
    policy = policy_of(agent, views)
    assert type(policy) is kind
    decided = [agent.decide(view.open()).rung for view in views]
    assert policy.at(point).tolist() == decided


def test_an_agent_that_may_not_look_any_more_decides_by_the_picture(house: House) -> None:
    agent = load_agent(house.store.load("current"))
    blind = replace(agent, operating_point=replace(agent.operating_point, max_probes=0))
    assert isinstance(policy_of(blind, house.fresh[:3]), Static)
