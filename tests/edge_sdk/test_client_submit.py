"""``EdgeClient.submit``: futures over a bounded queue, with and without a spool."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.backends.base import Recognition
from edge_sdk.client import EdgeClient
from edge_sdk.errors import (
    BackendAuth,
    BackendRejected,
    BackendUnavailable,
    ClosedError,
    DroppedError,
    ImageError,
)
from edge_sdk.estimator import LoopParameters
from edge_sdk.stats import Result

NEVER = LoopParameters(p_0=0.0, p_min=1e-12)


class Flow:
    """Around a client: what its hooks were told, and a service that can be held or fail."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.results: list[Result] = []
        self.drops: list[tuple[str, str]] = []
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Semaphore(0)
        self.error: Exception | None = None
        self._recognize: Callable[[bytes], Recognition] = device.service.recognize
        device.service.recognize = self.recognize

    def recognize(self, jpeg: bytes) -> Recognition:
        self.reached.release()
        self.open.wait()
        if self.error is not None:
            raise self.error
        return self._recognize(jpeg)

    def client(self, **choices: Any) -> EdgeClient:
        config = replace(self.device.config(loop=NEVER), upload_threads=1, **choices)
        client: EdgeClient = self.device.client(
            config,
            on_result=self.results.append,
            on_drop=lambda reason, key: self.drops.append((reason, key)),
            pause=lambda failures: 0.0,
        )
        return client

    def hold(self, client: EdgeClient, key: str = "held") -> Any:
        """Submit a picture and let it hang in its upload until ``open`` is set."""
        self.open.clear()
        while self.reached.acquire(blocking=False):
            pass
        future = client.submit(self.device.picture(), key)
        assert self.reached.acquire(timeout=10)
        return future


@pytest.fixture
def flow(device: Any) -> Any:
    made = Flow(device)
    yield made
    made.error = None
    made.open.set()


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_a_future_can_be_awaited(flow: Flow) -> None:
    client = flow.client(spool=True)

    async def watch() -> list[str]:
        frames = [(str(number), flow.device.picture()) for number in range(3)]
        return [(await asyncio.wrap_future(client.submit(frame, key))).key for key, frame in frames]

    assert asyncio.run(watch()) == ["0", "1", "2"]


@pytest.mark.parametrize("spool", [False, True])
def test_everything_that_process_takes_can_be_submitted(flow: Flow, spool: bool) -> None:
    client = flow.client(spool=spool)
    picture = flow.device.picture()
    file = flow.device.folder / "photo.jpg"
    file.write_bytes(jpeg(picture))
    sources = {
        "path": file,
        "name": str(file),
        "bytes": jpeg(picture),
        "image": picture,
        "array": np.asarray(picture),
    }
    futures = {key: client.submit(image, key) for key, image in sources.items()}
    results = {key: future.result(20) for key, future in futures.items()}
    assert {key: one.key for key, one in results.items()} == {key: key for key in sources}
    assert {one.labels[0].name for one in results.values()} == {"cat"}
    assert results["array"].bytes == results["image"].bytes == client.process(picture).bytes
    assert sorted(one.key for one in flow.results) == sorted([*sources, ""])
    assert client.flush(10)
    assert client.stats().waiting == 0


def test_a_frame_is_copied_when_it_is_submitted(flow: Flow) -> None:
    client = flow.client()
    flow.hold(client)
    frame = np.asarray(flow.device.picture("day")).copy()
    future = client.submit(frame)
    frame[:] = 0
    flow.open.set()
    expected = future.result(10)
    assert expected.labels[0].name == "cat"
    assert expected.bytes > client.process(frame).bytes


def test_what_is_no_picture_fails_alone(flow: Flow) -> None:
    client = flow.client()
    with pytest.raises(ImageError, match="float is not a picture"):
        client.submit(1.5)  # type: ignore[arg-type]
    futures = [client.submit(image) for image in (b"nonsense", "nowhere.jpg")]
    for future in futures:
        assert isinstance(future.exception(10), ImageError)
    assert client.submit(flow.device.picture()).result(10).labels


def test_drop_new_refuses_and_drop_oldest_gives_up(flow: Flow) -> None:
    for policy, lost in (("drop-new", "c"), ("drop-oldest", "b")):
        client = flow.client(queue_images=2, queue_full=policy)
        held = flow.hold(client, "a")
        futures = {key: client.submit(flow.device.picture(), key) for key in "bc"}
        error = futures.pop(lost).exception(10)
        assert isinstance(error, DroppedError)
        assert error.reason == "queue-full"
        assert flow.drops.pop() == ("queue-full", lost)
        flow.open.set()
        assert held.result(10).key == "a"
        assert [future.result(10).key for future in futures.values()] == [*futures]
        assert dict(client.stats().drops) == {"queue-full": 1}


def test_block_waits_for_its_timeout(flow: Flow) -> None:
    client = flow.client(queue_images=1)
    flow.hold(client)
    assert isinstance(client.submit(flow.device.picture(), timeout=0.0).exception(), DroppedError)
    flow.open.set()
    assert client.submit(flow.device.picture()).result(10).labels


def test_a_picture_that_alone_exceeds_the_queue_is_refused(flow: Flow) -> None:
    client = flow.client(queue_bytes=100)
    error = client.submit(flow.device.picture()).exception()
    assert isinstance(error, DroppedError)
    assert "queue_bytes" in str(error)


def test_a_cancelled_picture_is_not_uploaded(flow: Flow) -> None:
    for spool in (False, True):
        client = flow.client(spool=spool)
        flow.hold(client, "a")
        future = client.submit(flow.device.picture(), "b")
        assert future.cancel()
        flow.open.set()
        assert client.flush(10)
        client.close()
    assert [one.key for one in flow.results] == ["a", "a"]


