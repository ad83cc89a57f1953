from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk.engine import OnnxEngine, Scores
from edge_sdk.ladder import PAPER
from edge_sdk.memory import Memory, Transition
from edge_sdk.policy import OperatingPoint, choose
from edge_sdk.retrain import RetrainRequest
from edge_sdk.scenery import Signature
from export.publish import publish_run
from model_store import AgentNotFound, Manifest, Store, UsageError
from model_store.files import write_json
from training.__main__ import main
from training.learn.dqn import PaperParameters
from training.learn.fit import fit_bandit, fit_dqn
from training.learn.goal import Goal
from training.learn.labelled import Labelled
from training.learn.policies import GRID, SAFEST
from training.retrain import operating_point, retrain

GOAL = Goal(backend="local:stand-in", scenery="day", target=0.9)

MakeLabelled = Callable[..., Labelled]


class House:
    """A store with a bandit agent and a DQN agent, and a memory of a harder scenery."""

    def __init__(self, folder: Path, stand_in: Any, make_labelled: MakeLabelled) -> None:
        self.folder, self.store = folder, Store(folder / "store")
        day, held = make_labelled(0, 120), make_labelled(1, 90)
        run, _ = fit_bandit(stand_in, day, held, GOAL)
        self.parent = publish_run(run, self.store, aliases=["current", "scenery/day"])[0]
        run, _ = fit_dqn(stand_in, day, GOAL, PaperParameters(K=30, T_start=10, hidden=(8,)))
        self.dqn = publish_run(run, self.store)[0]
        self.night = make_labelled(2, 60, harder=3.0)
        self.memory = remember(folder / "memory.sqlite", self.night)

    def request(self, **changes: Any) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "store": str(self.store.root),
            "parent": self.parent.id,
            "memory": str(self.memory),
            "scenery": "night",
            "alpha": 1.0,
            "beta": 0.0,
            "target_accuracy": 0.9,
            "seed": 5,
        }
        return RetrainRequest(**(wanted | changes)).to_json()


def remember(path: Path, seen: Labelled, each: int = 2) -> Path:
    """Log what a device would: some random rungs of every picture."""
    rng = np.random.default_rng(0)
    rows = np.arange(len(seen.table)).repeat(each)
    with contextlib.closing(Memory(path)) as memory:
        memory.append(
            Transition(
                features=seen.features.values[row],
                rung=rung,
                reward=0.0,
                agreement=float(seen.table.agreement["any_hit"][row, rung]),
                size_ratio=float(seen.table.size_ratio[row, rung]),
                image=f"image {row}",
            )
            for row, rung in zip(
                rows, rng.integers(len(PAPER), size=len(rows)).tolist(), strict=True
            )
        )
    return path


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, stand_in: Any, make_labelled: MakeLabelled
) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield House(tmp_path_factory.mktemp("house"), stand_in, make_labelled)


@pytest.fixture(scope="module")
def made(house: House) -> Manifest:
    """The agent that a retraining published."""
    return retrain(house.request())


# --- what is published ------------------------------------------------------------------------


def test_the_new_agent_is_the_scenerys_and_knows_its_parent(house: House, made: Manifest) -> None:
    assert house.store.resolve("scenery/night") == made.id
    assert made.parent == house.parent.id
    assert made.algorithm == "bandit"
    assert made.scenery is not None
    assert made.scenery["name"] == "night"


def test_what_others_use_is_left_where_it_is(house: House, made: Manifest) -> None:
    assert house.store.resolve("current") == house.parent.id
    assert house.store.resolve("scenery/day") == house.parent.id


def test_the_new_agent_is_not_certified_and_says_so(made: Manifest) -> None:
    point = OperatingPoint.from_dict(made.operating_points[0])
    assert not point.certified
    assert (point.target, point.n, point.achieved, point.delta) == (0.9, 60, None, None)
    assert point.note.startswith("Not certified: ")
    assert point.test == "expected by the model"


def test_the_manifest_tells_what_it_was_learnt_from(house: House, made: Manifest) -> None:
    training = made.training
    assert (training["images"], training["seed"]) == (60, 5)
    assert training["labels_bought"] == 120 + 60  # each picture's reference besides
    assert training["prefix"] == house.parent.training["prefix"]
    assert made.backend == house.parent.backend
    assert made.metrics["parity"]["same_rung"] == 1.0
    assert made.scenery is not None
    signature = Signature.from_dict(made.scenery["signature"])
    assert signature.n == 60
    assert signature.features.mean == pytest.approx(
        house.night.features.values.mean(axis=0), abs=1e-3
    )


def test_the_new_engine_has_the_parents_prefix_and_knows_the_new_scenery(
    house: House, made: Manifest, make_labelled: MakeLabelled
) -> None:
    unseen = make_labelled(9, 200, harder=3.0)
    new, old = (OnnxEngine(house.store.load(m.id).file("engine")) for m in (made, house.parent))
    assert new.ladder == PAPER
    pictures = unseen.features.inputs
    assert np.array_equal(new.run(pictures).features, old.run(pictures).features)
    # The day's agent expects too much of the night; the new one about what comes true.
    truth = unseen.table.agreement["any_hit"][: len(pictures)].mean()
    hoped, expected = (engine.run(pictures).agreement for engine in (old, new))
    assert hoped is not None
    assert expected is not None
    assert abs(expected.mean() - truth) < abs(hoped.mean() - truth)
    assert expected.mean() < hoped.mean()


