"""The client where nothing fails: states, sceneries, bytes, bookkeeping."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.backends.base import Box, Label, Recognition
from edge_sdk.client import EdgeClient
from edge_sdk.codec import encode
from edge_sdk.config import EdgeConfig
from edge_sdk.errors import ClosedError
from edge_sdk.estimator import LoopParameters
from edge_sdk.ladder import FULL, PAPER, REFERENCE
from edge_sdk.memory import read_transitions
from edge_sdk.reading import load
from edge_sdk.retrain import RetrainResult
from edge_sdk.states import State
from model_store.errors import UsageError

NEVER = LoopParameters(p_0=0.0, p_min=1e-12)


def jpeg(image: Image.Image, quality: int, **choices: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, **choices)
    return buffer.getvalue()


def test_inference_sends_the_chosen_rung_alone(device: Any) -> None:
    client = device.client(device.config(loop=NEVER))
    picture = device.picture()
    result = client.process(picture)
    assert result.labels[0].name == "cat"
    assert result.rung == PAPER[1]
    assert result.bytes == len(encode(picture, PAPER[1]))
    assert result.wire_bytes == result.uploaded_wire_bytes == result.bytes + 100
    assert (result.calls, result.state, result.agent_id) == (1, State.INFERENCE, "day")
    assert result.agreement is None
    assert result.fallback is None
    assert set(result.milliseconds) == {"load", "decide", "encode", "upload"}


def test_estimation_sends_the_reference_too_and_logs_the_transition(device: Any) -> None:
    client = device.client()
    picture = device.picture()
    result = client.process(picture)
    reference = len(encode(picture, REFERENCE))
    assert device.service.qualities == [15, 75]
    assert (result.state, result.agreement, result.calls) == (State.ESTIMATION, 1.0, 2)
    assert result.uploaded_wire_bytes == result.wire_bytes + reference + 100
    logged = read_transitions(device.folder / "memory.sqlite")
    assert logged.rungs.tolist() == [1]
    assert logged.size_ratios[0] == pytest.approx(result.bytes / reference)
    assert logged.rewards[0] == pytest.approx(1.0 - result.bytes / reference)


def test_the_reward_has_the_users_weights(device: Any) -> None:
    client = device.client(device.config(alpha=2.0, beta=0.5))
    client.process(device.picture())
    logged = read_transitions(device.folder / "memory.sqlite")
    assert logged.rewards[0] == pytest.approx(2.0 - logged.size_ratios[0] + 0.5)


def test_how_often_is_estimated_follows_p_est(device: Any) -> None:
    client = device.client(device.config(loop=LoopParameters(p_0=0.3)))
    for _ in range(200):
        client.process(device.picture())
    assert 40 <= client.stats().states["estimation"] <= 80


def test_day_night_day_goes_through_all_states_and_back_to_the_cached_agent(device: Any) -> None:
    # By night nothing below 25 can be read; by day the night agent's 25 cannot.
    device.service.readable["day"].remove(25)
    changes: list[tuple[State, State]] = []
    swaps: list[tuple[str, str]] = []
    client = device.client(
        on_state_change=lambda old, new, reason: changes.append((old, new)),
        on_swap=lambda old, new, reason: swaps.append((old, new)),
    )
    for _ in range(12):
        assert client.process(device.picture("day")).state is State.ESTIMATION

    answers = [client.process(device.picture("night")) for _ in range(3 + 10 + 1)]
    assert client.stats().state is State.RETRAINING  # no cached agent's scenery is near
    assert changes[-2:] == [
        (State.ESTIMATION, State.QUERYING),
        (State.QUERYING, State.RETRAINING),
    ]

    while not device.trainer.requests:
        answers.append(client.process(device.picture("night")))
    answers.append(client.process(device.picture("night")))  # goes on while the child works
    request = device.trainer.requests[0]
    assert (request.parent, request.scenery) == ("day", "scenery-1")
    # The 10 newest when the alarm rang, and what was explored since.
    assert len(read_transitions(request.memory)) == 10 + 16 + 1
    device.shelf.add(device.agent("night", quality=25, scenery="night"))
    device.trainer.result = RetrainResult("night")
    answers += [client.process(device.picture("night")) for _ in range(10)]
    assert client.stats().state is State.INFERENCE
    assert client.stats().agent_id == "night"
    assert len(read_transitions(request.memory)) == 0
    retrained = [one for one in answers if one.state is State.RETRAINING]
    assert all(one.labels[0].name == "cat" and one.rung == REFERENCE for one in retrained)

    while client.stats().agent_id == "night":
        result = client.process(device.picture("day"))
        assert result.state is not State.RETRAINING
    tested = [pair for pair in changes if State.QUERYING in pair]
    assert tested[-1] == (State.QUERYING, State.INFERENCE)
    assert swaps == [("day", "night"), ("night", "day")]
    assert device.shelf.promoted == [("current", "night"), ("current", "day")]
    stats = client.stats()
    assert (stats.swaps, stats.retrainings) == (2, 1)
    assert set(stats.states) == {"inference", "estimation", "querying", "retraining"} - {
        "inference"
    }
    assert client.process(device.picture("day")).rung == PAPER[1]


def test_querying_serves_the_reference_while_an_agent_is_tested(device: Any) -> None:
    device.shelf.add(device.agent("night", quality=25, scenery="night"))
    client = device.client()
    results = [client.process(device.picture("night")) for _ in range(30)]
    queried = [one for one in results if one.state is State.QUERYING]
    assert {one.labels[0].name for one in queried} == {"cat"}
    assert [one.calls for one in queried] == [1] * 10 + [2] * 10
    assert [one.agent_id for one in queried] == ["day"] * 10 + ["night"] * 10
    assert client.stats().agent_id == "night"
    assert client.stats().retrainings == 0


def test_a_false_alarm_keeps_the_agent_after_a_test(device: Any) -> None:
    client = device.client()
    device.service.readable["day"].discard(15)
    for _ in range(10):
        client.process(device.picture())
    assert client.stats().state is State.QUERYING
    device.service.readable["day"].add(15)
    for _ in range(20):
        client.process(device.picture())
    stats = client.stats()
    assert (stats.state, stats.agent_id, stats.swaps) == (State.INFERENCE, "day", 0)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(["noise", "flat", "mosaic", "checker"]),
    st.sampled_from([None, 10, 40, 75, 95]),
    st.sampled_from([*PAPER, *FULL]),
)
def test_never_more_bytes_than_the_reference_or_the_source(
    device: Any, seed: int, size: tuple[int, int], kind: str, source: int | None, rung: Any
) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    values = {
        "noise": rng.integers(0, 256, (*x.shape, 3)),
        "flat": np.full((*x.shape, 3), seed % 256),
        "mosaic": rng.integers(0, 256, (20, 20, 3))[y // 8, x // 8],
        "checker": np.repeat(((x // 8 + y // 8) % 2 * 255)[..., None], 3, axis=2),
    }[kind]
    image = Image.fromarray(values.astype(np.uint8))
    given_as = image if source is None else jpeg(image, source)
    agent = device.shelf.agents["day"]
    agent.engine.ladder, agent.engine.best = (rung,), 0
    with EdgeClient(device.config(loop=NEVER), load=device.shelf.build) as client:
        result = client.process(given_as)
    assert result.bytes <= len(encode(load(given_as).image, REFERENCE))
    if isinstance(given_as, bytes):
        assert result.bytes <= len(given_as)
        assert not result.as_is or result.bytes == len(given_as)


def test_a_source_that_is_no_larger_is_sent_as_it_is(device: Any) -> None:
    source = jpeg(device.picture(), 5, optimize=True)
    result = device.client(device.config(loop=NEVER)).process(source)
    assert result.as_is
    assert result.bytes == len(source)
    assert device.service.qualities == [5]


def test_a_rung_whose_sides_the_service_refuses_is_replaced_by_a_dearer_one(device: Any) -> None:
    engine = device.shelf.agents["day"].engine
    engine.ladder, engine.best = FULL, 0
    device.service.capabilities = type(device.service.capabilities)(2**22, 32, 4096)
    result = device.client(device.config(loop=NEVER)).process(device.picture(size=(40, 36)))
    assert result.rung == next(rung for rung in FULL if rung.scale == 1.0)


@pytest.mark.parametrize("limit", [{"max_bytes": 2500}, {"max_side": 80}])
def test_a_reference_too_large_for_the_service_is_scaled_down_before_it_is_sent(
    device: Any, limit: dict[str, int]
) -> None:
    device.shelf.current = None  # nobody decides: the reference is sent
    device.service.capabilities = replace(device.service.capabilities, **limit)

    result = device.client().process(device.picture(size=(128, 96)))

    assert result.rung == replace(REFERENCE, scale=result.rung.scale)
    assert result.rung.scale < 1.0
    assert result.bytes <= device.service.capabilities.max_bytes


def test_boxes_are_in_the_original_pictures_pixels_though_the_upload_was_scaled(
    device: Any,
) -> None:
    class Detector(type(device.service)):  # type: ignore[misc]
        def recognize(self, jpeg: bytes) -> Recognition:
            with Image.open(io.BytesIO(jpeg)) as picture:
                width, height = picture.size
            labels = (Label("cat", 0.9, Box(width / 4, height / 2, width / 2, height / 8)),)
            return Recognition(labels, wire_bytes=len(jpeg), size=(width, height))

    device.service = Detector()
    device.service.capabilities = replace(device.service.capabilities, max_side=50)

    result = device.client().process(device.picture(size=(96, 64)))

    assert result.rung.scale < 1.0
    assert result.labels[0].box == pytest.approx((24.0, 32.0, 48.0, 8.0))


def test_labels_below_the_minimum_score_do_not_count(device: Any) -> None:
    client = device.client(device.config(min_score=0.95))
    assert client.process(device.picture("night")).agreement == 1.0  # none left on either side


def test_stats_add_up(device: Any) -> None:
    client = device.client()
    results = [client.process(device.picture()) for _ in range(5)]
    stats = client.stats()
    assert stats.images == 5
    assert stats.calls == sum(one.calls for one in results) == len(device.service.qualities)
    assert stats.bytes == sum(one.bytes for one in results)
    assert stats.wire_bytes == sum(one.wire_bytes for one in results)
    assert stats.uploaded_wire_bytes == sum(one.uploaded_wire_bytes for one in results)
    assert dict(stats.states) == {"estimation": 5}
    assert not stats.failures
    assert not stats.fallbacks
    assert not stats.drops


def test_the_same_seed_takes_the_same_decisions(device: Any) -> None:
    pictures = [device.picture() for _ in range(40)]
    config = device.config(loop=LoopParameters(p_0=0.5))
    runs = []
    for _ in range(2):
        client: EdgeClient = device.client(config)
        runs.append([client.process(one).state for one in pictures])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {State.INFERENCE, State.ESTIMATION}


def test_many_threads_may_share_a_client(device: Any) -> None:
    client = device.client(device.config(loop=LoopParameters(p_0=0.5)))
    pictures = [device.picture("day" if n < 40 else "night") for n in range(120)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(client.process, pictures))
    stats = client.stats()
    assert stats.images == len(results) == 120
    assert stats.calls == len(device.service.qualities)
    assert not stats.failures


def test_close_is_idempotent_and_use_after_it_is_an_error(device: Any) -> None:
    client: EdgeClient = device.client()
    with client:
        client.process(device.picture())
    client.close()
    with pytest.raises(ClosedError):
        client.process(device.picture())
    with pytest.raises(ClosedError), client:
        pass
    assert client.stats().images == 1
    assert device.trainer.closed == 1
    assert device.service.closed == 0  # it was given opened, so it is the giver's to close


def test_a_hook_may_ask_for_stats(device: Any) -> None:
    seen: list[int] = []
    client: EdgeClient = device.client(
        on_state_change=lambda *_: seen.append(client.stats().images)
    )
    client.process(device.picture())
    assert seen == [0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metric", "bleu"),
        ("provider", "npu"),
        ("retrain_after", 0),
        ("explore_rungs", 0),
        ("max_transitions", 3),
        ("min_score", 1.5),
        ("target_accuracy", 1.0),
        ("alpha", float("nan")),
        ("beta", float("inf")),
        ("seed", -1),
        ("upload_threads", 0),
        ("queue_images", 0),
        ("queue_bytes", 0),
        ("spool_bytes", 0),
        ("queue_full", "explode"),
        ("spool_age_s", float("inf")),
    ],
)
def test_impossible_choices_are_refused_by_name(field: str, value: Any) -> None:
    choices: dict[str, Any] = {"store": "agents", "backend": "baidu://host", field: value}
    with pytest.raises(UsageError, match=field):
        EdgeConfig(**choices)


def test_a_scenery_is_noticed_by_its_features_although_every_answer_agrees(device: Any) -> None:
    device.shelf.add(device.agent("night", quality=25, scenery="night"))
    reasons: list[str] = []
    client = device.client(
        device.config(monitor="betting", loop=NEVER),
        on_state_change=lambda old, new, reason: reasons.append(reason),
    )
    for _ in range(30):
        client.process(device.picture("day"))
    while client.stats().agent_id == "day":
        client.process(device.picture("night"))
    assert "the pictures left the agent's scenery; cause: scenery" in reasons
    assert client.stats().retrainings == 0


def test_the_papers_monitor_sees_nothing_without_an_estimation(device: Any) -> None:
    client = device.client(device.config(monitor="paper", loop=NEVER))
    for _ in range(60):
        assert client.process(device.picture("night")).calls == 1
