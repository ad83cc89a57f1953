from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from training.measure.calculator import EXAMPLES, calculator, sentence
from training.measure.uploads import uploads_of

UPLOADS: dict[str, Any] = {
    "reference_bytes": 50_000.0,
    "bytes_saved": {"mean": 30_000.0, "lo": 20_000.0, "hi": 40_000.0},
    "extra_calls": {"mean": 0.1, "lo": 0.05, "hi": 0.2},
}


def test_sum_is_bytes_saved_minus_calls_made() -> None:
    said = sentence(UPLOADS, {"usd_per_gb": 1.0, "usd_per_call": 0.001, "images_per_day": 1e5})
    # As references: 5 GB and 100,000 calls. The agent: 3 GB less, 10,000 calls more.
    assert "cost 112.00 USD a day with the agent and 105.00 USD as references" in said
    assert "7.00 USD more a day, 2,555.00 USD more a year" in said
    # 2 GB less and 20,000 calls more at worst; 4 GB less and 5,000 more at best.
    assert "(from 6,570.00 USD more to 365.00 USD more)" in said
    assert "3.00 GB less a day; the monitor makes 10,000 calls more." in said


def test_given_prices_stand_in_the_fields_and_examples_are_called_so() -> None:
    page = calculator({"uploads": UPLOADS, "prices": {"usd_per_gb": 0.5, "usd_per_call": None}})
    assert 'required value="0.5"' in page
    assert f'value="{EXAMPLES["usd_per_call"]}"' in page
    assert "Examples that nobody gave: price per call, images per day." in page
    assert "price per GB sent" in calculator({"uploads": UPLOADS})
    given = dict.fromkeys(EXAMPLES, 2.0)
    assert "Examples" not in calculator({"uploads": UPLOADS, "prices": given})


@pytest.mark.parametrize("document", [{}, {"uploads": None}])
def test_nothing_measured_is_nothing_to_compute(document: Any) -> None:
    assert calculator(document) == ""


def test_uploads_take_the_monitors_references_off() -> None:
    table: Any = SimpleNamespace(
        reference_wire=np.array([1000, 2000]),
        wire=np.array([[100, 900], [300, 1500]]),
        groups=np.array([0, 1]),
    )
    found = uploads_of(table, np.array([0, 1]), np.array([1.0, 1.5]), rng=np.random.default_rng(0))
    assert found.reference_bytes == 1500
    assert found.bytes_saved.mean == (900 + (500 - 1000)) / 2
    assert found.extra_calls.mean == 0.25
