from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store import CorruptAgent, Draft, FileEntry, Manifest, ManifestInvalid, SchemaTooNew
from model_store.manifest import checked, content_id
from model_store.schema import parse_document

MakeDraft = Callable[..., Draft]
CREATED = "2031-02-03T04:05:06Z"
ENTRIES = (
    FileEntry(path="engine.onnx", role="engine", sha256="0" * 64, size=10),
    FileEntry(path="probe/engine.onnx", role="probe", sha256="1" * 64, size=11),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=4)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)
scenery_signatures = st.integers(0, 3).flatmap(
    lambda size: st.fixed_dictionaries(
        {
            "mean": st.lists(numbers, min_size=size, max_size=size),
            "std": st.lists(numbers, min_size=size, max_size=size),
            "radius": numbers,
            "window": st.integers(0, 100),
            "n": st.integers(0, 100),
        }
    )
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "algorithm": st.sampled_from(["bandit", "dqn"]),
        "ladder": st.lists(objects, min_size=1, max_size=3).map(tuple),
        "operating_points": st.lists(objects, min_size=1, max_size=3).map(tuple),
        "reward": st.fixed_dictionaries({"alpha": numbers, "beta": numbers}),
        "metrics": objects,
        "versions": st.dictionaries(texts, texts, max_size=3),
        "scenery": st.none()
        | st.fixed_dictionaries({"name": names, "signature": st.none() | scenery_signatures}),
    },
)


def manifest_of(draft: Draft) -> Manifest:
    return draft.complete(created=CREATED, files=ENTRIES)


@pytest.fixture
def document(make_draft: MakeDraft) -> dict[str, Any]:
    scenery = {
        "name": "night",
        "signature": {"mean": [0.0], "std": [1.0], "radius": 2.0, "window": 8, "n": 64},
    }
    return manifest_of(make_draft(scenery=scenery)).to_json()


@given(changed=changes)
def test_a_manifest_survives_json(make_draft: MakeDraft, changed: dict[str, Any]) -> None:
    manifest = manifest_of(make_draft(**changed))
    read = Manifest.from_json(json.loads(json.dumps(manifest.to_json())))
    assert read == manifest
    assert content_id(read.to_json()) == read.id
    assert read.id.startswith((changed.get("scenery") or {"name": "agent"})["name"] + "-")


@given(document=objects)
def test_any_object_is_refused_in_words(document: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid, match="allowed is"):
        Manifest.from_json(document)


def test_the_id_follows_the_content_and_nothing_else(make_draft: MakeDraft) -> None:
    first = manifest_of(make_draft())
    later = make_draft().complete(created="2032-01-01T00:00:00Z", files=ENTRIES[::-1])
    other_word = manifest_of(make_draft(versions={"torch": "2"}))
    other_file = make_draft().complete(created=CREATED, files=ENTRIES[:1])
    assert first.id == later.id
    assert len({first.id, other_word.id, other_file.id}) == 3


def test_a_manifest_can_be_the_draft_of_another(make_draft: MakeDraft) -> None:
    first = manifest_of(make_draft())
    child = dataclasses.replace(first, parent=first.id)
    assert manifest_of(first) == first
    assert manifest_of(child).parent == first.id != manifest_of(child).id


def test_unknown_fields_are_kept(document: dict[str, Any]) -> None:
    document |= {"schema": "adacompress.agent/1.3", "future": {"anything": 1}, "extra": [2]}
    document["files"][0]["future"] = 2
    read = Manifest.from_json(document)
    assert read.to_json() == document
    assert read.extra["future"] == {"anything": 1}
    assert content_id(read.to_json()) != read.id  # they count for it


@pytest.mark.parametrize("depth", [100, 300, 900, 100_000])
def test_a_manifest_of_any_depth_is_read_or_refused(document: dict[str, Any], depth: int) -> None:
    nested = "[" * depth + "]" * depth
    data = json.dumps(document | {"metrics": {"deep": 0}}).replace('"deep": 0', f'"deep": {nested}')
    with contextlib.suppress(ManifestInvalid, CorruptAgent):
        parsed = parse_document(data.encode(), "adacompress.agent/1", "It")
        checked(parsed, document["id"])


