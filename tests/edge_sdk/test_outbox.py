"""The queue of submitted pictures: its bounds hold, whatever is put, taken and given back."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.outbox import POLICIES, Bounds, Entry, Outbox


def outbox(policy: str = "drop-new", most: int = 2, most_bytes: int = 100) -> Outbox:
    return Outbox(Bounds(most, most_bytes), Bounds(math.inf, most_bytes), policy)


def entry(key: str, weight: int = 10, *, stored: bool = False) -> Entry:
    return Entry(key, None if stored else b"", weight)


def keys(dropped: list[tuple[Entry, str]]) -> list[tuple[str, str]]:
    return [(one.key, reason) for one, reason in dropped]


def test_first_in_first_out_and_none_once_closed() -> None:
    queue = outbox(most=3)
    for key in "abc":
        assert queue.put(entry(key)) == []
    assert [queue.take().key for _ in "ab"] == ["a", "b"]  # type: ignore[union-attr]
    assert [one.key for one in queue.close()] == ["c"]
    assert queue.take() is None
    assert keys(queue.put(entry("d"))) == [("d", "closed")]


def test_what_is_being_uploaded_occupies_its_place() -> None:
    queue = outbox(most=1)
    queue.put(entry("a"))
    taken = queue.take()
    assert taken is not None
    assert keys(queue.put(entry("b"))) == [("b", "queue-full")]
    assert not queue.flush(0.0)
    queue.done(taken)
    assert queue.flush(0.0)
    assert queue.put(entry("c")) == []


def test_drop_oldest_makes_room_by_count_and_bytes() -> None:
    queue = outbox("drop-oldest", most=4)
    for key in "abc":
        queue.put(entry(key, 30))
    assert keys(queue.put(entry("d", 60))) == [("a", "queue-full"), ("b", "queue-full")]
    assert keys(queue.put(entry("e", 101))) == [("e", "too-large")]
    assert [one.key for one in queue.close()] == ["c", "d"]


def test_memory_and_disk_have_bounds_of_their_own() -> None:
    queue = outbox("drop-oldest", most=1)
    queue.put(entry("here", 90))
    assert queue.put(entry("there", 90, stored=True)) == []
    assert keys(queue.put(entry("there2", 90, stored=True))) == [("there", "queue-full")]
    assert [one.key for one in queue.withdraw({"here", "there2"})] == ["there2"]
    assert len(queue) == 1


def test_block_waits_for_a_place_until_its_time_is_over() -> None:
    queue = outbox("block", most=1)
    queue.put(entry("a"))
    assert keys(queue.put(entry("b"), timeout=0.0)) == [("b", "queue-full")]
    waiting = threading.Thread(target=queue.put, args=(entry("c"),))
    waiting.start()
    taken = queue.take()
    assert taken is not None
    queue.done(taken)
    waiting.join()
    assert [one.key for one in queue.close()] == ["c"]


def test_an_entry_that_cannot_be_saved_is_not_added() -> None:
    queue = outbox()

    def save() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        queue.put(entry("a", stored=True), save=save)
    assert len(queue) == 0


def test_an_entry_given_back_is_the_next_one_after_the_pause() -> None:
    queue = outbox(most=2)
    queue.put(entry("a"))
    queue.put(entry("b"))
    taken = queue.take()
    assert taken is not None
    queue.back(taken, 3600.0)
    assert queue.paused
    queue.resume()
    again = queue.take()
    assert again is taken
    queue.close()
    assert not queue.back(taken, 0.0)


@settings(max_examples=60)
@given(
    st.sampled_from([policy for policy in POLICIES if policy != "block"]),
    st.lists(st.tuples(st.sampled_from(["put", "take", "done", "back"]), st.integers(0, 60))),
)
def test_nothing_is_lost_twice_or_over_the_bounds(
    policy: str, steps: list[tuple[str, int]]
) -> None:
    queue = outbox(policy, most=3)
    put, ended, inside, taken = 0, [], set(), []
    for step, weight in steps:
        if step == "put":
            one = entry(str(put), weight)
            put += 1
            inside.add(one.key)
            for dropped, _ in queue.put(one):
                ended.append(dropped.key)
                inside.remove(dropped.key)
        elif step == "take" and len(queue) > len(taken):
            got = queue.take()
            assert got is not None
            taken.append(got)
        elif taken:
            one = taken.pop()
            if step == "back":
                queue.back(one, 0.0)
            else:
                queue.done(one)
                ended.append(one.key)
                inside.remove(one.key)
        assert len(queue) == len(inside) <= 3
    left = [one.key for one in [*queue.close(), *taken]]
    assert sorted([*ended, *left]) == sorted(str(number) for number in range(put))
