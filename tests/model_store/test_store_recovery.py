from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store import (
    AgentNotFound,
    CorruptAgent,
    ManifestInvalid,
    SchemaTooNew,
    Store,
    locking,
)
from model_store.files import read_json, write_json
from model_store.manifest import content_id

Publish = Callable[..., str]
MakeModel = Callable[..., bytes]
Damage = Callable[[Store, str], None]


def engine_of(store: Store, name: str) -> Path:
    [entry] = store.manifest(name).entries("engine")
    return store.root / "blobs" / "sha256" / entry.sha256[:2] / entry.sha256


def manifest_of(store: Store, name: str) -> Path:
    return store.root / "agents" / name / "manifest.json"


def flip_a_byte(store: Store, name: str) -> None:
    path = engine_of(store, name)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def truncate(store: Store, name: str) -> None:
    path = engine_of(store, name)
    path.write_bytes(path.read_bytes()[:-1])


def delete_content(store: Store, name: str) -> None:
    engine_of(store, name).unlink()


def tear_manifest(store: Store, name: str) -> None:
    path = manifest_of(store, name)
    path.write_bytes(path.read_bytes()[:100])


def nest_manifest(store: Store, name: str) -> None:
    manifest_of(store, name).write_text("[" * 100_000)


def edit_manifest(store: Store, name: str) -> None:
    path = manifest_of(store, name)
    path.write_text(path.read_text().replace("0.95", "0.59"))


def delete_manifest(store: Store, name: str) -> None:
    manifest_of(store, name).unlink()


def delete_agent(store: Store, name: str) -> None:
    shutil.rmtree(manifest_of(store, name).parent)


CONTENT_DAMAGE: dict[Damage, str] = {
    flip_a_byte: "wrong hash",
    truncate: "wrong size",
    delete_content: "missing",
}
MANIFEST_DAMAGE: dict[Damage, str] = {
    tear_manifest: "bad manifest",
    nest_manifest: "bad manifest",
    edit_manifest: "bad manifest",
    delete_manifest: "missing",
}
ALL_DAMAGE = {**CONTENT_DAMAGE, **MANIFEST_DAMAGE}


@pytest.mark.parametrize("damage", [*ALL_DAMAGE, delete_agent])
def test_a_damaged_agent_is_given_up_for_the_one_before(
    store: Store,
    publish: Publish,
    make_model: MakeModel,
    caplog: pytest.LogCaptureFixture,
    damage: Damage,
) -> None:
    first, second = publish("a", "current"), publish("b", "current")
    damage(store, second)
    with caplog.at_level(logging.WARNING):
        agent, given_up = store.load_healthy()
        again = store.load_healthy()
    assert (agent.id, given_up) == (first, (second,))
    assert agent.file("engine") == make_model("a")
    assert (again[0].id, again[1]) == (first, ())
    assert [step.id for step in store.history("current")] == [first]
    assert store.ids() == (first,)
    assert len(caplog.records) == 1
    assert f"alias=current id={second}" in caplog.text


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, edit_manifest])
def test_what_was_given_up_is_kept_for_inspection(
    store: Store, publish: Publish, damage: Damage
) -> None:
    publish("a", "current")
    second = publish("b", "current")
    content = engine_of(store, second)
    damage(store, second)
    damaged = (manifest_of(store, second).read_bytes(), content.read_bytes())
    store.load_healthy()
    kept = store.root / "quarantine" / second
    assert (kept / "manifest.json").read_bytes() == damaged[0]
    moved = kept / content.name
    assert (moved if moved.exists() else content).read_bytes() == damaged[1]
    assert moved.exists() == (damage is not edit_manifest)


@pytest.mark.parametrize("damage", ALL_DAMAGE)
def test_verify_names_the_damage_and_spares_the_others(
    store: Store, publish: Publish, damage: Damage
) -> None:
    first, second = publish("a"), publish("b")
    damage(store, second)
    report = store.verify()
    assert report[first] == ()
    assert [problem.kind for problem in report[second]] == [ALL_DAMAGE[damage]]
    assert report[second][0].path == (
        "engine.onnx" if damage in CONTENT_DAMAGE else "manifest.json"
    )
    assert store.verify(first) == {first: ()}


def test_a_wrong_hash_is_reported_with_both_hashes_on_every_read(
    store: Store, publish: Publish
) -> None:
    name = publish("a")
    [entry] = store.manifest(name).entries("engine")
    agent = store.load(name)
    flip_a_byte(store, name)
    told = rf"engine\.onnx: wrong hash, expected {entry.sha256}, actual [0-9a-f]{{64}}"
    with pytest.raises(CorruptAgent, match=told):
        agent.read("engine.onnx")
    with pytest.raises(CorruptAgent, match=told):
        agent.file("engine")
    assert agent.file("card") == b"the same in all"


