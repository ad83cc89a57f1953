"""Labelled pictures kept in the run's folder, so that drawing again computes nothing again.

The ledger keeps what was paid for; this keeps what was computed from it. It is arrays in numpy's
own format, and no pickle: a file that cannot be read is computed anew.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.ladder import Ladder
from model_store.files import sha256_bytes, write_atomic
from training.labels.table import AnswerTable
from training.learn.features import Features
from training.learn.labelled import Labelled
from training.photos import View

__all__ = ["cached", "name_of"]

_COLUMNS = (
    "keys",
    "groups",
    "reference_bytes",
    "reference_wire",
    "bytes",
    "wire",
    "reference_score",
    "reference_label",
)
_TEXTS = ("keys", "groups", "reference_label")


def cached(path: Path, ladder: Ladder, make: Callable[[], Labelled]) -> Labelled:
    """Return what ``path`` holds, or make it and keep it there.

    Args:
        path: the file; its name must depend on all that decides its content, see :func:`name_of`.
        ladder: the table's rungs.
        make: labels the pictures.
    """
    if path.exists():
        try:
            return _read(path.read_bytes(), ladder)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile):
            pass  # made by another version, or cut short: it only costs time
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _written(made))
    return made


def name_of(views: Sequence[View], ladder: Ladder, *others: Any) -> str:
    """Return a name that changes with the pictures' files, the rungs and all else given."""
    files = [(str(one.path), *_state(one.path), one.box, one.long_side, one.seed) for one in views]
    cameras = [None if one.camera is None else one.camera.__qualname__ for one in views]
    text = json.dumps([files, cameras, [rung.as_dict() for rung in ladder], others], default=str)
    return sha256_bytes(text.encode())[:16]


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _written(labelled: Labelled) -> bytes:
    table, features, buffer = labelled.table, labelled.features, io.BytesIO()
    columns = {name: getattr(table, name) for name in _COLUMNS}
    columns |= {name: columns[name].astype(str) for name in _TEXTS}
    columns |= {f"agreement_{name}": values for name, values in table.agreement.items()}
    columns |= {"values": features.values, "inputs": features.inputs, "rows": features.rows}
    columns["paid"] = np.array([table.calls, table.from_ledger])
    for name, found in (("looks", labelled.looks), ("palettes", features.palettes)):
        if found is not None:
            columns[name] = found
    np.savez(buffer, **columns)
    return buffer.getvalue()


def _read(data: bytes, ladder: Ladder) -> Labelled:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    columns = {name: found[name] for name in _COLUMNS}
    columns |= {name: columns[name].astype(object) for name in _TEXTS}
    agreement = {
        name.removeprefix("agreement_"): values
        for name, values in found.items()
        if name.startswith("agreement_")
    }
    calls, from_ledger = found["paid"].tolist()
    return Labelled(
        Features(found["values"], found["inputs"], found["rows"], found.get("palettes")),
        AnswerTable(
            ladder=ladder,
            **columns,
            agreement=agreement,
            calls=calls,
            from_ledger=from_ledger,
        ),
        found.get("looks"),
    )
