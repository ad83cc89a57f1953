"""The whole job on a handful of real photos: real weights, real HTTP, a real re-training child."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.__main__ import main
from training.demo import plan as plans
from training.demo.plan import Sizes
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
