"""The pictures of day and night: a folder's or the built-in ones, night frames made if need be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_sdk.folder import find_pictures
from model_store.errors import UsageError
from training import assets
from training.cameras import thermal_camera
from training.photos import View, readable, views
from training.progress import Stages

__all__ = ["DAY", "LEAST", "NIGHT", "QUICK_PHOTOS", "sceneries"]

DAY, NIGHT = "day", "night"

#: Photos of a scenery that ``--quick`` looks at.
QUICK_PHOTOS = 100

#: Least photos of a scenery: fewer leave nothing to say about any of the parts.
LEAST = 12

#: Longer side of the built-in photos and of made-up night frames, in pixels.
_FRAME = 512


def sceneries(
    images: Path | None, night: Path | None, stages: Stages, *, most: int | None, seed: int
) -> dict[str, list[View]]:
    """Return the pictures of day and night; without night frames they are made from day photos.

    Raises:
        UsageError: there are too few.
    """
    if images is None:  # large photos; a camera's frame is smaller, and the demo's are as well
        by_day = views(assets.photos(), 1, long_side=_FRAME, seed=0)
    else:
        by_day = _whole(readable(find_pictures(images), stages.say))
    found = {DAY: _some(by_day, most)}
    if night is not None:
        found[NIGHT] = _some(_whole(readable(find_pictures(night), stages.say)), most)
    else:
        found[NIGHT] = [
            replace(view, long_side=_FRAME).through(thermal_camera, index)
            for index, view in enumerate(found[DAY])
        ]
    for name, pictures in found.items():
        if len(pictures) < LEAST:
            raise UsageError(
                f"There are {len(pictures)} {name} picture(s); allowed are {LEAST} or more, better "
                "a hundred."
            )
    return found


def _whole(paths: Sequence[Path]) -> list[View]:
    return views(paths, 1, long_side=None, seed=0)


def _some(pictures: list[View], most: int | None) -> list[View]:
    if most is None or len(pictures) <= most:
        return pictures
    rows = np.linspace(0, len(pictures) - 1, most).round().astype(int)
    return [pictures[row] for row in rows]
