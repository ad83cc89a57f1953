"""Frames that did not change: one upload, many answers, and no drift."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.config import EdgeConfig
from edge_sdk.estimator import LoopParameters
from model_store.errors import UsageError

NEVER = LoopParameters(p_0=0.0, p_min=1e-12)


def frame(value: int) -> Image.Image:
    return Image.new("RGB", (96, 64), (value, value, value))


def test_an_unchanged_frame_has_the_last_ones_answer(device: Any) -> None:
    client = device.client(device.config(loop=NEVER, gate=0.05))
    first = client.process(frame(200))
    second = client.process(frame(204))
    assert second.labels == first.labels
    assert (second.skipped, first.skipped) == ("gate", None)
    assert (second.calls, second.bytes, second.wire_bytes, second.uploaded_wire_bytes) == (0,) * 4
    assert client.process(frame(150)).calls == 1
    assert client.stats().skips == {"gate": 1}
    assert client.stats().calls == len(device.service.qualities) == 2


def test_small_changes_add_up_until_one_is_seen(device: Any) -> None:
    client = device.client(device.config(loop=NEVER, gate=0.05))
    calls = [client.process(frame(value)).calls for value in range(200, 160, -4)]
    assert calls[:3] == [1, 0, 0]
    assert sum(calls) == 4


def test_without_a_threshold_every_frame_is_uploaded(device: Any) -> None:
    client = device.client(device.config(loop=NEVER))
    assert [client.process(frame(200)).calls for _ in range(3)] == [1, 1, 1]
    assert not client.stats().skips


def test_estimations_are_made_all_the_same(device: Any) -> None:
    client = device.client(device.config(gate=0.5))
    assert [client.process(frame(200)).calls for _ in range(3)] == [2, 2, 2]


def test_a_failed_upload_answers_nobody(device: Any) -> None:
    client = device.client(device.config(loop=NEVER, gate=0.05))
    device.service.failing = {15}
    for _ in range(2):
        with pytest.raises(ConnectionError):
            client.process(frame(200))
    device.service.failing = set()
    assert client.process(frame(200)).calls == 1


def test_another_agents_features_are_not_compared(device: Any) -> None:
    client = device.client(device.config(loop=NEVER, gate=0.05))
    client.process(frame(200))
    client._loop._crew.current = device.agent("other", quality=15)
    assert client.process(frame(200)).calls == 1


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, np.nan])
def test_a_senseless_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="gate is"):
        EdgeConfig(store="agents", backend="fake://", gate=threshold)
