"""The whole job on a handful of real photos: real weights, real HTTP, a real re-training child."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model_store import Store, UsageError
from training import assets
from training.__main__ import main
from training.demo import plan as plans
from training.demo.main import run_demo
from training.demo.plan import Plan, Sizes
from training.demo.story import Told
from training.labels.ledger import Ledger
from training.learn.calibrate import images_needed
from training.measure import report

SCHEMA = Path(report.__file__).with_name("report.schema.json")

#: Enough pictures for every state of the loop, too few for a certificate.
SIZES = Sizes(
    views=1,
    shares=(0.5, 0.25, 0.25),
    long_side=256,
    day=30,
    night=80,
    day_again=60,
    retrain_after=20,
    n=16,
)


@pytest.fixture(scope="module")
def folder(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photos and a truncated one."""
    made = tmp_path_factory.mktemp("photos")
    for path in [*assets.photos("objects"), *assets.photos("places")[:20]]:
        shutil.copy(path, made)
    whole = assets.photos("places")[0].read_bytes()
    (made / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    return made


def small(folder: Path, run: Path) -> Plan:
    return Plan(run=run, sizes=SIZES, images=folder, accuracy_threshold=0.5, reward_threshold=-1.0)


@pytest.fixture(scope="module")
def told(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Told]:
    plan = small(folder, tmp_path_factory.mktemp("demo") / "run")
    return plan, run_demo(plan, command="python -m training demo")


def figures(told: Told) -> dict[str, Any]:
    """The report without what is not meant to repeat."""
    document: dict[str, Any] = json.loads(told.json.read_text())
    for name in ("timings_s", "decision_ms", "encode_ms", "decision_encode_ratio"):
        del document[name]
    return document


def bought(plan: Plan) -> int:
    with closing(Ledger(plan.run / "ledger.sqlite")) as ledger:
        return len(ledger)


@pytest.mark.slow
def test_the_report_is_valid_and_complete(told: tuple[Plan, Told]) -> None:
    document = json.loads(told[1].json.read_text())
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert {"reference", "best_fixed_paper", "best_fixed", "dqn", "agent", "oracle"} <= set(
        document["policies"]
    )
    assert (
        document["photos"]["train"]["photos"]
        + document["photos"]["calibration"]["photos"]
        + (document["photos"]["test"]["photos"])
        == 40
    )
    assert set(document["timeline"]["scenery"]) == {"day", "night"}
    assert any("synthetic" in note for note in document["synthetic"])
    assert "<svg" in told[1].html.read_text()


@pytest.mark.slow
def test_too_few_photos_are_said_and_the_safest_rung_is_used(told: tuple[Plan, Told]) -> None:
    document = json.loads(told[1].json.read_text())
    assert document["operating_point"]["certified"] is False
    assert "more" in document["operating_point"]["note"]
    assert document["policies"]["agent"]["agreement"]["any_hit"]["mean"] == 1.0
    assert "Not certified" in told[1].text


@pytest.mark.slow
def test_the_device_learns_the_night_and_comes_back_to_the_day(told: tuple[Plan, Told]) -> None:
    plan, _ = told
    store = Store(plan.run / "store")
    day = store.resolve("scenery/day")
    learnt = [name for name in store.aliases() if name.startswith("scenery/scenery-")]
    assert learnt
    assert store.manifest(learnt[0]).parent == day
    assert store.resolve("current") == day
    assert not any(store.verify().values())


@pytest.mark.slow
def test_a_second_run_pays_for_nothing_and_repeats_every_number(told: tuple[Plan, Told]) -> None:
    plan, first = told
    answers, before = bought(plan), figures(first)
    again = run_demo(plan, command="python -m training demo")
    assert figures(again) == before
    assert bought(plan) == answers


def test_a_folder_with_somebody_elses_store_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "precious").touch()
    with pytest.raises(UsageError, match="that no demo made"):
        run_demo(small(folder, tmp_path), command="demo")
    assert (tmp_path / "store" / "precious").exists()


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--target-accuracy", "1.5"], 2, "target accuracy is 1.5"),
        (["--images", "EMPTY"], 2, "holds no pictures"),
        (["--run", "FILE/run"], 4, "cannot be written"),
        (["--model", "nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input_gets_one_sentence_and_the_documented_code(
    options: list[str],
    code: int,
    sentence: str,
    installed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").touch()
    options = [str(tmp_path / one) if one.startswith(("EMPTY", "FILE")) else one for one in options]
    run = [] if "--run" in options else ["--run", str(tmp_path / "run")]
    assert main(["demo", "--quick", *run, *options]) == code
    assert sentence in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("sizes", [plans.FULL, plans.QUICK])
def test_a_plan_can_be_certified_and_has_room_for_every_state(sizes: Sizes) -> None:
    assert sum(sizes.shares) == pytest.approx(1.0)
    photos = sizes.photos or 147
    assert sizes.shares[1] * photos * sizes.views >= images_needed(0.95, 0.05)
    assert sizes.night >= 3 * sizes.n + sizes.retrain_after
    assert sizes.day_again >= 3 * sizes.n
