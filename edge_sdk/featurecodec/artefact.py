"""The files of a codec, ``adacompress.codec/1``: read, and checked against each other.

A folder, or the same files inside an agent by their roles (``FILES``). ``codec.json`` says what the
codec is; its ``id`` is the beginning of the SHA-256 of the encoder's and the entropy model's files,
so that a stream's four bytes of it say which tables it was coded with.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError
from edge_sdk.featurecodec.bitstream import MAX_RATES
from edge_sdk.featurecodec.entropy import Entropy
from edge_sdk.view import View
from model_store import schema
from model_store.errors import CorruptAgent, EnvironmentMissing, ManifestInvalid, UsageError
from model_store.files import sha256_bytes

__all__ = [
    "DOCUMENT",
    "ENCODER",
    "ENTROPY",
    "FILES",
    "INT8",
    "SCHEMA",
    "Artefact",
    "codec_id",
    "encoder_metadata",
]

SCHEMA = "adacompress.codec/1"

DOCUMENT, ENCODER, ENTROPY = "codec-json", "codec-encoder", "codec-entropy"
#: The role of the device side in INT8, which not every codec has.
INT8 = "codec-encoder-int8"

#: Role inside an agent -> name inside a folder.
FILES = {
    DOCUMENT: "codec.json",
    ENCODER: "encoder.onnx",
    ENTROPY: "entropy.npz",
    INT8: "encoder-int8.onnx",
}

#: Larger maps are a mistake. It bounds what a stream of a few bytes may make the server reserve.
_MOST_INTEGERS = 1 << 22
_MOST_ENTROPY = 256 << 20

_FIELDS = schema.record(
    id=schema.matching(re.compile(r"[0-9a-f]{16}"), "16 lower-case hex digits"),
    view=schema.each(lambda value, where: None),
    shape=schema.array(schema.positive, at_least=3),
    limit=schema.positive,
    rates=schema.positive,
    entropy=schema.one_of("factorised", "context"),
)

Source = str | Path | Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A codec's files, checked.

    Attributes:
        id: 16 hexadecimal digits.
        view: what the device side and the classifier look at.
        shape: (C, H, W) of the integers.
        rates: R.
        entropy: codes the integers.
        encoder: the device side's ONNX file, in fp32.
        int8: the same in INT8, None where no gate let one pass.
        document: ``codec.json`` whole, with what this version does not know.
    """

    id: str
    view: View
    shape: tuple[int, int, int]
    rates: int
    entropy: Entropy
    encoder: bytes
    int8: bytes | None
    document: Mapping[str, Any]

    @classmethod
    def open(cls, source: Source) -> Artefact:
        """Read a codec from a folder, or from bytes by their roles.

        Raises:
            UsageError: there is no codec in the folder.
            CorruptAgent: a file is missing, or is not the one that ``codec.json`` names.
            ManifestInvalid: ``codec.json`` lacks a field, or one is out of range.
            SchemaTooNew: it is of a later major version.
            EngineError: the entropy model breaks the contract.
        """
        files = source if isinstance(source, Mapping) else _folder(Path(source))
        for role in (DOCUMENT, ENCODER, ENTROPY):
            if role not in files:
                raise CorruptAgent(f"The codec lacks its {FILES[role]} ({role}); copy it again.")
        document = schema.parse_document(files[DOCUMENT], SCHEMA, "The codec's codec.json")
        _FIELDS(document, "")
        encoder, tables = files[ENCODER], files[ENTROPY]
        if codec_id(encoder, tables) != document["id"]:
            raise CorruptAgent(
                f"The codec {document['id']} has other files than codec.json says (they are "
                f"{codec_id(encoder, tables)}); copy it again."
            )
        return cls(
            id=document["id"],
            view=_view(document["view"]),
            shape=_shape(document["shape"]),
            rates=document["rates"],
            entropy=_entropy(tables, document),
            encoder=encoder,
            int8=_int8(files.get(INT8), document),
            document=document,
        )


def codec_id(encoder: bytes, entropy: bytes) -> str:
    """Return the id of a codec with these two files."""
    return sha256_bytes(encoder + entropy)[:16]


def encoder_metadata(view: View, shape: tuple[int, int, int]) -> dict[str, str]:
    """Return what the metadata of ``encoder.onnx`` must say."""
    described = json.dumps(view.as_dict(), sort_keys=True)
    return {"schema": SCHEMA, "view": described, "shape": json.dumps([*shape])}


def _folder(folder: Path) -> dict[str, bytes]:
    if not (folder / FILES[DOCUMENT]).is_file():
        raise UsageError(
            f"There is no codec in {folder}: it has no codec.json. Name the folder that "
            "`python -m training codec` wrote."
        )
    files = {}
    for role, name in FILES.items():
        try:
            files[role] = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise EnvironmentMissing(
                f"The file {folder / name} cannot be read ({error.strerror}); see who may read it."
            ) from error
    return files


def _view(fields: Mapping[str, Any]) -> View:
    try:
        return View.from_dict(fields)
    except UsageError as error:
        raise ManifestInvalid(f"The codec's codec.json: {error}") from error


def _shape(given: list[int]) -> tuple[int, int, int]:
    if len(given) != 3 or math.prod(given) > _MOST_INTEGERS:
        raise ManifestInvalid(
            f"The codec's shape is {given[:5]}; allowed is [C, H, W] of at most {_MOST_INTEGERS} "
            "integers."
        )
    channels, height, width = given
    return channels, height, width


def _entropy(data: bytes, document: Mapping[str, Any]) -> Entropy:
    arrays = {**_arrays(data), "kind": document["entropy"]}
    entropy = Entropy.from_arrays(arrays)
    found = (entropy.rates, entropy.channels, entropy.limit)
    promised = (document["rates"], document["shape"][0], document["limit"])
    if found != promised or entropy.rates > MAX_RATES:
        raise EngineError(
            f"The codec's entropy model has (rates, channels, limit) {found}, codec.json says "
            f"{promised}; at most {MAX_RATES} rates are allowed."
        )
    return entropy


def _arrays(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read an NPZ; what it would take in memory is asked of every array before it is made."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _MOST_ENTROPY:
                raise EngineError(f"The codec's entropy model has over {_MOST_ENTROPY} bytes.")
            return {
                entry.filename.removesuffix(".npy"): _array(archive.read(entry))
                for entry in entries
            }
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        raise EngineError(
            f"The codec's entropy model cannot be read ({type(error).__name__}: {error}); copy it "
            "again."
        ) from error


def _array(data: bytes) -> npt.NDArray[Any]:
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if math.prod(shape) * dtype.itemsize > len(data):
            raise ValueError(f"an array of {shape} in {len(data)} bytes")
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _int8(data: bytes | None, document: Mapping[str, Any]) -> bytes | None:
    """Return the INT8 encoder if it is the one that passed the gate."""
    stated: Any = document
    for name in ("variants", "int8", "sha256"):
        stated = stated.get(name) if isinstance(stated, Mapping) else None
    if data is not None and sha256_bytes(data) != stated:
        raise CorruptAgent(
            f"The codec's {FILES[INT8]} is not the one that codec.json names; copy it again, or "
            "remove it."
        )
    return data
