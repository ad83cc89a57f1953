"""What a device sends to a fleet's service: a request and its transitions in one NPZ, no pickle.

body = pack(request, read_transitions(memory))
request, transitions = unpack(body, most=64 * 2**20)
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np

from edge_sdk.memory import Transitions
from model_store.errors import UsageError

__all__ = ["pack", "unpack"]

_COLUMNS = ("features", "rungs", "rewards", "agreements", "size_ratios")


def pack(request: dict[str, Any], seen: Transitions) -> bytes:
    """Return a request document and its transitions as bytes; equal ones give equal bytes."""
    arrays = {name: getattr(seen, name) for name in _COLUMNS}
    arrays["images"] = np.array(seen.images, dtype=np.str_)
    arrays["request"] = np.array(json.dumps(request, sort_keys=True))
    if seen.palettes is not None:
        arrays["palettes"] = seen.palettes
    written = io.BytesIO()
    np.savez_compressed(written, **arrays)
    return written.getvalue()


def unpack(body: bytes, *, most: int) -> tuple[dict[str, Any], Transitions]:
    """Read what :func:`pack` wrote.

    Args:
        body: comes from anywhere, and is not trusted.
        most: bytes that it may have once it is decompressed.

    Raises:
        UsageError: it is not of this form, or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > most:
            raise UsageError(f"The transitions have {size} bytes unpacked; allowed are {most}.")
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            request = json.loads(str(arrays["request"]))
            columns = {name: np.asarray(arrays[name]) for name in _COLUMNS}
            images = tuple(str(name) for name in arrays["images"])
            palettes = np.asarray(arrays["palettes"]) if "palettes" in arrays else None
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError) as error:
        raise UsageError(
            f"The transitions cannot be read ({type(error).__name__}: {error}); allowed is an NPZ "
            f"with request, images, {', '.join(_COLUMNS)} and perhaps palettes."
        ) from error
    found = Transitions(
        features=columns["features"].astype(np.float32),
        rungs=columns["rungs"].astype(np.int64),
        rewards=columns["rewards"].astype(np.float64),
        agreements=columns["agreements"].astype(np.float64),
        size_ratios=columns["size_ratios"].astype(np.float64),
        images=images,
        palettes=palettes,
    )
    _check(request, found)
    return request, found


def _check(request: Any, seen: Transitions) -> None:
    columns = [getattr(seen, name) for name in _COLUMNS]
    columns += [] if seen.palettes is None else [seen.palettes]
    lengths = {len(column) for column in columns if column.ndim} | {len(seen)}
    finite = all(np.isfinite(column).all() for column in columns)
    flat = seen.features.ndim == 2 and all(column.ndim == 1 for column in columns[1:5])
    if not isinstance(request, dict) or len(lengths) != 1 or not flat or not finite:
        raise UsageError(
            f"The transitions have columns of {sorted(lengths)} rows; allowed are a request, "
            "features (N, D) and as many finite numbers in every column."
        )
