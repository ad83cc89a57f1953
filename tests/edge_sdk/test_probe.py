"""The synthetic pictures are the same everywhere, and a drifted engine is caught."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_sdk.engine import OnnxEngine, Scores
from edge_sdk.errors import EngineError
from edge_sdk.ladder import PAPER
from edge_sdk.probe import COUNT, Q_GAP, check, expectation, pictures


class Told:
    """An engine that answers the Q-values it is told."""

    side, ladder, provider = 8, PAPER, "fake"

    def __init__(self, q_values: NDArray[Any]) -> None:
        self.q_values = q_values.astype(np.float32)

    def run(self, images: NDArray[np.uint8]) -> Scores:
        return Scores(np.zeros((len(images), 1), dtype=np.float32), self.q_values)


@pytest.fixture
def q_values() -> NDArray[np.float64]:
    """Q-values whose best rungs lead by far."""
    table = np.random.default_rng(0).uniform(-0.5, 0.5, (COUNT, len(PAPER)))
    table[np.arange(COUNT), np.arange(COUNT) % len(PAPER)] = 1.0
    return table


def test_the_pictures_are_made_of_a_formula() -> None:
    one, again = pictures(32), pictures(32)
    np.testing.assert_array_equal(one, again)
    assert one.shape == (COUNT, 32, 32, 3)
    assert one.dtype == np.uint8
    assert len({picture.tobytes() for picture in one}) == COUNT
    assert one.std(axis=(1, 2)).min() > 5


def test_the_pictures_do_not_change_between_versions() -> None:
    # Manifests hold what engines say to them, so a change would void every published agent.
    expected = [[128, 57, 51], [174, 192, 150], [76, 100, 149], [156, 119, 90]]
    np.testing.assert_allclose(pictures(4)[1, 2], expected, atol=1)


def test_an_engine_meets_its_own_expectation(make_engine: Any) -> None:
    engine = OnnxEngine(make_engine())
    expected = json.loads(json.dumps(expectation(engine)))
    check(engine, expected)
    assert len(expected["rungs"]) == COUNT
    assert expected["rungs"] == np.argmax(expected["q_values"], axis=1).tolist()


def test_another_engine_does_not(make_engine: Any) -> None:
    expected = expectation(OnnxEngine(make_engine(seed=0)))
    with pytest.raises(EngineError, match=r"decides otherwise here.*allowed 0\.02"):
        check(OnnxEngine(make_engine(seed=1)), expected)


def test_rungs_that_are_nearly_equal_may_swap(q_values: NDArray[np.float64]) -> None:
    q_values[3, 9] = 1.0 - 0.9 * Q_GAP
    got = q_values.copy()
    got[3, 9] = 1.01
    check(Told(got), {"q_values": q_values.tolist()})


def test_a_swap_beyond_the_gap_is_named(q_values: NDArray[np.float64]) -> None:
    q_values[3, 9] = 1.0 - 1.5 * Q_GAP
    got = q_values.copy()
    got[3, 9] = 1.01
    with pytest.raises(EngineError, match=r"probe picture 3 gets rung 9, a Q-value 0\.03 below"):
        check(Told(got), {"q_values": q_values.tolist()})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_fail_even_where_argmax_is_right(
    bad: float, q_values: NDArray[np.float64]
) -> None:
    got = q_values.copy()
    got[0, 0] = bad  # rung 0 is the expected one for picture 0, and argmax of a row with NaN
    with pytest.raises(EngineError, match="probe picture 0"):
        check(Told(got), {"q_values": q_values.tolist()})


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"q_values": []},
        {"q_values": [[0.1, 0.2]]},
        {"q_values": [[0.1], [0.2, 0.3]]},
        {"q_values": [["best"]]},
        {"q_values": None},
    ],
)
def test_an_expectation_of_another_form_is_an_engine_error(
    expected: dict[str, Any], q_values: NDArray[np.float64]
) -> None:
    with pytest.raises(EngineError, match="probe"):
        check(Told(q_values), expected)
