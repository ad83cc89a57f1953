"""The decision rules, and the operating point's way through JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edge_sdk.engine import Scores
from edge_sdk.policy import OperatingPoint, choose
from model_store.errors import UsageError

# Multiples of 1/64 with small trade-offs: their products are exact in single precision.
_exact = st.integers(0, 64).map(lambda n: n / 64)
tables = arrays(np.float32, (5, 6), elements=_exact)
trade_offs = st.integers(0, 640).map(lambda n: n / 64)


def scores(agreement: Any = None, size_ratio: Any = None, q_values: Any = None) -> Scores:
    given_ = [table for table in (agreement, size_ratio, q_values) if table is not None]
    q_values = np.zeros_like(given_[0], dtype=np.float32) if q_values is None else q_values
    return Scores(
        features=np.zeros((len(given_[0]), 2), dtype=np.float32),
        q_values=np.asarray(q_values, dtype=np.float32),
        agreement=None if agreement is None else np.asarray(agreement, dtype=np.float32),
        size_ratio=None if size_ratio is None else np.asarray(size_ratio, dtype=np.float32),
    )


def test_the_trade_off_decides_between_agreement_and_size() -> None:
    table = scores(agreement=[[0.5, 0.8, 1.0]], size_ratio=[[0.1, 0.3, 1.0]])
    chosen = [int(choose(table, OperatingPoint(trade_off=t))[0]) for t in (0.0, 0.6, 1.0, 3.0, 4.0)]
    assert chosen == [0, 0, 1, 1, 2]


def test_without_a_trade_off_the_q_values_decide() -> None:
    table = scores([[1.0, 0.0]] * 2, [[0.1, 0.9]] * 2, q_values=[[0.1, 0.2], [0.4, 0.3]])
    chosen = choose(table, OperatingPoint(trade_off=None))
    assert chosen.tolist() == [1, 0]
    assert chosen.dtype == np.int64


def test_equal_values_go_to_the_first_and_cheapest_rung() -> None:
    table = scores(agreement=[[0.5, 1.0, 1.0]], size_ratio=[[0.0, 0.5, 0.5]])
    assert choose(table, OperatingPoint(trade_off=1.0)).tolist() == [0]
    assert choose(table, OperatingPoint(trade_off=2.0)).tolist() == [1]
    tied = scores(q_values=[[0.3, 0.7, 0.7]])
    assert choose(tied, OperatingPoint(trade_off=None)).tolist() == [1]


@pytest.mark.parametrize("lacking", ["agreement", "size_ratio"])
def test_a_trade_off_needs_both_heads(lacking: str) -> None:
    tables = {"agreement": [[0.5]], "size_ratio": [[0.5]], "q_values": [[0.5]], lacking: None}
    with pytest.raises(UsageError, match="no agreement and size heads"):
        choose(scores(**tables), OperatingPoint(trade_off=1.0))


def test_a_fixed_rung_is_sent_whatever_the_picture_looks_like() -> None:
    table = scores([[1.0, 0.0]] * 3, [[0.1, 0.9]] * 3, q_values=[[0.1, 0.2]] * 3)
    for trade_off in (None, 5.0):
        chosen = choose(table, OperatingPoint(trade_off=trade_off, rung=1))
        assert chosen.tolist() == [1, 1, 1]
    assert choose(table, OperatingPoint(trade_off=5.0, rung=0)).tolist() == [0, 0, 0]


@given(tables, tables, trade_offs)
def test_no_rung_is_worth_more_than_the_chosen_one(
    agreement: NDArray[np.float32], size_ratio: NDArray[np.float32], trade_off: float
) -> None:
    chosen = choose(scores(agreement, size_ratio), OperatingPoint(trade_off=trade_off))
    for row, rung in enumerate(chosen):
        value = [trade_off * a - s for a, s in zip(agreement[row], size_ratio[row], strict=True)]
        assert value[rung] == max(value)
        assert value.index(max(value)) == rung


@given(tables, tables, trade_offs, trade_offs)
def test_a_larger_trade_off_never_lowers_the_predicted_agreement(
    agreement: NDArray[np.float32], size_ratio: NDArray[np.float32], one: float, other: float
) -> None:
    table, rows = scores(agreement, size_ratio), np.arange(len(agreement))
    low, high = (choose(table, OperatingPoint(trade_off=t)) for t in sorted((one, other)))
    if one != other:
        assert (agreement[rows, high] >= agreement[rows, low]).all()
        assert (size_ratio[rows, high] >= size_ratio[rows, low]).all()


@given(
    st.builds(
        OperatingPoint,
        trade_off=st.none() | st.floats(0, 100),
        target=st.none() | st.floats(0, 1),
        certified=st.booleans(),
        n=st.integers(0, 1000),
        max_probes=st.integers(0, 9),
        rung=st.none() | st.integers(0, 20),
        note=st.text(),
    )
)
def test_an_operating_point_survives_the_way_through_a_manifest(point: OperatingPoint) -> None:
    assert OperatingPoint.from_dict(json.loads(json.dumps(point.as_dict()))) == point


def test_a_point_of_before_probes_and_fixed_rungs_has_none() -> None:
    point = OperatingPoint.from_dict({"trade_off": 2.0, "target": 0.95, "certified": True})
    assert (point.max_probes, point.rung) == (0, None)


def test_what_a_later_version_adds_is_ignored() -> None:
    point = OperatingPoint.from_dict({"trade_off": 2.0, "mood": "good"})
    assert point == OperatingPoint(trade_off=2.0)


def test_an_operating_point_without_its_trade_off_is_refused() -> None:
    with pytest.raises(UsageError, match="without 'trade_off'"):
        OperatingPoint.from_dict({"target": 0.95})
