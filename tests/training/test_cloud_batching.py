"""What waits goes through the model together, and nobody waits for what nobody wants."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from edge_sdk.backends.base import Label
from edge_sdk.errors import ClosedError, ImageError
from training.cloud.batching import MAX_BATCH, Abandoned, Batcher, Result

PATIENCE_S = 20.0


class Model:
    """Answers with the picture's text; holds every batch back until it is let go."""

    name, version, boxes = "stub", "stub@1", False

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[bytes]] = []
        self.busy, self.go = threading.Semaphore(0), threading.Event()
        if not held:
            self.go.set()

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        return (Label(jpeg.decode(), 1.0),)

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        self.batches.append([*jpegs])
        self.busy.release()
        assert self.go.wait(PATIENCE_S)
        return [ImageError("bad") if jpeg == b"bad" else self.answer(jpeg) for jpeg in jpegs]


class Crowd:
    """Clients, each in a thread; ``ask`` returns when the picture waits or is being looked at."""

    def __init__(self, pool: ThreadPoolExecutor, batcher: Batcher) -> None:
        self._pool, self._batcher = pool, batcher

    def ask(self, jpeg: bytes, wanted: Callable[[], bool] = lambda: True) -> Future[Result]:
        before = self._known()
        future = self._pool.submit(self._batcher.answer, jpeg, wanted)
        with self._batcher._changed:
            assert self._batcher._changed.wait_for(lambda: self._known() > before, PATIENCE_S)
        return future

    def _known(self) -> int:
        return len(self._batcher._queue)


def test_an_answer_names_the_model_that_gave_it() -> None:
    with Batcher(Model) as batcher:
        assert batcher.answer(b"cat") == Result((Label("cat", 1.0),), "stub@1")


def test_what_waited_meanwhile_goes_together_up_to_a_limit() -> None:
    model = Model(held=True)
    with ThreadPoolExecutor(20) as pool, Batcher(lambda: model, workers=1) as batcher:
        first = pool.submit(batcher.answer, b"first")
        model.busy.acquire()
        crowd = Crowd(pool, batcher)
        rest = [crowd.ask(b"%d" % n) for n in range(2 * MAX_BATCH + 1)]
        model.go.set()
        wait([first, *rest], PATIENCE_S)

    assert [len(batch) for batch in model.batches] == [1, MAX_BATCH, MAX_BATCH, 1]
    names = [each.result().labels[0].name for each in rest]
    assert names == [str(n) for n in range(len(rest))]


def test_workers_share_what_waits() -> None:
    model = Model(held=True)
    with ThreadPoolExecutor(20) as pool, Batcher(lambda: model, workers=2) as batcher:
        both = [pool.submit(batcher.answer, b"first") for _ in range(2)]
        model.busy.acquire()
        model.busy.acquire()
        crowd = Crowd(pool, batcher)
        rest = [crowd.ask(b"%d" % n) for n in range(2)]
        model.go.set()
        wait([*both, *rest], PATIENCE_S)

    assert [len(batch) for batch in model.batches] == [1, 1, 1, 1]


def test_a_picture_that_is_none_spoils_only_its_own_answer() -> None:
    model = Model(held=True)
    with ThreadPoolExecutor(8) as pool, Batcher(lambda: model, workers=1) as batcher:
        first = pool.submit(batcher.answer, b"first")
        model.busy.acquire()
        crowd = Crowd(pool, batcher)
        good, bad = crowd.ask(b"good"), crowd.ask(b"bad")
        model.go.set()

        assert first.result(PATIENCE_S).labels
        assert good.result(PATIENCE_S).labels[0].name == "good"
        with pytest.raises(ImageError):
            bad.result(PATIENCE_S)


def test_what_nobody_wants_any_more_never_reaches_the_model() -> None:
    model = Model(held=True)
    with ThreadPoolExecutor(8) as pool, Batcher(lambda: model, workers=1) as batcher:
        first = pool.submit(batcher.answer, b"first")
        model.busy.acquire()
        crowd = Crowd(pool, batcher)
        left, stayed = crowd.ask(b"left", lambda: False), crowd.ask(b"stayed")
        model.go.set()

        assert first.result(PATIENCE_S).labels
        assert stayed.result(PATIENCE_S).labels
        with pytest.raises(Abandoned):
            left.result(PATIENCE_S)
    assert model.batches == [[b"first"], [b"stayed"]]


def test_a_model_that_fails_fails_its_batch_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Model):
        def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
            if jpegs == [b"trouble"]:
                raise RuntimeError("a bug")
            return super().answer_many(jpegs)

    model = Failing()
    with caplog.at_level(logging.CRITICAL), Batcher(lambda: model) as batcher:
        with pytest.raises(RuntimeError, match="a bug"):
            batcher.answer(b"trouble")
        assert batcher.answer(b"cat").labels


def test_the_next_batch_asks_who_answers_now() -> None:
    models = [Model(), Model()]
    models[1].version = "stub@2"
    with Batcher(lambda: models.pop(0), workers=1) as batcher:
        assert [batcher.answer(b"cat").model for _ in range(2)] == ["stub@1", "stub@2"]


def test_closing_fails_what_waits_and_ends_the_threads() -> None:
    model = Model(held=True)
    with ThreadPoolExecutor(8) as pool:
        with Batcher(lambda: model, workers=1) as batcher:
            first = pool.submit(batcher.answer, b"first")
            model.busy.acquire()
            waiting = Crowd(pool, batcher).ask(b"second")
            waiting.add_done_callback(lambda _: model.go.set())

        assert first.result(PATIENCE_S).labels
        with pytest.raises(ClosedError, match="stops"):
            waiting.result(PATIENCE_S)
    assert not [one for one in threading.enumerate() if one.name.startswith("local-cloud-model")]


def test_a_batcher_that_is_not_entered_answers_nothing() -> None:
    with pytest.raises(ClosedError):
        Batcher(Model).answer(b"cat")
