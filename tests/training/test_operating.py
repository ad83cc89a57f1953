"""Operating points: what is promised holds on fresh pictures, and a fixed rung may be enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint, choose
from training.learn.contest import Contest
from training.learn.operating import Goals, expected_point, operating_points
from training.learn.policies import GRID, SAFEST, Fixed, Policy, Static

Array = NDArray[np.float64]

#: The last rung decodes to the reference's pixels.
SIZES = np.array([0.1, 0.2, 0.35, 0.5, 0.9])
RUNGS = len(SIZES)
SAFE = RUNGS - 1
GOALS = Goals(target=0.9, delta=0.1, effect=1.0)


def scores(agreement: Array) -> Scores:
    """Return what a head predicts that knows the sizes."""
    size = np.tile(SIZES, (len(agreement), 1))
    return Scores(
        np.zeros((len(agreement), 1), np.float32),
        (agreement - size).astype(np.float32),
        agreement.astype(np.float32),
        size.astype(np.float32),
    )


def fixed(count: int) -> Fixed:
    return Fixed(tuple(reversed(range(RUNGS))), count)


@dataclass(frozen=True)
class Looking:
    """A policy that probes, as far as calibration can tell: it knows better, from another table."""

    scores: Scores
    max_probes: int = 2
    steps: Sequence[float] = (SAFEST, *GRID)

    def rungs(self, step: float) -> NDArray[np.int64]:
        return choose(self.scores, OperatingPoint(trade_off=step))

    def point(self, step: float) -> OperatingPoint:
        return OperatingPoint(trade_off=step, max_probes=self.max_probes)

    def foreseen(self, step: float) -> NDArray[np.float64]:
        chosen = self.rungs(step)
        assert self.scores.agreement is not None
        return np.asarray(self.scores.agreement[np.arange(len(chosen)), chosen], dtype=np.float64)

    def at(self, point: OperatingPoint) -> NDArray[np.int64]:
        return choose(self.scores, point)


@dataclass
class Held:
    """Held-out pictures with their answers; keeps what was asked."""

    answers: Array
    asked: list[NDArray[np.int64]] = field(default_factory=list)

    def observe(self, rungs: NDArray[np.int64]) -> Array:
        self.asked.append(rungs)
        return np.asarray(self.answers[np.arange(len(rungs)), rungs])

    def points(
        self, policies: dict[str, Policy], winner: str, goals: Goals = GOALS
    ) -> tuple[OperatingPoint, ...]:
        count = len(self.answers)
        groups = np.array([f"photo{index}" for index in range(count)], dtype=object)
        sizes = np.tile(SIZES, (count, 1))
        found = Contest(winner, {})
        return operating_points(policies, found, self.observe, groups, sizes, goals)

    @property
    def calls(self) -> int:
        """Answers that had to be bought: no cell twice, the reference's pixels never."""
        cells = {
            (row, int(rung)) for rungs in self.asked for row, rung in enumerate(rungs.tolist())
        }
        return len([cell for cell in cells if cell[1] != SAFE])


def policies(believed: Array, looked: Array | None = None) -> dict[str, Policy]:
    found: dict[str, Policy] = {"fixed": fixed(len(believed)), "static": Static(scores(believed))}
    if looked is not None:
        found["probing"] = Looking(scores(looked))
    return found


# --- what is promised -------------------------------------------------------------------------

WORLDS = 250
#: Violations that chance allows if the promise holds exactly: δ and three standard errors.
ALLOWED = WORLDS * GOALS.delta + 3.0 * math.sqrt(WORLDS * GOALS.delta * (1.0 - GOALS.delta))
STEPS = (SAFEST, *GRID[::4])


