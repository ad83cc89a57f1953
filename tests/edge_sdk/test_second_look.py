"""The probe contract on ONNX Runtime: what is answered, and what is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from edge_sdk.engine import SCHEMA as ENGINE
from edge_sdk.errors import EngineError
from edge_sdk.ladder import FULL, PAPER
from edge_sdk.second_look import SCHEMA, OnnxProbe

MakeProbe = Callable[..., bytes]

BEFORE = np.array([0.2, 0.5, 0.9], dtype=np.float32)
AFTER = np.array([0.3, 0.4, 0.95], dtype=np.float32)


def test_a_probe_answers_every_rungs_agreement(make_probe: MakeProbe) -> None:
    probe = OnnxProbe(make_probe(PAPER))
    told = probe.run(BEFORE, AFTER, 7, 0.4)
    table = np.linspace(-2.0, 2.0, 100).reshape(10, 10)
    assert probe.ladder == PAPER
    assert told.dtype == np.float32
    np.testing.assert_allclose(told, expit(20.0 * 0.05 + table[7] + 0.4), rtol=1e-5)


def test_it_matters_which_look_is_the_original(make_probe: MakeProbe) -> None:
    probe = OnnxProbe(make_probe())
    forth, back = probe.run(BEFORE, AFTER, 0, 0.1), probe.run(AFTER, BEFORE, 0, 0.1)
    assert (forth > back).all()


def test_four_threads_get_what_one_gets(make_probe: MakeProbe) -> None:
    probe = OnnxProbe(make_probe())
    expected = [probe.run(BEFORE, AFTER, rung, 0.3) for rung in range(10)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            got = pool.map(lambda rung: probe.run(BEFORE, AFTER, rung, 0.3), range(10))
            np.testing.assert_array_equal(list(got), expected)


@pytest.mark.parametrize(
    ("original", "candidate"),
    [
        (np.zeros(4, np.float32), np.zeros(4, np.float32)),
        (BEFORE, np.zeros(4, np.float32)),
        (BEFORE[None], AFTER[None]),
        (np.zeros(0, np.float32), np.zeros(0, np.float32)),
    ],
)
def test_features_of_another_engine_are_refused(
    original: NDArray[np.float32], candidate: NDArray[np.float32], make_probe: MakeProbe
) -> None:
    with pytest.raises(EngineError, match=r"compares 3 features, given .*another engine"):
        OnnxProbe(make_probe()).run(original, candidate, 0, 0.5)


def test_what_the_runtime_raises_becomes_an_engine_error(make_probe: MakeProbe) -> None:
    with pytest.raises(EngineError, match=r"The probe failed: .*"):
        OnnxProbe(make_probe()).run(BEFORE, AFTER, len(PAPER), 0.5)  # no such rung


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(range(256)) * 8])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(EngineError, match=r"no ONNX|wire type|empty|too small|loaded"):
        OnnxProbe(data)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema", "", rf"schema is ''; this code runs '{SCHEMA}'"),
        ("schema", ENGINE, rf"schema is '{ENGINE}'; this code runs '{SCHEMA}'"),
        ("schema", "adacompress.probe/2", r"schema is 'adacompress\.probe/2'"),
        ("preprocess_sha256", "0" * 64, r"another pre-processing \(000000000000….*train it again"),
        ("ladder", "[]", "at least one rung"),
        ("ladder", json.dumps([rung.as_dict() for rung in FULL]), r"\[1, 10\].*ladder of 18"),
    ],
)
def test_other_metadata_is_refused(
    name: str, value: str, message: str, make_probe: MakeProbe
) -> None:
    with pytest.raises(EngineError, match=message):
        OnnxProbe(make_probe(PAPER, metadata={name: value}))


def test_an_engine_is_no_probe(make_engine: Callable[..., bytes]) -> None:
    with pytest.raises(EngineError, match=rf"schema is '{ENGINE}'"):
        OnnxProbe(make_engine())


@pytest.mark.parametrize(
    "changes",
    [
        {"rename": {"original": "before"}},
        {"rename": {"candidate": "after"}},
        {"rename": {"agreement": "q_values"}},
        {"width": 9},
    ],
)
def test_another_signature_is_refused(changes: dict[str, Any], make_probe: MakeProbe) -> None:
    with pytest.raises(EngineError, match=rf"inputs are .*not of {SCHEMA}. Export it again") as no:
        OnnxProbe(make_probe(PAPER, **changes))
    assert "\n" not in str(no.value)
