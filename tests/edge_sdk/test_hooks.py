"""What a host sees and may change through its hooks; what it breaks is its own."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from edge_sdk.codec import encode
from edge_sdk.estimator import LoopParameters
from edge_sdk.hooks import Upload
from edge_sdk.ladder import PAPER, REFERENCE
from edge_sdk.metrics import PrometheusSink

NEVER = LoopParameters(p_0=0.0, p_min=1e-12)


def test_every_upload_is_seen_before_it_is_sent(device: Any) -> None:
    seen: list[Upload] = []
    client = device.client(before_upload=seen.append)
    picture = device.picture()
    client.process(picture)
    assert [(one.rung, one.served) for one in seen] == [(PAPER[1], True), (REFERENCE, False)]
    assert seen[0].jpeg == encode(picture, PAPER[1])
    assert device.service.qualities == [15, 75]


def test_a_hook_may_send_something_else(device: Any) -> None:
    def masked(upload: Upload) -> Upload:
        black = Image.new("RGB", Image.open(io.BytesIO(upload.jpeg)).size, (200, 200, 200))
        return replace(upload, jpeg=encode(black, upload.rung))

    client = device.client(device.config(loop=NEVER), before_upload=masked)
    result = client.process(device.picture())
    assert result.bytes == len(encode(Image.new("RGB", (96, 64), (200, 200, 200)), PAPER[1]))
    assert result.wire_bytes == result.bytes + 100


@pytest.mark.parametrize("answer", ["nonsense", Upload("no bytes", REFERENCE, True)])  # type: ignore[arg-type]
def test_a_hook_that_returns_nonsense_changes_nothing(device: Any, answer: Any) -> None:
    client = device.client(device.config(loop=NEVER), before_upload=lambda upload: answer)
    assert client.process(device.picture()).rung == PAPER[1]
    assert client.stats().failures == {"hook": 1}


@pytest.mark.parametrize("hook", ["before_upload", "on_result", "on_drop", "on_state_change"])
def test_a_hook_that_raises_is_counted_and_costs_nothing(device: Any, hook: str) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    client = device.client(**{hook: broken})
    device.service.failing = {75}
    assert client.process(device.picture()).labels
    assert set(client.stats().failures) == {"hook"}


def test_results_and_drops_are_told(device: Any) -> None:
    results: list[Any] = []
    drops: list[tuple[str, str]] = []
    client = device.client(
        on_result=results.append, on_drop=lambda reason, key: drops.append((reason, key))
    )
    device.service.failing = {75}
    result = client.process(device.picture())
    assert results == [result]
    assert drops == [("reference-upload", "")]


def test_figures_reach_the_sink(device: Any) -> None:
    sink = PrometheusSink()
    client = device.client(metrics=sink)
    result = client.process(device.picture())
    device.shelf.agents["day"].engine.broken = True
    client.process(device.picture())
    lines = sink.text().splitlines()
    assert 'adacompress_images_total{state="estimation"} 2' in lines
    assert "adacompress_uploads_total 3" in lines
    assert 'adacompress_failures_total{part="engine"} 1' in lines
    assert 'adacompress_fallbacks_total{reason="engine"} 1' in lines
    assert f"adacompress_wire_bytes_total {client.stats().uploaded_wire_bytes}" in lines
    assert any(line.startswith('adacompress_milliseconds_sum{part="encode"}') for line in lines)
    assert result.calls == 2


def test_a_sink_that_raises_is_counted(device: Any) -> None:
    client = device.client(metrics=object())
    assert client.process(device.picture()).labels
    assert set(client.stats().failures) == {"metrics"}