class World:
    """Eight kinds of pictures with true agreement curves, known badly, and better after a look."""

    def __init__(self, seed: int, *, least: float | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        rising = np.sort(self.rng.beta(3.0, 0.7, size=(8, RUNGS)), axis=1)
        if least is not None:
            rising[:] = least
        rising[:, SAFE] = 1.0
        self.truth = rising
        self.believed, self.looked = self._known(1.0), self._known(0.4)

    def _known(self, error: float) -> Array:
        """Too sure, mostly, and never quite sure."""
        errs = self.rng.normal(0.6 * error, error, size=self.truth.shape)
        logit = np.log(self.truth / np.maximum(1.0 - self.truth, 1e-3)) + errs
        believed = np.minimum(1.0 / (1.0 + np.exp(-logit)), 0.9999)
        return np.where(self.truth == 1.0, 1.0, believed)

    def of(self, kind: NDArray[np.int64]) -> dict[str, Policy]:
        made = policies(self.believed[kind], self.looked[kind])
        static, looking = made["static"], made["probing"]
        assert isinstance(static, Static)
        assert isinstance(looking, Looking)
        return made | {
            "static": replace(static, steps=STEPS),
            "probing": replace(looking, steps=STEPS),
        }

    def certify(self, winner: str, goals: Goals) -> OperatingPoint:
        kind = self.rng.integers(8, size=160)
        answers = (self.rng.random((160, RUNGS)) < self.truth[kind]).astype(float)
        return Held(answers).points(self.of(kind), winner, goals)[0]

    def agreement(self, point: OperatingPoint) -> float:
        """True agreement over all pictures there are."""
        every = np.arange(8)
        table = self.looked if point.max_probes else self.believed
        return float(self.truth[every, choose(scores(table), point)].mean())


@pytest.mark.parametrize(
    ("winner", "thrifty", "least"),
    [
        ("static", False, None),
        ("probing", True, None),
        ("fixed", False, None),
        # Nearly good enough, so that the test is all that stands against it.
        ("static", False, 0.895),
        ("probing", True, 0.895),
        ("fixed", True, 0.895),
    ],
)
def test_the_promise_is_broken_no_more_often_than_allowed(
    winner: str, thrifty: bool, least: float | None
) -> None:
    goals = replace(GOALS, thrifty=thrifty)
    worlds = [World(seed, least=least) for seed in range(WORLDS)]
    points = [world.certify(winner, goals) for world in worlds]
    broken = [
        point.certified and world.agreement(point) < GOALS.target
        for world, point in zip(worlds, points, strict=True)
    ]
    assert sum(broken) <= ALLOWED
    if least is None:  # nor is it empty
        assert np.mean([point.certified for point in points]) > 0.9
        cheaper = [world.of(np.arange(8)) for world in worlds]
        spent = [
            SIZES[(made["probing"] if point.max_probes else made["static"]).at(point)].mean()
            for made, point in zip(cheaper, points, strict=True)
        ]
        assert np.mean(spent) < 0.9 * SIZES[SAFE]
    else:
        assert sum(broken) > 0, "the worlds are hard enough to tell a certificate from hope"


# --- which point ------------------------------------------------------------------------------


def half_and_half(count: int = 200) -> Array:
    """Half of the pictures bear the cheapest rung, half need the fourth."""
    easy, hard = [1.0] * RUNGS, [0.0, 0.0, 0.0, 1.0, 1.0]
    return np.repeat([easy, hard], count // 2, axis=0)


def test_the_winner_of_the_contest_is_certified() -> None:
    answers = half_and_half()
    flat = np.tile([0.5, 0.6, 0.7, 0.99, 1.0], (200, 1))
    made = policies(flat, looked=np.clip(answers, 0.001, 1.0))
    probing, plain = Held(answers).points(made, "probing")
    assert (probing.certified, probing.max_probes, probing.rung) == (True, 2, None)
    assert (probing.target, probing.delta, probing.n) == (0.9, 0.1, 200)
    assert set(made["probing"].at(probing).tolist()) == {0, 3}
    assert (plain.max_probes, plain.certified, plain.rung) == (0, False, None)
    assert plain == expected_point(scores(flat), 0.9)

    (static,) = Held(answers).points(made, "static")
    assert (static.certified, static.max_probes) == (True, 0)


def test_a_contest_that_a_way_won_which_is_not_there_falls_back_to_the_plain_one() -> None:
    """It was told to look at nothing, as with ``--max-probes 0``."""
    answers = half_and_half()
    (point,) = Held(answers).points(policies(np.clip(answers, 0.001, 1.0)), "probing")
    assert (point.certified, point.max_probes) == (True, 0)
    assert point.trade_off is not None


def test_one_rung_is_enough_where_it_is_cheaper_and_it_says_so() -> None:
    """Everything bears the second rung; a head that believes otherwise pays for what it fears."""
    answers = np.tile([0.0, 1.0, 1.0, 1.0, 1.0], (200, 1))
    afraid = np.tile([0.001, 0.01, 0.02, 0.9, 1.0], (200, 1))
    afraid[::2, :4] = 0.002  # half of them go out at the dearest
    for winner in ("static", "probing"):
        (point,) = Held(answers).points(policies(afraid, looked=afraid), winner)
        assert (point.rung, point.trade_off, point.max_probes) == (1, None, 0)
        assert (point.certified, point.achieved, point.target) == (True, 1.0, 0.9)
        assert point.note.startswith("No look at the picture beat one fixed rung")


def test_a_fixed_rung_that_is_not_proved_does_not_replace_a_certificate() -> None:
    answers = half_and_half()
    believed = np.clip(answers, 0.001, 1.0)
    (point,) = Held(answers).points(policies(believed), "static")
    assert (point.certified, point.rung) == (True, None)
    assert set(choose(scores(believed), point).tolist()) == {0, 3}


def test_where_a_fixed_rung_won_the_contest_only_fixed_rungs_are_tried() -> None:
    answers = np.tile([0.0, 0.0, 1.0, 1.0, 1.0], (200, 1))
    held = Held(answers)
    (point,) = held.points(policies(np.ones((200, RUNGS))), "fixed")
    assert (point.rung, point.trade_off, point.certified) == (2, None, True)
    assert [sorted(set(rungs.tolist())) for rungs in held.asked] == [[4], [3], [2], [1]]


@pytest.mark.parametrize("winner", ["fixed", "static", "probing"])
def test_too_few_pictures_mean_the_safest_rung_and_the_number_needed(winner: str) -> None:
    answers = np.ones((15, RUNGS))
    believed = np.tile([0.9, 0.95, 0.99, 0.999, 1.0], (15, 1))
    for goals in (GOALS, replace(GOALS, thrifty=True)):
        (point,) = Held(answers).points(policies(believed, looked=believed), winner, goals)
        assert (point.certified, point.trade_off, point.max_probes) == (False, SAFEST, 0)
        assert choose(scores(believed), point).tolist() == [SAFE] * 15
        # Faultless pictures that prove it at all of delta: a share could certify nothing here.
        (needed,) = (n for n in range(100) if 0.9**n <= 0.1 < 0.9 ** (n - 1))
        assert f"at least {needed - 15} more are needed" in point.note


def test_shares_of_labels_have_to_prove_more() -> None:
    answers = np.ones((28, RUNGS))
    believed = np.tile([0.9, 0.95, 0.99, 0.999, 1.0], (28, 1))
    (plain,) = Held(answers).points(policies(believed), "static")
    (shares,) = Held(answers).points(policies(believed), "static", replace(GOALS, shares=True))
    assert (plain.certified, shares.certified) == (True, False)


# --- what is asked ----------------------------------------------------------------------------


@pytest.mark.parametrize("winner", ["static", "probing"])
def test_bought_answers_are_asked_about_chosen_rungs_alone(winner: str) -> None:
    rng = np.random.default_rng(0)
    truth = np.sort(rng.beta(3.0, 0.7, size=(300, RUNGS)), axis=1)
    truth[:, SAFE] = 1.0
    answers = (rng.random(truth.shape) < truth).astype(float)
    made = policies(truth, looked=truth)
    grid, thrifty = Held(answers), Held(answers)
    known = grid.points(made, winner)[0]
    bought = thrifty.points(made, winner, replace(GOALS, thrifty=True))[0]
    assert (known.certified, bought.certified) == (True, True)
    trade_offs = {SAFEST, *(factor * step for step in GRID for factor in (1.0, 4.0, 16.0))}
    chosen = {made[winner].rungs(step).tobytes() for step in trade_offs}
    one_rung = {np.full(300, rung).tobytes() for rung in range(RUNGS)}
    assert {rungs.tobytes() for rungs in thrifty.asked} <= chosen | one_rung
    assert len(thrifty.asked) < 0.5 * len(grid.asked)
    assert thrifty.calls < 0.75 * 300 * (RUNGS - 1)
