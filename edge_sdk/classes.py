"""What a classifier says, in words: the names in its ONNX file, and its best classes.

The local cloud and the server side of a feature codec answer through this one function, so that
the same scores give the same labels in both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.backends.base import Label
from edge_sdk.errors import EngineError

__all__ = ["NAMES_KEY", "TOP", "best_classes", "class_names"]

#: Entry of an ONNX file's metadata: the names of the classes, a JSON list.
NAMES_KEY = "adacompress.names"

#: Labels in a classifier's answer.
TOP = 5


def best_classes(names: Sequence[str], scores: npt.NDArray[np.float32]) -> tuple[Label, ...]:
    """Return the best ``TOP`` labels with their probabilities; scores (classes,) before softmax."""
    exact = scores.astype(np.float64)
    probabilities = np.exp(exact - exact.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    return tuple(Label(names[i], float(probabilities[i])) for i in best)


def class_names(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the classes by number, from an ONNX file's metadata.

    Raises:
        EngineError: there are none, or something else.
    """
    try:
        names = json.loads(metadata[NAMES_KEY])
    except (KeyError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise EngineError(
            f"The classifier's ONNX file does not name its classes; its metadata lacks "
            f"{NAMES_KEY!r}, a JSON list of texts. Export it again."
        )
    return tuple(names)
