"""Results on disk and back, and counters that several threads share."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from edge_sdk.backends.base import Box, Label
from edge_sdk.ladder import FULL, REFERENCE
from edge_sdk.states import State
from edge_sdk.stats import Counters, Result

RESULT = Result(
    labels=(Label("cat", 0.9), Label("dog", 0.25, Box(1.0, 2.5, 3.0, 4.0))),
    rung=FULL[0],
    as_is=False,
    bytes=10,
    wire_bytes=12,
    uploaded_wire_bytes=40,
    calls=2,
    milliseconds={"load": 1.5},
    state=State.ESTIMATION,
    agent_id=None,
    p_est=0.2,
    agreement=1.0,
    fallback=None,
    key="door-1",
)


def test_a_result_survives_json() -> None:
    for result in (RESULT, replace(RESULT, labels=(), rung=REFERENCE, agent_id="day")):
        document = json.loads(json.dumps(result.to_dict()))
        assert Result.from_dict({**document, "of a later version": 1}) == result


def test_counters_add_up_whoever_counts() -> None:
    counters = Counters()

    def count(_: int) -> None:
        counters.uploaded(2, 40)
        counters.served(replace(RESULT, fallback="busy", skipped="gate"))
        counters.dropped("queue-full")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(500)))
    said = counters.snapshot()
    assert (said["images"], said["calls"], said["uploaded_wire_bytes"]) == (500, 1000, 20_000)
    assert said["fallbacks"] == {"busy": 500}
    assert said["skips"] == {"gate": 500}
    assert said["drops"] == {"queue-full": 500}
    assert said["states"] == {"estimation": 500}
