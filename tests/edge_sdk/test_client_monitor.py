"""The client with the default monitor: causes, caps, unknown sceneries, rollback."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_sdk.backends.base import Recognition
from edge_sdk.ladder import FULL
from edge_sdk.retrain import RetrainResult
from edge_sdk.states import State


def client_of(device: Any, **choices: Any) -> Any:
    return device.client(device.config(monitor="betting", **choices))


def test_an_unknown_scenery_is_served_losslessly_from_the_alarm_on(device: Any) -> None:
    client = client_of(device, retrain_after=400)
    for _ in range(40):
        client.process(device.picture("day"))
    while client.stats().state is not State.RETRAINING:
        result = client.process(device.picture("night"))
    for _ in range(60):
        result = client.process(device.picture("night"))
        assert result.labels[0].name == "cat"
        assert result.rung == FULL[-1] or result.bytes <= 4096
    assert client.stats().alarms == {"scenery": 1}


def test_a_new_model_version_is_an_alarm_of_the_backend(device: Any) -> None:
    version, inner = ["1"], device.service.recognize

    def recognize(jpeg: bytes) -> Recognition:
        return replace(inner(jpeg), model_version=version[0])

    device.service.recognize = recognize
    client = client_of(device)
    for _ in range(5):
        client.process(device.picture("day"))
    version[0] = "2"
    client.process(device.picture("day"))
    stats = client.stats()
    assert stats.alarms == {"backend": 1}
    assert stats.state is State.QUERYING


def test_canaries_notice_a_change_that_no_picture_shows(device: Any) -> None:
    inner, swapped = device.service.recognize, []

    def recognize(jpeg: bytes) -> Recognition:
        answer = inner(jpeg)
        if not swapped:
            return answer
        renamed = tuple(label._replace(name=f"new {label.name}") for label in answer.labels)
        return replace(answer, labels=renamed)

    device.service.recognize = recognize
    client = client_of(device, canary_every=5, labels=0.3, max_extra_calls=1000)
    for _ in range(150):
        client.process(device.picture("day"))
    swapped.append(True)
    for _ in range(40):
        client.process(device.picture("day"))
    assert client.stats().alarms == {"backend": 1}


def test_answers_that_vary_without_a_reason_are_noise(device: Any) -> None:
    client = client_of(device, labels=0.9, max_extra_calls=1000, canaries=0)
    for _ in range(40):
        client.process(device.picture("day"))
    device.service.readable["day"] = {75}
    while not client.stats().alarms:
        client.process(device.picture("day"))
        assert client.stats().images < 2000
    assert client.stats().alarms == {"noise": 1}


def test_steady_labels_stay_within_their_share(device: Any) -> None:
    client = client_of(device, canary_every=50)
    for _ in range(700):
        client.process(device.picture("day"))
    stats = client.stats()
    assert stats.alarms == {}
    assert stats.calls <= 1.02 * stats.images + 10


def test_in_no_window_more_bytes_than_the_cap_even_while_adapting(device: Any) -> None:
    client = client_of(device, retrain_after=10_000, max_transitions=10_000, max_extra_calls=900)
    sent, reference = [], []
    for index in range(1250):
        picture = device.picture("day" if index < 100 else "night")
        sent.append(client.process(picture).uploaded_wire_bytes)
        reference.append(device.service.wire_size(device.reference(picture)))
    sums = [np.concatenate([[0], np.cumsum(values)]) for values in (sent, reference)]
    ours, theirs = (values[1000:] - values[:-1000] for values in sums)
    assert (ours <= 1.02 * theirs).all()
    assert client.stats().calls > 1270  # it explored all the same


def test_what_is_saved_pays_for_checking_for_ever(device: Any) -> None:
    """A rung of whole frames goes without encoding the reference, which checks have to repay."""
    client, calls = client_of(device, max_extra_bytes=0.002, canaries=0), [0]
    for _ in range(3):
        for _ in range(250):
            client.process(device.picture("day"))
        calls.append(client.stats().calls)
    assert (np.diff(calls) > 250).all()


def test_a_retrained_agent_that_is_worse_is_taken_back(device: Any) -> None:
    client = client_of(device, retrain_after=10, labels=0.9, max_extra_calls=1000)
    for _ in range(40):
        client.process(device.picture("day"))
    device.shelf.add(device.agent("new", quality=25))  # not to be found by its scenery
    device.trainer.result = RetrainResult("new")
    while client.stats().agent_id == "day":
        if device.trainer.requests and device.trainer.result is None:
            device.trainer.result = RetrainResult("new")
        client.process(device.picture("night"))
        assert client.stats().images < 2000
    device.service.readable["night"] = {75}
    while client.stats().agent_id == "new":
        client.process(device.picture("night"))
        assert client.stats().images < 400
    assert client.stats().agent_id == "day"
    assert device.shelf.promoted[-1] == ("current", "day")


@pytest.mark.parametrize(
    "choice",
    [{"delta": 0.0}, {"labels": 1.0}, {"max_extra_calls": -1}, {"canary_every": 0}],
)
def test_senseless_choices_are_refused(device: Any, choice: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="allowed is"):
        device.config(**choice)