def test_a_dozen_answers_keep_what_the_parent_knows_of_pictures(
    house: House, tmp_path: Path, make_labelled: MakeLabelled
) -> None:
    """Too few to learn that bright pictures bear more; the parent's head says so."""
    memory = remember(tmp_path / "memory.sqlite", make_labelled(4, 12, harder=3.0), each=1)
    agent = retrain(house.request(memory=str(memory), scenery="dawn"))
    engine = OnnxEngine(house.store.load(agent.id).file("engine"))
    shades = np.array([60, 200], dtype=np.uint8)[:, None, None, None]
    agreement = engine.run(np.tile(shades, (1, 16, 16, 3))).agreement
    assert agreement is not None
    dark, bright = agreement.mean(axis=1)
    assert bright > dark + 0.2


def test_the_same_request_makes_the_same_agent(house: House, made: Manifest) -> None:
    assert retrain(house.request()).id == made.id


# --- the operating point ----------------------------------------------------------------------


def predicted(*agreement: float) -> Scores:
    size = np.array([[0.1, 0.3, 0.6, 0.9]], dtype=np.float32)
    shown = np.array([agreement], dtype=np.float32)
    return Scores(np.zeros((1, 1), dtype=np.float32), shown - size, shown, size)


@pytest.mark.parametrize(("target", "rung"), [(0.5, 0), (0.65, 1), (0.85, 2), (0.97, 3)])
def test_the_trade_off_is_the_cheapest_that_the_head_holds_for_good(
    target: float, rung: int
) -> None:
    head = predicted(0.6, 0.8, 0.95, 1.0)
    point = operating_point(head, target)
    assert choose(head, point).tolist() == [rung]


def test_a_head_that_promises_nothing_gets_the_safest_rung() -> None:
    head = predicted(0.2, 0.3, 0.4, 0.5)
    assert operating_point(head, 0.9).trade_off == SAFEST


def test_a_head_that_promises_everything_gets_the_cheapest_trade_off() -> None:
    assert operating_point(predicted(1.0, 1.0, 1.0, 1.0), 0.9).trade_off == GRID[-1]


# --- requests that cannot be used -------------------------------------------------------------


def test_a_dqn_parent_is_refused_with_a_way_out(house: House) -> None:
    with pytest.raises(UsageError, match=r"DQN head.*--algorithm bandit"):
        retrain(house.request(parent=house.dqn.id))


def test_an_unknown_parent_is_not_found(house: House) -> None:
    with pytest.raises(AgentNotFound, match="dusk-0123456789ab"):
        retrain(house.request(parent="dusk-0123456789ab"))


def test_another_schema_is_refused(house: House) -> None:
    with pytest.raises(UsageError, match=r"schema is 'adacompress\.retrain/2', not"):
        retrain(house.request() | {"schema": "adacompress.retrain/2"})


def test_missing_fields_are_named(house: House) -> None:
    request = house.request()
    del request["parent"], request["seed"]
    with pytest.raises(UsageError, match=r"The request lacks parent, seed; "):
        retrain(request)


def test_fields_of_a_later_minor_version_are_ignored(house: House, made: Manifest) -> None:
    assert retrain(house.request() | {"priority": "high"}).id == made.id


def test_a_target_that_is_no_share_is_refused(house: House) -> None:
    with pytest.raises(UsageError, match=r"The target accuracy is 1\.5; allowed"):
        retrain(house.request(target_accuracy=1.5))


def test_a_missing_memory_is_a_clear_error(house: House, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.sqlite' cannot be read"):
        retrain(house.request(memory=str(tmp_path / "nowhere.sqlite")))


def test_an_empty_memory_is_a_clear_error(house: House, tmp_path: Path) -> None:
    Memory(tmp_path / "empty.sqlite").close()
    with pytest.raises(UsageError, match="no labelled pictures to learn from"):
        retrain(house.request(memory=str(tmp_path / "empty.sqlite")))


def only(path: Path, *, dimension: int = 12, rung: int = 0) -> str:
    """A memory of three pictures with these features and this rung."""
    with contextlib.closing(Memory(path)) as memory:
        memory.append(
            Transition(
                features=np.zeros(dimension, dtype=np.float32),
                rung=rung,
                reward=0.0,
                agreement=1.0,
                size_ratio=0.5,
                image=str(number),
            )
            for number in range(3)
        )
    return str(path)


def test_features_of_another_prefix_are_refused(house: House, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds 7 features a picture, but .* takes 12"):
        retrain(house.request(memory=only(tmp_path / "memory.sqlite", dimension=7)))


def test_rungs_of_another_ladder_are_refused(house: House, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds rungs 14 to 14, but the parent's ladder has 10"):
        retrain(house.request(memory=only(tmp_path / "memory.sqlite", rung=14)))


def test_nothing_is_published_when_a_request_is_refused(house: House, made: Manifest) -> None:
    before = house.store.ids()
    with pytest.raises(UsageError):
        retrain(house.request(parent=house.dqn.id, scenery="dusk"))
    assert house.store.ids() == before
    assert "scenery/dusk" not in house.store.aliases()


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def _no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends its process with the pipe on standard input; this process is the tests'."""
    monkeypatch.setattr(sys, "stdin", None)


@pytest.mark.usefixtures("_no_standard_input")
def test_the_command_prints_one_line_of_json(
    house: House, made: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "request.json", house.request())
    assert main(["retrain", "--request", str(tmp_path / "request.json")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"agent": made.id}


@pytest.mark.usefixtures("_no_standard_input")
@pytest.mark.parametrize("content", ["{", "[]", '"text"', "{}", None])
def test_a_request_that_cannot_be_read_is_one_sentence(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "request.json"
    if content is not None:
        file.write_text(content)
    assert main(["retrain", "--request", str(file)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "The request" in said.err
