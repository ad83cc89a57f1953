"""Fig. 12's bookkeeping, and a small stream through the real loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.backends.base import Label
from edge_sdk.config import EdgeConfig
from edge_sdk.ladder import FULL, REFERENCE
from export.publish import publish_run
from model_store import Store
from training.__main__ import main
from training.commands.reproduce import _columns_left_out, _table
from training.demo.diary_figures import measured, steady
from training.demo.figure12 import monitors
from training.demo.replay import Diary, LateRetrainer, play
from training.demo.world import World
from training.learn.fit import fit_bandit
from training.learn.goal import Goal
from training.photos import View
from training.reproduce.cases import Request
from training.reproduce.stream import streams


def diary(states: list[str], agents: list[str], **columns: Any) -> Diary:
    count = len(states)
    made = Diary(
        scenery=["x"] * count,
        state=states,
        p_est=[0.01] * count,
        accuracy=[1.0] * count,
        wire_bytes=[50] * count,
        reference_wire_bytes=[100] * count,
        rung=["q15"] * count,
        agent_id=agents,
        calls=[1] * count,
        served_bytes=[40] * count,
    )
    for name, values in columns.items():
        setattr(made, name, values)
    return made


def test_delays_are_counted_from_the_change_of_scenery() -> None:
    states = ["inference"] * 25 + ["querying"] * 5 + ["retraining"] * 10 + ["inference"] * 60
    agents = ["night"] * 25 + [""] * 15 + ["day"] * 23 + ["night"] * 37
    found = measured(diary(states, agents), (20, 40, 40), "night", 0.95)
    assert found["noticed_after"] == 5
    assert found["day_agent_after"] == 20
    assert found["noticed_return_after"] == 3
    assert found["returned_after"] == 3
    assert found["bytes"] == pytest.approx(0.5)
    assert found["steady_monitoring_bytes"] == pytest.approx(0.1)
    assert found["in_state"] == {"inference": 85, "querying": 5, "retraining": 10}


def test_what_never_happens_is_never() -> None:
    found = measured(diary(["inference"] * 100, ["night"] * 100), (20, 40, 40), "other", 0.95)
    assert found["noticed_after"] is None
    assert found["returned_after"] is None
    assert found["agreement_while_adapting"] is None


def test_the_worst_window_counts_not_the_mean() -> None:
    wire = [50] * 1500 + [110] * 1000 + [50] * 500
    made = diary(["inference"] * 3000, ["a"] * 3000, wire_bytes=wire)
    assert steady(made, 3000)["bytes_most_in_1000"] == pytest.approx(1.1)
    assert steady(made, 3000)["alarms_per_10000"] == 0.0


def test_both_monitors_are_the_papers_and_the_default(tmp_path: Path) -> None:
    both = monitors(0.95, 0, tmp_path)
    assert {name: config.monitor for name, config in both.items()} == {
        "paper": "paper",
        "betting": "betting",
    }
    assert (both["paper"].loop.n, both["paper"].loop.p_0) == (10, 0.2)


def test_the_table_tells_that_the_night_is_made_up() -> None:
    seen = {
        "measured": measured(diary(["inference"] * 9, ["a"] * 9), (3, 3, 3), "a", 0.95),
        "stable": steady(diary(["inference"] * 9, ["a"] * 9), 9),
        "timeline": {},
        "events": [],
    }
    figures = _columns_left_out(
        {"monitors": {"paper": seen, "betting": {**seen, "returns": [{"a": 1}]}}}
    )
    json.dumps(figures)
    assert "synthetic" in _table(figures, synthetic=True)
    assert "synthetic" not in _table(figures, synthetic=False)


def test_the_stream_has_a_drawing_its_data_and_a_caption(tmp_path: Path) -> None:
    made = diary(["inference"] * 9, ["a"] * 9)
    seen = {"measured": measured(made, (3, 3, 3), "a", 0.95), "timeline": made.timeline()}
    document = {"segments": [3, 3, 3], "monitors": {"paper": seen}}
    request = Request(command="reproduce --figure 12", target=0.9, seed=0)
    (exhibit,) = streams(document, request, synthetic=True)
    names = [path.name for path in exhibit.write(tmp_path)]
    assert sorted(names) == [f"figure12-paper.{kind}" for kind in ("csv", "png", "svg", "txt")]
    assert len(exhibit.rows) == 9
    assert "a thermal camera’s model" in exhibit.caption


def test_an_unknown_figure_is_a_usage_error() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", "--figure", "99"])


class Service:
    """Sees cats by night at any rung, by day only at the reference's pixels; counts questions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []

    def ask(self, picture: str, rung: Any, jpeg: bytes) -> tuple[Label, ...]:
        assert jpeg
        self.asked.append((picture, rung.pixels))
        good = rung.pixels == REFERENCE.pixels or rung.quality >= 45
        return (Label("cat" if good else "blur", 0.9),)


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any, make_labelled: Any) -> World:
    folder = tmp_path_factory.mktemp("pictures")
    views = []
    for index in range(24):
        noise = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
        views.append(View(folder / f"{index}.png"))
    features = make_labelled(3, 24).features.values
    return World(views, ["night"] * 24, features, Service())  # type: ignore[arg-type]


def test_a_stream_asks_about_each_picture_and_rung_once(
    world: World, tmp_path: Path, stand_in: Any, make_labelled: Any
) -> None:
    goal = Goal(backend="local:stand-in", scenery="night", target=0.9)
    run, _ = fit_bandit(stand_in, make_labelled(0, 120), make_labelled(1, 90), goal)
    store = Store(tmp_path / "store")
    agent = publish_run(run, store, aliases=["current"])[0]
    config = EdgeConfig(store=store.root, backend="local:none", monitor="betting", canaries=0)
    seen = play(
        world,
        config,
        list(range(24)) * 6,
        store=store,
        retrainer=LateRetrainer(2),
        folder=tmp_path / "device",
    )
    assert len(seen.state) == 144
    assert set(seen.agent_id) <= {agent.id, ""}
    assert seen.timeline()["image"] == list(range(144))
    sent, reference = sum(seen.wire_bytes), sum(seen.reference_wire_bytes)
    assert sent <= 1.02 * reference + 20 * max(seen.reference_wire_bytes)
    service: Any = world._labeller
    assert len(service.asked) == len(set(service.asked))
    assert world.found(0, FULL[-1]).labels == world.found(0, REFERENCE).labels
