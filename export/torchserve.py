"""A TorchServe archive (``.mar``) of an agent: for fleets that serve models that way already.

TorchServe is no longer maintained (last release 0.12.0, 2024-09), so nothing else here depends on
it. An archive is a zip with ``MAR-INF/MANIFEST.json`` in it
(https://github.com/pytorch/serve/tree/master/model-archiver), so it is written without TorchServe's
archiver: that would be a package more, asks for files on disk, and makes another file every time.

Inside: the ONNX, the agent's manifest, the handler with the very packages that a device runs, and
``requirements.txt``. The head's weights and the probe set's pictures stay at home.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import edge_sdk
import model_store
from export import torchserve_handler
from export.torchserve_handler import MANIFEST
from model_store import StoredAgent
from model_store.files import to_json

__all__ = ["REQUIREMENTS", "archive", "model_name", "own_packages", "pack", "served"]

#: What the handler imports besides the packages in the archive. TorchServe's workers themselves
#: need torch and PyYAML, which its own package does not pull in.
REQUIREMENTS = "numpy>=1.26\npillow>=11\nonnxruntime>=1.20\n"

#: Roles of the files that decide; the others are for training and for gates.
_DECIDING = re.compile(r"engine(-int8)?|probe")

#: A zip knows times from 1980 on; a fixed one makes equal archives of equal agents.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def archive(stored: StoredAgent) -> bytes:
    """Return the agent as a ``.mar``; the same agent gives the same bytes.

    Raises:
        CorruptAgent: a file is not what the manifest says.
    """
    return pack(_contents(stored))


def model_name(stored: StoredAgent) -> str:
    """Return the name that TorchServe serves the agent under: its scenery's, or ``adacompress``."""
    return str((stored.manifest.scenery or {}).get("name") or "adacompress")


def pack(contents: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip of names and contents; the same ones give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as mar:
        for name, content in sorted(contents):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            mar.writestr(entry, content)
    return buffer.getvalue()


def own_packages() -> Iterator[tuple[str, bytes]]:
    """Yield the source of what a handler imports of ours."""
    for package in (edge_sdk, model_store):
        folder = Path(str(package.__file__)).parent
        for path in folder.rglob("*.py"):
            yield path.relative_to(folder.parent).as_posix(), path.read_bytes()


def served(created: str, **model: str) -> bytes:
    """Return ``MAR-INF/MANIFEST.json``: ``handler.py`` and what else is said of the model."""
    document = {
        "createdOn": created,
        "runtime": "python",
        "model": {**model, "handler": "handler.py", "requirementsFile": "requirements.txt"},
        "archiverVersion": "0.12.0",
    }
    return json.dumps(document, indent=2).encode()


def _contents(stored: StoredAgent) -> Iterator[tuple[str, bytes]]:
    manifest = stored.manifest
    (engine,) = manifest.entries("engine")
    yield (
        "MAR-INF/MANIFEST.json",
        served(
            manifest.created,
            modelName=model_name(stored),
            serializedFile=engine.path,
            modelVersion="1.0",
        ),
    )
    yield "handler.py", Path(torchserve_handler.__file__).read_bytes()
    yield "requirements.txt", REQUIREMENTS.encode()
    yield MANIFEST, to_json(manifest.to_json()).encode()
    for entry in manifest.files:
        if _DECIDING.fullmatch(entry.role):
            yield entry.path, stored.read(entry.path)
    yield from own_packages()
