"""One file in, one file out; and everything that is not such a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store import (
    AdaCompressError,
    BundleInvalid,
    CorruptAgent,
    Draft,
    EnvironmentMissing,
    ManifestInvalid,
    SchemaTooNew,
    Store,
    StoreReader,
    UnsafeModel,
    UsageError,
)
from model_store.manifest import content_id

Publish = Callable[..., str]
MakeModel = Callable[..., bytes]
Parts = list[tuple[str, bytes]]

EXAMPLES = int(os.environ.get("ADACOMPRESS_FUZZ", "200"))


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder and its content, but for the lock's."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def bundle(store: Store, publish: Publish, tmp_path: Path) -> Path:
    path = tmp_path / "agent.zip"
    store.pack(publish("a"), path)
    return path


@pytest.fixture
def parts(bundle: Path) -> Parts:
    with zipfile.ZipFile(bundle) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other")


def zipped(parts: Parts, **changes: object) -> bytes:
    """Write parts as an ordinary ZIP library writes them, in our form but for the changes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in parts:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            for field, value in changes.items():
                setattr(info, field, value)
            archive.writestr(info, content)
    return made.getvalue()


def refused(other: Store, tmp_path: Path, data: bytes, error: type[Exception], said: str) -> None:
    """Unpack ``data`` into no store and into one, and see that neither has changed."""
    path = tmp_path / "bad.zip"
    path.write_bytes(data)
    before = tree(tmp_path)
    with pytest.raises(error, match=said):
        other.unpack(path, aliases=["current"])
    assert not other.root.exists()
    with pytest.raises(error):
        Store(tmp_path / "store").unpack(path, aliases=["current"])
    assert tree(tmp_path) == before


def test_what_was_packed_can_be_unpacked_elsewhere(
    store: Store, bundle: Path, other: Store, make_model: MakeModel
) -> None:
    [name] = store.ids()
    manifest = other.unpack(bundle, aliases=["current"])
    assert manifest == store.manifest(name)
    assert other.load("current").file("engine") == make_model("a")
    assert other.verify() == {name: ()}
    assert other.history("current")[0].reason == "from agent.zip"
    before = tree(other.root)
    assert other.unpack(bundle) == manifest  # again: nothing changes
    assert tree(other.root) == before


def test_the_same_agent_makes_the_same_file(
    store: Store, bundle: Path, other: Store, tmp_path: Path
) -> None:
    [name] = store.ids()
    other.unpack(bundle)
    other.pack(name, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_an_ordinary_zip_library_writes_and_reads_the_same_bytes(
    bundle: Path, parts: Parts
) -> None:
    assert zipped(parts) == bundle.read_bytes()
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None


def test_unzipped_it_is_a_store(bundle: Path, store: Store, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "unzipped")
    reader = StoreReader(tmp_path / "unzipped")
    assert reader.verify() == dict.fromkeys(store.ids(), ())


def test_unknown_fields_travel(
    store: Store, publish: Publish, other: Store, tmp_path: Path
) -> None:
    from model_store.files import write_json

    document = store.manifest(publish("a")).to_json() | {"future": [1]}
    document["id"] = content_id(document)
    write_json(store.root / "agents" / document["id"] / "manifest.json", document)
    store.pack(document["id"], tmp_path / "b.zip")
    assert other.unpack(tmp_path / "b.zip").to_json() == document


def test_a_damaged_agent_is_not_packed(store: Store, publish: Publish, tmp_path: Path) -> None:
    name = publish("a")
    sha256 = store.manifest(name).files[0].sha256
    (store.root / "blobs" / "sha256" / sha256[:2] / sha256).write_bytes(b"?")
    with pytest.raises(CorruptAgent):
        store.pack(name, tmp_path / "b.zip")
    assert not list(tmp_path.glob("*b.zip*"))
    with pytest.raises(EnvironmentMissing, match="cannot be written"):
        store.pack(publish("b"), tmp_path / "store" / ".lock" / "b.zip")


def test_a_file_that_is_not_there_is_a_usage_error(other: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        other.unpack(tmp_path / "none.zip")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../evil", "where"),
        ("/etc/cron.d/evil", "where"),
        ("blobs/sha256/../../evil", "where"),
        ("C:\\evil", "where"),
        ("agents/other/manifest.json", "where"),
    ],
)
def test_an_entry_with_a_path_of_its_own_is_refused(
    other: Store, tmp_path: Path, parts: Parts, name: str, said: str
) -> None:
    data = zipped([parts[0], (name, b"evil"), *parts[1:]])
    refused(other, tmp_path, data, BundleInvalid, said)
    refused(other, tmp_path, zipped([*parts, (name, b"x")]), BundleInvalid, "another directory")
    refused(other, tmp_path, zipped([(name, b"x"), *parts]), BundleInvalid, "begins with")


