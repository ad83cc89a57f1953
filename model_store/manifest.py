"""What an agent is: its manifest, ``adacompress.agent/1``.

A :class:`Draft` is what a publisher knows; a :class:`Manifest` is a draft that the store completed
with an id, a time and the list of files. Neither holds the files' contents (see ``store``).

    manifest = Manifest.from_json(document)
    manifest.operating_points[0]     # the default one
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from model_store import schema
from model_store.errors import CorruptAgent, ManifestInvalid
from model_store.files import sha256_bytes
from model_store.schema import array, matching, optional, record

__all__ = [
    "ID",
    "NAME",
    "SCHEMA",
    "Draft",
    "FileEntry",
    "Manifest",
    "checked",
    "content_id",
    "draft_from_json",
    "signed_content",
]

SCHEMA = "adacompress.agent/1"

#: A scenery's name; a part of ids, aliases and file names. No dots: ``a.json`` is a file.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
#: A scenery's name (or ``agent``) and the first digits of the content's SHA-256.
ID = re.compile(NAME.pattern + r"-[0-9a-f]{12}")

# Between slashes nothing empty, "." or ".."; no drive letters, backslashes or control characters.
_PART = r"(?!\.{1,2}(?:/|$))[^/\\:\x00-\x1f\ud800-\udfff]+"
_PATH = re.compile(f"{_PART}(?:/{_PART})*")

_object = record()
_id = matching(ID, "an id such as 'night-0123456789ab'")
_tensor = record(name=schema.text, dtype=schema.text, shape=array(schema.positive))
_numbers = array(schema.number)
_file = record(
    path=matching(_PATH, "a relative path with '/' between its parts, without '..'"),
    role=matching(NAME, "a word of letters, digits, '-' and '_'"),
    sha256=schema.sha256,
    size=schema.count,
)
_signature = record(
    mean=_numbers, std=_numbers, radius=schema.number, window=schema.count, n=schema.count
)

_DRAFT: dict[str, schema.Check] = {
    "parent": optional(_id),
    "algorithm": schema.one_of("bandit", "dqn"),
    "ladder": array(_object, at_least=1),
    "signature": record(inputs=array(_tensor, at_least=1), outputs=array(_tensor, at_least=1)),
    "preprocessing": record(spec=_object, sha256=schema.sha256),
    "reward": record(alpha=schema.number, beta=schema.number),
    "operating_points": array(_object, at_least=1),
    "scenery": optional(
        record(
            name=matching(NAME, "letters, digits, '-' and '_', 64 at most, the first no sign"),
            signature=optional(_signature),
        )
    ),
    "backend": record(
        name=schema.text,
        model_version=optional(schema.text),
        min_score=optional(schema.number),
    ),
    "training": record(
        fingerprint=schema.text,
        photos=schema.count,
        images=schema.count,
        labels_bought=schema.count,
        seed=schema.integer,
    ),
    "metrics": _object,
    "probe": record(rungs=array(schema.count), q_values=array(array(schema.number))),
    "versions": schema.each(schema.text),
}
_REQUIRED = [name for name in _DRAFT if name not in ("parent", "scenery", "metrics", "versions")]
_COMPLETE = record(**_DRAFT, id=_id, created=schema.moment, files=array(_file))


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of an agent: where it is for the agent, what it is for, and what it contains.

    Attributes:
        path: relative, with slashes, as in ``engine.onnx`` or ``probe/engine.onnx``.
        role: what a reader asks for, as in ``engine`` or ``probe``; several files may share one.
        sha256: lower-case hex SHA-256 of the content.
        size: bytes.
        extra: fields that this version does not know; they are kept.
    """

    path: str
    role: str
    sha256: str
    size: int
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _file(self.to_json(), "file")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready document; the inverse is :meth:`from_json`."""
        return _known(self) | dict(self.extra)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote and ``_file`` accepted."""
        return cls(**_split(cls, document))


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a publisher says about a new agent; ``Store.publish`` makes a manifest of it.

    The values are copied and hold plain JSON afterwards, tuples inside become lists.

    Attributes:
        algorithm: ``bandit`` or ``dqn``.
        ladder: the rungs, cheapest first, one object each.
        signature: ``{inputs: [{name, dtype, shape}], outputs: [...]}`` of the engine.
        preprocessing: ``{spec, sha256}`` of what is done to a picture before the engine.
        reward: ``{alpha, beta}`` of r = α·A − Δs + β.
        operating_points: trade-offs with their certificates; the first is the default.
        backend: ``{name, model_version | null, min_score | null}`` of the service it learned.
        training: ``{fingerprint, photos, images, labels_bought, seed}`` and whatever else is known.
        probe: ``{rungs, q_values}``: the decisions expected on synthetic pictures.
        parent: the id of the agent that this one was trained from.
        scenery: ``{name, signature | null}``; the signature is ``{mean, std, radius, window, n}``.
        metrics: figures on pictures that the agent never saw.
        versions: package or code name to version.

    Raises:
        ManifestInvalid: a field is not of its form.
    """

    algorithm: str
    ladder: Sequence[Mapping[str, Any]]
    signature: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    reward: Mapping[str, Any]
    operating_points: Sequence[Mapping[str, Any]]
    backend: Mapping[str, Any]
    training: Mapping[str, Any]
    probe: Mapping[str, Any]
    parent: str | None = None
    scenery: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, check in _DRAFT.items():
            value = _plain_json(getattr(self, name), name)
            check(value, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        _check_together(self)

    def complete(self, *, created: str, files: Sequence[FileEntry]) -> Manifest:
        """Return the manifest of this draft with these files; equal contents get equal ids."""
        content = {item.name: getattr(self, item.name) for item in fields(Draft)}
        ordered = tuple(sorted(files, key=lambda entry: entry.path))
        listed = [entry.to_json() for entry in ordered]
        name = content_id({"schema": SCHEMA, **content, "files": listed})
        return Manifest(**content, id=name, created=created, files=ordered)


@dataclass(frozen=True, kw_only=True)
class Manifest(Draft):
    """A published agent: a draft with its id, its time and its files.

    Attributes:
        id: derived from everything here but ``created``, see :func:`content_id`.
        created: ISO 8601 in UTC, the moment of the first publication.
        files: what the agent consists of, by path.
        extra: fields that this version does not know; they are kept, and count for the id.
    """

    id: str
    created: str
    files: tuple[FileEntry, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "extra", _plain_json(self.extra, "extra"))
        _COMPLETE(self.to_json(), "")
        paths = sorted(entry.path for entry in self.files)
        twice = [one for one, other in itertools.pairwise(paths) if one == other]
        if twice:
            raise ManifestInvalid(
                f"The field files has {twice[0][:80]!r} twice; allowed is every path only once."
            )

    def entries(self, role: str) -> tuple[FileEntry, ...]:
        """Return the files of ``role``, by path; empty if the agent has none."""
        return tuple(entry for entry in self.files if entry.role == role)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready document; the inverse is :meth:`from_json`."""
        document = json.loads(json.dumps(_known(self) | {"files": []}))
        files = [entry.to_json() for entry in self.files]
        # A minor version is an unknown field too: it counts for the id.
        return {"schema": SCHEMA, **document, "files": files, **self.extra}

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read a manifest. Unknown fields are kept, missing ones are not made up.

        Raises:
            SchemaTooNew: the document is of a later major version.
            ManifestInvalid: a field is missing or not of its form.
        """
        schema.check_schema(document, SCHEMA)
        _COMPLETE(document, "")
        read = _split(cls, document)
        if read["extra"]["schema"] == SCHEMA:
            del read["extra"]["schema"]
        return cls(**read | {"files": tuple(map(FileEntry.from_json, document["files"]))})


def draft_from_json(document: Mapping[str, Any]) -> Draft:
    """Return the draft in a manifest, or in a document of a manifest's fields without its own.

    Raises:
        ManifestInvalid: a field is missing or not of its form.
    """
    record(**{name: _DRAFT[name] for name in _REQUIRED})(document, "")
    return Draft(
        **{item.name: document[item.name] for item in fields(Draft) if item.name in document}
    )


def checked(document: Mapping[str, Any], name: str) -> Manifest:
    """Return the manifest of agent ``name``, whose content asks for that id.

    Raises:
        SchemaTooNew: the document is of a later major version.
        ManifestInvalid: a field is missing or not of its form.
        CorruptAgent: it is another agent's, or was changed after it was published.
    """
    try:
        manifest, actual = Manifest.from_json(document), content_id(document)
    except (RecursionError, UnicodeEncodeError) as error:
        raise ManifestInvalid(f"The manifest of agent {name} cannot be used: {error}.") from error
    if not manifest.id == actual == name:
        raise CorruptAgent(
            f"The manifest.json of agent {name} was changed after it was published: expected "
            f"content {name}, actual {actual}. Publish it again."
        )
    return manifest


def content_id(document: Mapping[str, Any]) -> str:
    """Return the id that a manifest's content asks for.

    The same agent published twice is one agent, and a manifest that was changed later no longer
    fits its id.
    """
    stem = document["scenery"]["name"] if document["scenery"] else "agent"
    return f"{stem}-{sha256_bytes(signed_content(document))[:12]}"


def signed_content(document: Mapping[str, Any]) -> bytes:
    """Return what an id and a signature are made of.

    It is every field but ``id`` and ``created``, unknown ones too, as canonical JSON.
    """
    content = {name: document[name] for name in document if name not in ("id", "created")}
    written = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return written.encode()


def _known(value: Any) -> dict[str, Any]:
    """Return the fields of a data class that its document has by name."""
    return {item.name: getattr(value, item.name) for item in fields(value) if item.name != "extra"}


def _split(kind: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a data class that reads ``document``, what is unknown as extra."""
    known = {item.name for item in fields(kind)} - {"extra"}
    extra = {name: document[name] for name in document if name not in known}
    return {name: document[name] for name in known} | {"extra": extra}


def _plain_json(value: Any, name: str) -> Any:
    """Copy ``value`` as JSON would carry it; NaN, arrays and other objects cannot travel."""
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
        written.encode()  # half of a surrogate pair has no UTF-8
        return json.loads(written)
    except (TypeError, ValueError, RecursionError) as error:
        raise ManifestInvalid(
            f"The field {name} holds what JSON cannot carry ({error}); allowed are texts, finite "
            "numbers, booleans, null, lists and objects."
        ) from error


def _check_together(draft: Draft) -> None:
    """Check what no single field shows."""
    if len(draft.probe["rungs"]) != len(draft.probe["q_values"]):
        raise ManifestInvalid(
            f"The field probe.q_values has {len(draft.probe['q_values'])} rows; allowed is one for "
            f"each of the {len(draft.probe['rungs'])} decisions in probe.rungs."
        )
    scenery = (draft.scenery or {}).get("signature")
    if scenery and len(scenery["mean"]) != len(scenery["std"]):
        raise ManifestInvalid(
            f"The field scenery.signature.std has {len(scenery['std'])} numbers; allowed are as "
            f"many as in mean, {len(scenery['mean'])}."
        )
