"""From a detector's numbers to labels: the objects in a picture.

What a classifier says is ``edge_sdk.classes``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.backends.base import Box, Label

__all__ = ["objects"]

#: The detector's own settings, from its graph: the least score, how much of two boxes of one class
#: may overlap (intersection over union), and objects in an answer.
_LEAST_SCORE = 0.3
_MOST_OVERLAP = 0.6
_MOST_OBJECTS = 100

Floats = npt.NDArray[np.float32]


def objects(
    names: Sequence[str], boxes: Floats, scores: Floats, size: tuple[int, int]
) -> tuple[Label, ...]:
    """Return the objects of a picture, surest first; none is a valid answer.

    Args:
        names: of the classes.
        boxes: (A, 4) left, top, right and bottom as parts of the picture.
        scores: (A, classes) probabilities.
        size: width and height of the picture in pixels.
    """
    seen = np.flatnonzero(scores.max(axis=0) >= _LEAST_SCORE).tolist()
    found = [
        (float(scores[anchor, index]), names[index], boxes[anchor])
        for index in seen
        for anchor in _kept(boxes, scores[:, index])
    ]
    found.sort(key=lambda each: -each[0])
    return tuple(Label(name, score, _box(box, size)) for score, name, box in found[:_MOST_OBJECTS])


def _kept(boxes: Floats, scores: Floats) -> Iterator[int]:
    """Yield the anchors that show one class, surest first, each object once."""
    candidates = np.flatnonzero(scores >= _LEAST_SCORE)
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    while candidates.size:
        best, *_ = candidates
        yield int(best)
        candidates = candidates[_overlap(boxes[best], boxes[candidates]) <= _MOST_OVERLAP]
        candidates = candidates[candidates != best]


def _overlap(box: Floats, others: Floats) -> Floats:
    """Return intersection over union of a box with others (n, 4)."""
    corner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.prod(np.maximum(corner, 0.0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = np.prod(box[2:] - box[:2]) + areas - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0.0)


def _box(box: Floats, size: tuple[int, int]) -> Box:
    left, top, right, bottom = (
        float(part) * length for part, length in zip(box, (*size, *size), strict=True)
    )
    return Box(left, top, right - left, bottom - top)