@pytest.mark.parametrize(
    "name", sorted({item.name for item in dataclasses.fields(Manifest)} - {"extra"})
)
def test_a_missing_field_is_named(document: dict[str, Any], name: str) -> None:
    del document[name]
    with pytest.raises(ManifestInvalid, match=f"field {name} is missing"):
        Manifest.from_json(document)


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("id", "../../etc", "an id such as"),
        ("created", "yesterday", "a time in UTC"),
        ("created", "2031-02-03T04:05:06+02:00", "a time in UTC"),
        ("created", 5, "a time in UTC"),
        ("parent", "x", "an id such as"),
        ("algorithm", "ppo", "'bandit' or 'dqn'"),
        ("ladder", [], "at least 1 item"),
        ("ladder", {}, "a list"),
        ("ladder.0", 75, "an object"),
        ("signature.inputs.0.shape.0", 0, "1 or more"),
        ("signature.outputs.0.dtype", None, "a text"),
        ("preprocessing.sha256", "A" * 64, "64 lower-case hex"),
        ("preprocessing.spec", "words", "an object"),
        ("reward.alpha", True, "a finite number"),
        ("reward.beta", "0", "a finite number"),
        ("operating_points", [], "at least 1 item"),
        ("scenery", "night", "an object"),
        ("scenery.name", "a/b", "letters, digits"),
        ("scenery.signature.radius", None, "a finite number"),
        ("scenery.signature.mean.0", "x", "a finite number"),
        ("backend.name", 1, "a text"),
        ("backend.min_score", "high", "a finite number"),
        ("training.photos", -1, "0 or more"),
        ("training.seed", 1.5, "a whole number"),
        ("metrics", [1], "an object"),
        ("probe.rungs.1", -1, "0 or more"),
        ("probe.q_values.0", 1.0, "a list"),
        ("versions.torch", 2, "a text"),
        ("files", None, "a list"),
        ("files.1.size", "11", "0 or more"),
        ("files.1.sha256", "", "64 lower-case hex"),
        ("files.0.path", "../engine.onnx", "a relative path"),
        ("files.0.role", "", "a word"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    document: dict[str, Any], where: str, value: Any, says: str
) -> None:
    *parents, last = [int(part) if part.isdigit() else part for part in where.split(".")]
    target: Any = document
    for part in parents:
        target = target[part]
    target[last] = value
    with pytest.raises(ManifestInvalid) as raised:
        Manifest.from_json(document)
    named = ".".join(map(str, [*parents, last])).replace(".0", "[0]").replace(".1", "[1]")
    assert f"The field {named} is {value!r}; allowed is" in str(raised.value)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "a/../../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "C:/a",
        "a\n",
        "a\x00",
        "\ud800",
    ],
)
def test_a_path_that_could_leave_the_folder_is_refused(path: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"file\.path"):
        FileEntry(path=path, role="engine", sha256="0" * 64, size=1)


@pytest.mark.parametrize("path", ["a", "a/b.onnx", "..a", "a..b/c", ".hidden", "ein Bild/ü.json"])
def test_an_ordinary_path_is_accepted(path: str) -> None:
    assert FileEntry(path=path, role="engine", sha256="0" * 64, size=1).path == path


def test_a_path_occurs_once(make_draft: MakeDraft) -> None:
    with pytest.raises(ManifestInvalid, match="every path only once"):
        make_draft().complete(created=CREATED, files=ENTRIES[:1] * 2)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, object(), b"bytes", "\ud800", {(1, 2): 3}, {1, 2}]
)
def test_what_json_cannot_carry_is_refused_by_name(make_draft: MakeDraft, value: Any) -> None:
    with pytest.raises(ManifestInvalid, match="field metrics holds what JSON cannot carry"):
        make_draft(metrics={"figure": value})


def test_a_draft_keeps_no_hold_of_what_it_was_given(make_draft: MakeDraft) -> None:
    metrics: dict[str, Any] = {"size_ratio": [0.3]}
    draft = make_draft(metrics=metrics)
    metrics["size_ratio"].append("later")
    assert draft.metrics == {"size_ratio": [0.3]}


def test_every_probe_decision_has_its_q_values(make_draft: MakeDraft) -> None:
    with pytest.raises(ManifestInvalid, match=r"probe\.q_values has 1 rows"):
        make_draft(probe={"rungs": [0, 1], "q_values": [[0.1, 0.2]]})


def test_a_scenery_signature_has_as_many_deviations_as_means(make_draft: MakeDraft) -> None:
    signature = {"mean": [0.0, 1.0], "std": [1.0], "radius": 1.0, "window": 1, "n": 1}
    with pytest.raises(ManifestInvalid, match=r"scenery\.signature\.std has 1"):
        make_draft(scenery={"name": "night", "signature": signature})


def test_a_later_major_schema_is_too_new_and_both_are_named(document: dict[str, Any]) -> None:
    document["schema"] = "adacompress.agent/2"
    with pytest.raises(SchemaTooNew, match=r"'adacompress\.agent/2'.*'adacompress\.agent/1'"):
        Manifest.from_json(document)


def test_a_later_minor_schema_is_read(document: dict[str, Any]) -> None:
    assert Manifest.from_json(document | {"schema": "adacompress.agent/1.7"}).algorithm == "bandit"


@pytest.mark.parametrize("seen", [None, 1, "agent/1", "adacompress.agent/0", "adacompress.agent/x"])
def test_another_schema_is_refused(document: dict[str, Any], seen: Any) -> None:
    with pytest.raises(ManifestInvalid, match="field schema"):
        Manifest.from_json(document | {"schema": seen})


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(ManifestInvalid, match="no JSON object"):
        Manifest.from_json(document)


def test_files_are_found_by_role(make_draft: MakeDraft) -> None:
    manifest = manifest_of(make_draft())
    assert manifest.entries("probe") == ENTRIES[1:]
    assert manifest.entries("none") == ()