def test_links_are_refused(other: Store, tmp_path: Path, parts: Parts) -> None:
    data = zipped(parts, external_attr=(stat.S_IFLNK | 0o777) << 16)
    refused(other, tmp_path, data, BundleInvalid, "another directory than its entries make")


def test_bombs_are_refused(other: Store, tmp_path: Path, parts: Parts) -> None:
    data = zipped(parts, compress_type=zipfile.ZIP_DEFLATED)
    refused(other, tmp_path, data, BundleInvalid, "another form")
    # Entries that overlap: many names for the same bytes.
    honest = zipped(parts)
    start = honest.index(b"PK\1\2")
    end = honest.rindex(b"PK\5\6")
    listed = honest[start:end] * 50
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 150, 150, len(listed), start, 0)
    refused(other, tmp_path, honest[:start] + listed + tail, BundleInvalid, "directory")


def test_duplicates_are_refused(other: Store, tmp_path: Path, parts: Parts) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped([parts[0], parts[1], *parts[1:]])
    refused(other, tmp_path, data, BundleInvalid, "where")
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = zipped([parts[0], *parts])
    refused(other, tmp_path, data, BundleInvalid, "where")


def test_a_content_that_is_not_the_manifests_is_refused(
    other: Store, tmp_path: Path, parts: Parts
) -> None:
    for index in (1, 2):
        wrong = list(parts)
        wrong[index] = (parts[index][0], parts[index][1][:-1] + b"?")
        refused(other, tmp_path, zipped(wrong), CorruptAgent, "SHA-256")
        wrong[index] = (parts[index][0], parts[index][1] + b"?")
        refused(other, tmp_path, zipped(wrong), CorruptAgent, "SHA-256")
    refused(other, tmp_path, zipped(parts[:-1]), BundleInvalid, "no entry|another directory")


def test_a_manifest_that_was_changed_is_refused(other: Store, tmp_path: Path, parts: Parts) -> None:
    name, data = parts[0]
    document = json.loads(data)

    def with_manifest(changed: object) -> bytes:
        return zipped([(name, json.dumps(changed).encode()), *parts[1:]])

    changed = document | {"algorithm": "dqn"}
    refused(other, tmp_path, with_manifest(changed), CorruptAgent, "was changed after")
    newer = document | {"schema": "adacompress.agent/2"}
    refused(other, tmp_path, with_manifest(newer), SchemaTooNew, "adacompress.agent/2")
    refused(other, tmp_path, with_manifest([1]), ManifestInvalid, "no JSON object")
    refused(other, tmp_path, zipped([(name, b"{"), *parts[1:]]), ManifestInvalid, "not JSON")


def _signed_off(document: dict[str, object]) -> tuple[str, bytes]:
    document["id"] = content_id(document)
    return f"agents/{document['id']}/manifest.json", json.dumps(document).encode()


def test_a_manifest_that_announces_too_much_is_refused_before_anything_is_read(
    other: Store, tmp_path: Path, parts: Parts
) -> None:
    document = json.loads(parts[0][1])
    document["files"][0]["size"] = 1 << 40
    data = zipped([_signed_off(document), *parts[1:]])
    refused(other, tmp_path, data, ManifestInvalid, "announces 2 files of 10995116")
    document["files"] = [
        {"path": f"f{number}", "role": "card", "sha256": "0" * 64, "size": 0}
        for number in range(1001)
    ]
    data = zipped([_signed_off(document)])
    refused(other, tmp_path, data, ManifestInvalid, "announces 1001 files")
    two = [
        {"path": f"f{size}", "role": "card", "sha256": "0" * 64, "size": size} for size in (0, 1)
    ]
    data = zipped([_signed_off(document | {"files": two})])
    refused(other, tmp_path, data, ManifestInvalid, "two sizes")