def test_a_failed_upload_is_the_futures_where_nothing_is_spooled(flow: Flow) -> None:
    client = flow.client()
    flow.error = BackendUnavailable("down")
    assert client.submit(flow.device.picture()).exception(10) is flow.error


def test_close_answers_what_it_can_and_drops_the_rest(flow: Flow) -> None:
    client = flow.client()
    held = flow.hold(client, "a")
    future = client.submit(flow.device.picture(), "b")
    client.close(timeout=0.0)
    assert isinstance(future.exception(), DroppedError)
    assert flow.drops == [("closed", "b")]
    with pytest.raises(ClosedError):
        client.submit(flow.device.picture())
    flow.open.set()
    assert held.result(10).key == "a"

    client = flow.client()
    futures = [client.submit(flow.device.picture()) for _ in range(5)]
    client.close()
    assert all(future.result(0).labels for future in futures)


def test_threads_start_with_the_first_picture_and_end_with_close(flow: Flow) -> None:
    before = set(threading.enumerate())
    client = flow.client(spool=True)
    assert set(threading.enumerate()) <= before
    client.submit(flow.device.picture()).result(10)
    assert {one.name for one in set(threading.enumerate()) - before} == {"adacompress-upload-0"}
    client.close()
    assert set(threading.enumerate()) <= before


# The spool.


def test_a_picture_outlives_a_link_that_is_down_and_comes_once(flow: Flow) -> None:
    client = flow.client(spool=True)
    flow.error = BackendUnavailable("down")
    futures = [client.submit(flow.device.picture(), str(number)) for number in range(3)]
    for _ in range(10):
        assert flow.reached.acquire(timeout=10)
    assert not any(future.done() for future in futures)
    assert client.stats().waiting == 3
    flow.error = None
    assert [future.result(10).key for future in futures] == ["0", "1", "2"]
    assert sorted(one.key for one in flow.results) == ["0", "1", "2"]
    assert client.stats().images == 3


@pytest.mark.parametrize("error", [BackendUnavailable("down"), BackendAuth("expired")])
def test_a_restart_goes_on_with_what_was_left(flow: Flow, error: Exception) -> None:
    client = flow.client(spool=True)
    flow.error = error
    future = client.submit(flow.device.picture(), "a")
    assert flow.reached.acquire(timeout=10)
    client.close(timeout=0.0)
    for thread in client._sender._threads:
        thread.join()
    client._sender._spool.close()  # type: ignore[union-attr]
    assert isinstance(future.exception(10), ClosedError)
    assert flow.drops == []
    flow.error = None
    again = flow.client(spool=True)
    assert again.flush(10)
    assert [one.key for one in flow.results] == ["a"]
    assert again.submit(flow.device.picture(), "a").result(0) == flow.results[0]
    assert again.stats().calls == 1


def test_an_answer_that_was_not_delivered_is_delivered_again_but_not_asked_again(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = flow.client(spool=True)
    monkeypatch.setattr(client._sender._spool, "delivered", lambda key: None)
    first = client.submit(flow.device.picture(), "a").result(10)
    client.close()
    again = flow.client(spool=True)
    again._sender._threads[0].join(0)
    again.submit(flow.device.picture(), "b").result(10)
    assert [one.key for one in flow.results] == ["a", "a", "b"]
    assert flow.results[1] == first
    assert len(flow.device.service.qualities) == 2


def test_the_same_file_is_paid_for_once(flow: Flow) -> None:
    client = flow.client(spool=True)
    file = jpeg(flow.device.picture())
    flow.open.clear()
    futures = [client.submit(file) for _ in range(3)]
    assert futures[0] is futures[1] is futures[2]
    flow.open.set()
    result = futures[0].result(10)
    assert client.flush(10)
    assert client.submit(file).result(10) == result
    assert len(flow.device.service.qualities) == 1
    assert len(flow.results) == 1


def test_a_picture_that_the_service_refuses_does_not_wait(flow: Flow) -> None:
    client = flow.client(spool=True)
    flow.error = BackendRejected("too dark")
    assert client.submit(flow.device.picture(), "a").exception(10) is flow.error
    assert client.flush(10)
    client.close()
    flow.error = None
    assert flow.client(spool=True).stats().waiting == 0


def test_a_full_spool_follows_the_policy(flow: Flow) -> None:
    size = len(jpeg(flow.device.picture()))
    client = flow.client(spool=True, spool_bytes=2 * size + size // 2, queue_full="drop-oldest")
    flow.error = BackendUnavailable("down")
    flow.open.clear()
    futures = [client.submit(jpeg(flow.device.picture()), key) for key in "abc"]
    assert flow.reached.acquire(timeout=10)
    assert [type(one.exception(0)) for one in futures if one.done()] == [DroppedError]
    flow.error = None
    flow.open.set()
    assert client.flush(10)
    assert len(flow.results) == 2
    assert flow.drops[0][0] == "queue-full"


def test_a_picture_whose_file_was_lost_is_dropped(flow: Flow) -> None:
    client = flow.client(spool=True)
    flow.hold(client, "a")
    future = client.submit(flow.device.picture(), "b")
    client._sender._spool.remove("b")  # type: ignore[union-attr]
    flow.open.set()
    assert isinstance(future.exception(10), DroppedError)
    assert flow.drops == [("unreadable", "b")]


def test_pictures_that_waited_too_long_are_given_up(flow: Flow) -> None:
    client = flow.client(spool=True, spool_age_s=1e-9)
    flow.hold(client, "a")
    late = client.submit(flow.device.picture(), "b")
    flow.error = BackendUnavailable("down")
    flow.open.set()
    error = late.exception(10)
    assert isinstance(error, DroppedError)
    assert error.reason in ("expired", "unreadable")
