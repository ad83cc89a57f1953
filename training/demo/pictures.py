"""The demo's pictures: what is learnt from, what is held out, and the device's stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.folder import find_pictures
from training import assets
from training.cameras import thermal_camera
from training.demo.plan import Plan
from training.demo.stream import Segment
from training.photos import View, readable, split_by_photo, views
from training.progress import Stages

__all__ = ["DAY", "NIGHT", "Photos", "choose_photos"]

DAY, NIGHT = "day", "night"

#: Crops of each held-out photo that the stream is drawn from.
STREAM_VIEWS = 12


@dataclass(frozen=True)
class Photos:
    """The demo's pictures: three parts that share no photo, and the stream's."""

    train: list[View]
    calibration: list[View]
    test: list[View]
    segments: list[Segment]
    night_test: list[View]
    synthetic: list[str]


def choose_photos(plan: Plan, stages: Stages) -> Photos:
    """Find the photos, split them by photo, and cut the stream from the held-out ones.

    Raises:
        UsageError: a folder without pictures, or fewer photos than parts.
        EnvironmentMissing: the built-in photos are not installed.
    """
    paths = find_pictures(plan.images) if plan.images else assets.photos()
    if plan.images:
        with stages.stage("looking at the photos"):
            paths = readable(paths, stages.say)
    if plan.sizes.photos and not plan.images:
        paths = [paths[place] for place in _spread(len(paths), plan.sizes.photos)]
    # Crops only, as in the stream: a whole photo among crops would be another scenery.
    every = views(
        paths, plan.sizes.views, long_side=plan.sizes.long_side, seed=plan.seed, whole=False
    )
    train, calibration, test = split_by_photo(every, plan.sizes.shares, seed=plan.seed)
    held_out = sorted({view.path for view in test})
    crops = views(
        held_out, STREAM_VIEWS, long_side=plan.sizes.long_side, seed=plan.seed + 1, whole=False
    )
    by_night, synthetic = _by_night(plan, crops, stages)
    by_night_test, _ = _by_night(plan, test, stages)
    order = np.random.default_rng(plan.seed)
    day, night = _shuffled(crops, order), _shuffled(by_night, order)
    sizes = plan.sizes
    segments = [
        Segment(DAY, day[: sizes.day]),
        Segment(NIGHT, night[: sizes.night]),
        Segment(DAY, day[sizes.day : sizes.day + sizes.day_again]),
    ]
    return Photos(train, calibration, test, segments, by_night_test, synthetic)


def _spread(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` places, evenly spread over ``count``; all if there are fewer."""
    return sorted({index * count // wanted for index in range(wanted)})


def _by_night(plan: Plan, crops: Sequence[View], stages: Stages) -> tuple[list[View], list[str]]:
    if plan.night is None:
        seen = [view.through(thermal_camera, index) for index, view in enumerate(crops)]
        note = (
            "The night is synthetic: a deterministic thermal-camera model (dark, saturated and "
            "warm colours as heat, blur, low contrast, sensor noise) applied to day photos. Give "
            "real frames with --night DIR."
        )
        return seen, [note]
    paths = readable(find_pictures(plan.night), stages.say)
    each = -(-len(crops) // len(paths))
    return views(paths, each, long_side=plan.sizes.long_side, seed=plan.seed), []


def _shuffled(items: Sequence[View], rng: np.random.Generator) -> list[View]:
    return [items[index] for index in rng.permutation(len(items))]
