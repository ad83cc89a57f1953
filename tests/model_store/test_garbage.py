"""What is removed, what never is, and who can still read it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store import (
    AgentNotFound,
    CorruptAgent,
    Draft,
    EnvironmentMissing,
    ManifestInvalid,
    Store,
    UsageError,
    locking,
)

Publish = Callable[..., str]
DAY = 24 * 3600


class Clock:
    """Unix time that a test moves; the files of the store are of this moment."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path.stat().st_mtime + 10)


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "store", clock=clock)


def contents(store: Store) -> set[str]:
    folder = store.root / "blobs" / "sha256"
    return {path.name for path in folder.rglob("*") if path.is_file()}


def engine_of(store: Store, name: str) -> str:
    return store.manifest(name).entries("engine")[0].sha256


def everything(store: Store) -> set[tuple[str, int]]:
    paths = [path for path in store.root.rglob("*") if path.name != ".lock"]
    return {(str(path.relative_to(store.root)), path.stat().st_size) for path in paths}


def test_what_no_alias_needs_is_retired_and_a_grace_time_later_removed(
    store: Store, publish: Publish, clock: Clock
) -> None:
    lost, kept = publish("lost"), publish("kept", "current")
    engine = engine_of(store, lost)
    clock.now += DAY + 1
    first = store.gc()
    assert (first.retired, first.kept, first.contents) == ((lost,), (kept,), ())
    assert store.ids() == (kept,)
    assert engine in contents(store)
    [waiting] = store.gc().waiting
    clock.now += DAY + 1
    second = store.gc()
    assert (second.removed, second.contents) == ((waiting,), (engine,))
    assert second.freed_bytes > 0
    assert engine not in contents(store)
    assert store.verify() == {kept: ()}
    assert store.load("current").file("card") == b"the same in all"  # shared with what is gone
    assert not list((store.root / "trash").iterdir())


def test_a_dry_run_says_what_a_run_does_and_does_nothing(
    store: Store, publish: Publish, clock: Clock
) -> None:
    publish("a")
    publish("b", "current")
    for grace_s in (DAY, DAY, 0.0):
        clock.now += DAY + 1
        before = everything(store)
        said = store.gc(grace_s=grace_s, dry_run=True)
        assert everything(store) == before
        assert store.gc(grace_s=grace_s) == said


def test_without_grace_all_is_removed_at_once(store: Store, publish: Publish) -> None:
    lost, _ = publish("lost"), publish("kept", "current")
    engine = engine_of(store, lost)
    garbage = store.gc(grace_s=0)
    assert (garbage.retired, garbage.contents) == ((lost,), (engine,))
    assert engine not in contents(store)


def test_the_history_window_and_the_parent_stay(
    store: Store, publish: Publish, clock: Clock
) -> None:
    parent = publish("parent")
    names = [publish(word, "current", parent=parent) for word in "abcd"]
    night = publish("night", "scenery/night")
    clock.now += DAY + 1
    assert set(store.gc(keep=2, dry_run=True).retired) == set(names[:2])
    store.gc(keep=2)
    assert set(store.ids()) == {parent, night, *names[2:]}
    assert store.rollback() == names[2]


def test_what_has_just_arrived_stays_and_so_does_what_is_published_again(
    store: Store, publish: Publish, clock: Clock
) -> None:
    name = publish("new")
    clock.now += DAY - 60
    assert store.gc().retired == ()
    clock.now += 120
    # Again: it may be about to be promoted. Its file has the time of this machine.
    manifest = store.root / "agents" / name / "manifest.json"
    os.utime(manifest, (clock.now - 2 * DAY,) * 2)
    assert store.gc(dry_run=True).retired == (name,)
    assert publish("new") == name
    clock.now = manifest.stat().st_mtime + 60
    assert store.gc().retired == ()


def test_who_has_loaded_an_agent_can_read_it_after_it_was_retired(
    store: Store, publish: Publish, clock: Clock
) -> None:
    name = publish("a")
    agent = store.load(name)
    clock.now += DAY + 1
    assert store.gc().retired == (name,)
    assert agent.problems() == ()
    assert agent.file("card") == b"the same in all"
    with pytest.raises(AgentNotFound):
        store.load(name)
    clock.now += DAY + 1
    store.gc()
    with pytest.raises(CorruptAgent, match="missing"):
        agent.file("card")