def test_an_unsafe_model_is_refused(
    other: Store, tmp_path: Path, parts: Parts, make_draft: Callable[..., Draft]
) -> None:
    document = json.loads(parts[0][1])
    bad = b"\x3a\x02no model"
    entry = {"path": "e.onnx", "role": "engine", "sha256": _hash(bad), "size": len(bad)}
    manifest = _signed_off(document | {"files": [entry]})
    blob = (f"blobs/sha256/{_hash(bad)[:2]}/{_hash(bad)}", bad)
    refused(other, tmp_path, zipped([manifest, blob]), UnsafeModel, "The model")


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\5\6" + b"\0" * 18, b"\0" * 1000])
def test_what_is_no_bundle_is_refused(other: Store, tmp_path: Path, data: bytes) -> None:
    refused(other, tmp_path, data, BundleInvalid, "no entry|begins with") if data else None
    path = tmp_path / "bad.zip"
    path.write_bytes(data)
    with pytest.raises(BundleInvalid):
        other.unpack(path)


def test_anything_before_between_or_behind_is_refused(
    other: Store, tmp_path: Path, bundle: Path
) -> None:
    data = bundle.read_bytes()
    second = data.index(b"PK\3\4", 1)
    for position in (0, second, len(data)):
        wrong = data[:position] + b"#!/bin/sh" + data[position:]
        refused(other, tmp_path, wrong, BundleInvalid, "bundle bad.zip")
    refused(other, tmp_path, data[:-1] + b"\1!", BundleInvalid, "directory")


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_mutated_bundle_is_refused_with_a_typed_error_and_changes_nothing(
    bundle: Path, other: Store, tmp_path: Path, data: st.DataObject
) -> None:
    good = bundle.read_bytes()
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(start + 40, len(content))))
        content[start:end] = data.draw(st.binary(max_size=40))
    if content == good:
        return
    (tmp_path / "bad.zip").write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(AdaCompressError):
        other.unpack(tmp_path / "bad.zip")
    assert tree(tmp_path) == before
    assert not other.root.exists()


def _mutate(parts: Parts, data: st.DataObject) -> Parts:
    """Return other parts, in archives that are well-formed: what a byte flip never finds."""
    names = [name for name, _ in parts] + ["../evil", "/evil", "agents/x/manifest.json", "a" * 300]
    index = data.draw(st.integers(0, len(parts) - 1))
    name, content = parts[index]
    how = data.draw(st.sampled_from(["drop", "double", "rename", "swap", "content", "manifest"]))
    if how == "drop":
        return parts[:index] + parts[index + 1 :]
    if how == "double":
        return [*parts, (data.draw(st.sampled_from(names)), content)]
    if how == "rename":
        other = data.draw(st.sampled_from(names))
        return [*parts[:index], (other, content), *parts[index + 1 :]]
    if how == "swap":
        return [*parts[index:], *parts[:index]]
    if how == "content":
        position = data.draw(st.integers(0, len(content)))
        changed = content[:position] + data.draw(st.binary(max_size=9)) + content[position + 1 :]
        return [*parts[:index], (name, changed), *parts[index + 1 :]]
    document = json.loads(parts[0][1])
    field = data.draw(st.sampled_from(sorted({*document, "future"} - {"id"})))
    entry = document["files"][0]
    document[field] = data.draw(
        st.none() | st.integers() | st.text(max_size=5) | st.just([{**entry, "path": "../x"}])
    )
    with contextlib.suppress(KeyError, TypeError):  # honest about its id, whatever it holds
        return [_signed_off(document), *parts[1:]]
    return parts


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_well_formed_bundle_of_other_parts_is_refused_or_whole(
    parts: Parts, tmp_path: Path, data: st.DataObject
) -> None:
    store, path = Store(tmp_path / "fuzzed"), tmp_path / "bad.zip"
    path.write_bytes(zipped(_mutate(parts, data)))
    before = tree(tmp_path)
    try:
        manifest = store.unpack(path)
    except AdaCompressError:
        assert tree(tmp_path) == before
        return
    assert store.verify(manifest.id) == {manifest.id: ()}
    shutil.rmtree(store.root)