@pytest.mark.parametrize("damage", MANIFEST_DAMAGE)
def test_a_damaged_manifest_is_never_loaded(store: Store, publish: Publish, damage: Damage) -> None:
    name = publish("a")
    damage(store, name)
    with pytest.raises((CorruptAgent, ManifestInvalid)):
        store.load(name)


def test_recovery_walks_back_over_several(store: Store, publish: Publish) -> None:
    first, *others = [publish(word, "current") for word in "abcd"]
    for name in others:
        truncate(store, name)
    agent, given_up = store.load_healthy()
    assert (agent.id, given_up) == (first, tuple(others[::-1]))


def test_every_alias_finds_its_own_way_back_and_the_evidence_stays(
    store: Store, publish: Publish
) -> None:
    first, second = publish("a", "current"), publish("b", "scenery/night")
    third = publish("c", "current", "scenery/night")
    flip_a_byte(store, third)
    assert store.load_healthy("current")[0].id == first
    assert store.verify()["scenery/night"][0].kind == "bad alias"
    agent, given_up = store.load_healthy("scenery/night")
    assert (agent.id, given_up) == (second, (third,))
    assert (store.root / "quarantine" / third / "manifest.json").exists()
    assert store.aliases() == {"current": first, "scenery/night": second}


def test_with_nothing_left_it_says_so_and_publishing_mends_it(
    store: Store, publish: Publish, make_model: MakeModel
) -> None:
    name = publish("a", "current")
    flip_a_byte(store, name)
    with pytest.raises(CorruptAgent, match=f"No agent of the alias 'current' is whole.*{name}"):
        store.load_healthy()
    with pytest.raises(AgentNotFound):
        store.load("current")
    assert publish("a") == name
    assert store.load_healthy()[0].file("engine") == make_model("a")


@pytest.mark.parametrize("damage", ALL_DAMAGE)
def test_publishing_again_mends_an_agent_in_place(
    store: Store, publish: Publish, damage: Damage
) -> None:
    name = publish("a", "current")
    damage(store, name)
    assert publish("a") == name
    assert store.verify() == {name: ()}


def test_an_agent_damaged_twice_replaces_its_older_evidence(
    store: Store, publish: Publish, make_model: MakeModel
) -> None:
    publish("a", "current")
    for damage in (flip_a_byte, truncate):
        second = publish("b", "current")
        damage(store, second)
        store.load_healthy()
    [kept] = (store.root / "quarantine").iterdir()
    assert sorted(len(item.read_bytes()) for item in kept.iterdir())[0] == len(make_model("b")) - 1


def test_an_agent_of_a_later_schema_is_passed_over_but_not_given_up(
    store: Store, publish: Publish
) -> None:
    first, second = publish("a", "current"), publish("b", "current")
    path = manifest_of(store, second)
    write_json(path, read_json(path) | {"schema": "adacompress.agent/2"})
    assert store.load_healthy()[0].id == first
    assert store.resolve("current") == second
    assert store.verify()[second][0].kind == "too new"
    with pytest.raises(SchemaTooNew):
        store.load("current")


def test_a_store_that_cannot_be_written_still_gives_the_agent_before(
    store: Store, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = publish("a", "current"), publish("b", "current")
    truncate(store, second)
    (store.root / "quarantine").write_bytes(b"a file in the way")
    for _ in range(2):
        agent, given_up = store.load_healthy()
        assert (agent.id, given_up) == (first, (second,))
    assert store.resolve("current") == second
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_recovery_does_not_insist_on_the_lock(store: Store, publish: Publish) -> None:
    pytest.importorskip("fcntl")
    first, second = publish("a", "current"), publish("b", "current")
    truncate(store, second)
    with locking.exclusive(store.root / ".lock", timeout_s=0):
        agent, given_up = Store(store.root, lock_timeout_s=0).load_healthy()
    assert (agent.id, given_up) == (first, (second,))
    assert store.ids() == tuple(sorted((first, second)))


def test_rollback_skips_agents_that_are_gone(store: Store, publish: Publish) -> None:
    first, second, _ = (publish(word, "current") for word in "abc")
    delete_agent(store, second)
    assert store.rollback() == first


def test_fields_of_a_newer_minor_version_count_for_the_id(store: Store, publish: Publish) -> None:
    document = read_json(manifest_of(store, publish("a"))) | {"future": 1}
    name = document["id"] = content_id(document)
    write_json(manifest_of(store, name), document)
    assert store.manifest(name).id == name
    write_json(manifest_of(store, name), document | {"future": 2})
    with pytest.raises(CorruptAgent, match="was changed after it was published"):
        store.manifest(name)
