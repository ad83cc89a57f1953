"""What an agent is worth: against a calculation by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import UsageError
from training.measure.cost import Cost, Prices, cost_of

amounts = st.none() | st.floats(0, 1000)


def cost(*, every: int = 10, decision_ms: float = 5.0, size: int = 20_000, **prices: Any) -> Cost:
    """100 pictures of 50,000 bytes sent in ``size``; each ``every``-th is watched."""
    table: Any = SimpleNamespace(
        groups=np.arange(100),
        reference_wire=np.full(100, 50_000),
        wire=np.full((100, 1), size),
    )
    calls = np.where(np.arange(100) % every == 0, 2.0, 1.0)
    return cost_of(
        table,
        np.zeros(100, np.int64),
        calls,
        Prices(**prices),
        decision_ms=decision_ms,
        rng=np.random.default_rng(0),
    )


def test_bytes_saved_pay_for_extra_calls_or_do_not() -> None:
    # By hand: 50,000 - 20,000 - 0.1 * 50,000 = 25,000 bytes an image, 25 GB a million.
    found = cost(usd_per_gb=0.1, usd_per_call=0.000_01)
    assert found.bytes_saved.mean == pytest.approx(25_000)
    assert found.extra_calls.mean == pytest.approx(0.1)
    assert found.net_usd_per_million is not None
    assert found.net_usd_per_million.mean == pytest.approx(25 * 0.1 - 100_000 * 0.000_01)
    assert found.net_usd_per_million.lo < 1.5 < found.net_usd_per_million.hi
    assert found.sentence.startswith("A million images save 1.50 USD (95 % interval ")
    assert "25.0 GB less on the wire save 2.50 USD and 100,000 extra calls" in found.sentence


def test_it_says_when_sending_the_reference_would_be_cheaper() -> None:
    found = cost(usd_per_gb=0.1, usd_per_call=0.001)
    assert found.net_usd_per_million is not None
    assert found.net_usd_per_million.mean == pytest.approx(2.5 - 100.0)
    assert found.sentence.startswith("Sending the reference would be cheaper: a million images")
    assert "cost 97.50 USD more with the agent" in found.sentence


def test_an_agent_that_sends_more_costs_more() -> None:
    found = cost(size=60_000, usd_per_gb=0.1, usd_per_call=0.0)
    assert found.bytes_saved.mean < 0
    assert "15.0 GB more on the wire cost 1.50 USD" in found.sentence


def test_an_unknown_price_of_a_call_is_not_hidden() -> None:
    assert "What a call costs is not known" in cost(usd_per_gb=0.1).sentence
    assert "not known" not in cost(usd_per_gb=0.1, usd_per_call=0.0).sentence


def test_a_day_has_as_many_images_as_was_said() -> None:
    found = cost(usd_per_gb=0.1, usd_per_call=0.0, images_per_day=200_000)
    assert found.net_usd_per_day is not None
    assert found.net_usd_per_day.mean == pytest.approx(0.5)
    assert found.sentence.endswith("A day of 200,000 images saves 0.50 USD.")
    loses = cost(usd_per_gb=0.1, usd_per_call=0.001, images_per_day=100_000)
    assert loses.sentence.endswith("A day of 100,000 images loses 9.75 USD.")


def test_a_link_turns_bytes_into_milliseconds() -> None:
    found = cost(uplink_mbit_s=10.0)  # 25,000 bytes are 200,000 bits
    assert found.upload_ms_saved is not None
    assert found.upload_ms_saved.mean == pytest.approx(20.0)
    assert found.net_usd_per_million is None
    assert found.sentence == (
        "At 10 Mbit/s an image takes 20.0 ms less to upload, and 5.0 ms to choose its rung."
    )


def test_a_link_that_is_faster_than_the_choice_saves_no_time() -> None:
    found = cost(uplink_mbit_s=100.0, decision_ms=30.0)
    assert found.sentence.endswith("on this link the agent saves no time.")


def test_nothing_is_computed_without_bytes_prices_or_a_link() -> None:
    assert not Prices(usd_per_call=0.001).asked
    assert Prices(usd_per_gb=0.0).asked
    assert Prices(uplink_mbit_s=1.0).asked


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({"usd_per_gb": -0.1}, r"--price-per-gb is -0\.1; allowed is a number of 0 or more"),
        ({"uplink_mbit_s": float("nan")}, "--uplink is nan"),
        ({"uplink_mbit_s": 0.0}, "--uplink is 0"),
        ({"images_per_day": 5.0}, "add --price-per-gb"),
    ],
)
def test_prices_that_mean_nothing_are_refused(prices: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Prices(**prices)


@given(amounts, amounts, st.integers(1, 100), st.integers(1, 100_000))
def test_a_sentence_never_contradicts_the_figure(
    per_gb: float | None, per_call: float | None, every: int, size: int
) -> None:
    found = cost(every=every, size=size, usd_per_gb=per_gb, usd_per_call=per_call)
    net = found.net_usd_per_million
    assert (net is None) == (per_gb is None)
    if net is not None:
        assert ("cheaper" in found.sentence) == (net.mean < 0)