def test_a_retired_agent_can_be_published_again(
    store: Store, publish: Publish, clock: Clock
) -> None:
    name = publish("a")
    clock.now += DAY + 1
    store.gc()
    assert publish("a", "current") == name
    clock.now += DAY + 1
    assert store.gc().contents == ()
    assert store.verify() == {name: ()}


def test_retiring_twice_within_a_second_keeps_one(
    store: Store, publish: Publish, clock: Clock
) -> None:
    clock.now += 2 * DAY
    name = publish("a")
    assert store.gc().retired == (name,)
    publish("a")
    assert store.gc().retired == (name,)
    assert len(list((store.root / "trash").iterdir())) == 1


def test_contents_that_nobody_names_and_temporary_files_are_removed_at_once(
    store: Store, publish: Publish
) -> None:
    name = publish("a", "current")
    orphan = store.root / "blobs" / "sha256" / "00" / ("0" * 64)
    orphan.parent.mkdir()
    orphan.write_bytes(b"of a publisher that was killed")
    foreign = store.root / "blobs" / "sha256" / "00" / "README"
    foreign.write_bytes(b"somebody's own")
    torn = store.root / "aliases" / ".current.json.0123456789abcdef"
    torn.write_bytes(b"{")
    signature = store.root / "agents" / name / ".signature.json.0123456789abcdef"
    signature.write_bytes(b"{")
    garbage = store.gc()
    assert (garbage.contents, garbage.freed_bytes) == (("0" * 64,), 30)
    assert len(garbage.leftovers) == 2
    assert not any(path.exists() for path in (orphan, torn, signature))
    assert foreign.exists()


def test_the_quarantine_is_listed_and_keeps_its_contents(
    store: Store, publish: Publish, clock: Clock
) -> None:
    publish("a", "current")
    bad = publish("b", "current")
    card = next(one for one in store.manifest(bad).files if one.role == "card")
    engine = store.root / "blobs" / "sha256" / engine_of(store, bad)[:2] / engine_of(store, bad)
    engine.write_bytes(b"?")
    store.load_healthy()
    clock.now += 9 * DAY
    garbage = store.gc()
    assert garbage.quarantined == (bad,)
    assert (store.root / "quarantine" / bad / engine.name).read_bytes() == b"?"
    assert card.sha256 in contents(store)


@pytest.mark.parametrize("damage", ["{", '{"schema": "adacompress.agent/9"}'])
def test_while_a_manifest_cannot_be_read_no_content_is_removed(
    store: Store, publish: Publish, clock: Clock, damage: str
) -> None:
    publish("a", "current")
    bad, lost = publish("b"), publish("c")
    before = contents(store)
    (store.root / "agents" / bad / "manifest.json").write_text(damage)
    clock.now += 2 * DAY
    garbage = store.gc(grace_s=0)
    assert (garbage.unreadable, garbage.retired, garbage.contents) == ((bad,), (lost,), ())
    assert contents(store) == before
    assert bad in store.ids()


def test_while_an_alias_cannot_be_read_nothing_is_removed(
    store: Store, publish: Publish, clock: Clock
) -> None:
    publish("a", "current")
    publish("b")
    (store.root / "aliases" / "current.json").write_text("{")
    clock.now += 2 * DAY
    before = everything(store)
    for dry_run in (True, False):
        with pytest.raises(ManifestInvalid, match="alias 'current' is damaged"):
            store.gc(dry_run=dry_run)
    assert everything(store) == before


@pytest.mark.parametrize("options", [{"keep": 0}, {"grace_s": -1.0}, {"grace_s": float("nan")}])
def test_impossible_options_are_usage_errors(store: Store, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="allowed are 1 or more"):
        store.gc(**options)  # type: ignore[arg-type]


def test_it_waits_for_a_writer_but_looking_does_not(store: Store, publish: Publish) -> None:
    pytest.importorskip("fcntl")
    publish("a", "current")
    hasty = Store(store.root, lock_timeout_s=0)
    with locking.exclusive(store.root / ".lock", timeout_s=0):
        with pytest.raises(EnvironmentMissing, match="Another process"):
            hasty.gc()
        assert len(hasty.gc(dry_run=True).kept) == 1


def test_an_empty_store_has_no_garbage(tmp_path: Path, make_draft: Callable[..., Draft]) -> None:
    store = Store(tmp_path / "nowhere")
    assert store.gc(dry_run=True).kept == ()
    assert not store.root.exists()
