"""Documents from elsewhere: the published JSON Schema, and mutations of every kind."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import model_store
from model_store import AdaCompressError, CorruptAgent, Draft, FileEntry, ManifestInvalid
from model_store.incoming import Incoming, receive
from model_store.manifest import Manifest

MakeDraft = Callable[..., Draft]

EXAMPLES = int(os.environ.get("ADACOMPRESS_FUZZ", "200"))
SCHEMA = json.loads((Path(model_store.__file__).parent / "agent.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

FILES = (FileEntry(path="sub/a.bin", role="card", sha256="0" * 64, size=3),)

#: What a mutation puts in the place of any value.
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["../x", "/etc/passwd", "a/../b", "C:\\x", "\ud800", "adacompress.agent/9"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def manifest(make_draft: MakeDraft) -> Manifest:
    signature = {"mean": [0.0], "std": [1.0], "radius": 2.0, "window": 8, "n": 64}
    draft = make_draft(
        scenery={"name": "night", "signature": signature}, versions={"python": "3.11"}
    )
    return draft.complete(created="2031-02-03T04:05:06Z", files=FILES)


def no_content(entry: FileEntry) -> list[bytes]:
    raise AssertionError(f"{entry.path} was read before its manifest was checked")


def received(name: str, manifest: bytes, signatures: bytes | None = None) -> Incoming:
    return receive(name, manifest, signatures, no_content, "elsewhere")


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document that holds a value."""
    keys: Any = ()
    if isinstance(document, dict):
        keys = document
    elif isinstance(document, list):
        keys = range(len(document))
    return [at, *(place for key in keys for place in places(document[key], (*at, key)))]


def mutated(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value in one place; ``...`` removes it."""
    if not place:
        return value
    changed = copy.deepcopy(document)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    return changed


def test_the_json_schema_is_one_and_takes_our_manifests(manifest: Manifest) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    document = manifest.to_json()
    VALIDATOR.validate(document)
    VALIDATOR.validate(document | {"future": 1, "schema": "adacompress.agent/1.2"})
    assert received(manifest.id, json.dumps(document).encode()).manifest == manifest
    assert set(SCHEMA["required"]) == set(document)


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_what_we_accept_the_json_schema_accepts(manifest: Manifest, data: st.DataObject) -> None:
    document = manifest.to_json()
    place = data.draw(st.sampled_from(places(document)))
    changed = mutated(document, place, data.draw(STRANGE | st.just(...) if place else STRANGE))
    try:
        Manifest.from_json(changed)
    except AdaCompressError:
        return
    VALIDATOR.validate(changed)


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_mutated_manifest_is_refused_with_a_typed_error(
    manifest: Manifest, data: st.DataObject
) -> None:
    document = manifest.to_json()
    for _ in range(data.draw(st.integers(1, 3))):
        if isinstance(document, dict):
            place = data.draw(st.sampled_from(places(document)))
            strange = STRANGE | st.just(...) if place else STRANGE
            document = mutated(document, place, data.draw(strange))
    content = bytearray(json.dumps(document).encode())
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(content)))
        content[start : start + 3] = data.draw(st.binary(max_size=5))
    try:
        got = received(manifest.id, bytes(content))
    except AdaCompressError:
        return
    # What passes is the same agent: only what its id does not cover may differ.
    assert received(manifest.id, json.dumps(got.manifest.to_json()).encode()).manifest.id == (
        manifest.id
    )


@settings(max_examples=EXAMPLES)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()))
def test_any_signature_file_is_read_or_refused_with_a_typed_error(
    manifest: Manifest, content: bytes
) -> None:
    whole = json.dumps(manifest.to_json()).encode()
    with pytest.raises(AdaCompressError):
        received(manifest.id, whole, content)


def test_a_document_without_end_is_cut() -> None:
    with pytest.raises(ManifestInvalid, match="more than 8388608 bytes"):
        received("agent-0123456789ab", b" " * (9 << 20))


@pytest.mark.parametrize("size", [0, 2, 4, 99])
def test_a_source_that_yields_more_is_stopped(manifest: Manifest, size: int) -> None:
    incoming = receive(
        manifest.id,
        json.dumps(manifest.to_json()).encode(),
        None,
        lambda entry: iter([b"x"] * size),
        "elsewhere",
    )
    if size > 3:
        with pytest.raises(CorruptAgent, match="more than the 3 bytes"):
            list(incoming.blocks(FILES[0]))
    else:
        assert len(list(incoming.blocks(FILES[0]))) == size


@pytest.mark.parametrize("depth", [50, 400, 800, 950, 990, 5000])
@pytest.mark.parametrize("field", ["schema", "id", "files", "algorithm", "scenery", "future"])
def test_any_depth_in_any_field_is_a_typed_error(
    manifest: Manifest, field: str, depth: int
) -> None:
    document = manifest.to_json() | {field: "HERE"}
    nested = "[" * depth + "]" * depth
    with pytest.raises(AdaCompressError):
        received(manifest.id, json.dumps(document).replace('"HERE"', nested).encode())
