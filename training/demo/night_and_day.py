"""What a replay begins with: pictures of night and day, the night's agent, what a service says."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_sdk.folder import find_pictures
from edge_sdk.ladder import FULL
from export.publish import publish_run
from model_store import Store
from training import assets
from training.cameras import thermal_camera
from training.demo.world import World
from training.job import Job
from training.learn.decisions import certified_or_expected
from training.learn.features import extract
from training.learn.fit import fit_bandit
from training.learn.goal import Goal
from training.learn.sizes import DEFAULT, load_sized
from training.photos import View, readable, split_by_photo, views
from training.progress import Stages

__all__ = ["DAY", "FULL_SIZES", "GLIMPSE", "NIGHT", "QUICK_SIZES", "Ready", "Sizes", "make_ready"]

DAY, NIGHT = "day", "night"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything.

    Attributes:
        photos: how many of each scenery; None for all.
        views: crops of each photo, to learn from.
        crops: crops of each held-out photo, for the stream.
        segments: pictures of the night, the day and the second night.
        stable: pictures of one scenery, for the false alarms.
        returns: short streams in which the known scenery has to be found among the cached agents.
        late: pictures that go by while an agent is re-trained.
    """

    photos: int | None = None
    views: int = 3
    crops: int = 12
    segments: tuple[int, int, int] = (2000, 3000, 2000)
    stable: int = 20_000
    returns: int = 10
    late: int = 50


FULL_SIZES = Sizes()
#: Enough to see the states, too little for rates: one figure among many, in seconds.
GLIMPSE = Sizes(
    photos=60, views=1, crops=4, segments=(200, 400, 200), stable=200, returns=1, late=30
)
QUICK_SIZES = Sizes(photos=100, views=1, crops=6, segments=(600, 1200, 600), stable=4000, returns=4)


@dataclass(frozen=True)
class Ready:
    """What both monitors start from: the pictures, the agents, and who is where."""

    world: World
    store: Store
    night: str
    pools: dict[str, NDArray[np.int64]]


def make_ready(
    job: Job,
    run: Path,
    sizes: Sizes,
    stages: Stages,
    images: Path | None,
    night: Path | None,
    target: float,
    seed: int,
) -> Ready:
    """Learn and publish the night's agent, and compute the stream's features and references.

    Args:
        job: the open service.
        run: the run's folder; the store lies in it.
        sizes: how many photos and crops.
        stages: told what is going on.
        images: folder of day photos, or None for the built-in ones.
        night: folder of night frames, or None for some made of the day photos.
        target: agreement that the agent is certified for.
        seed: of every random choice.
    """
    by_day, by_night = _photos(sizes, stages, images, night, seed)
    with stages.stage("loading MobileNetV2"):
        prefix = load_sized(DEFAULT)
    goal = Goal(backend=job.backend.name, target=target, scenery=NIGHT, seed=seed, max_probes=0)
    train, held = (
        job.labelled(prefix, part, FULL, f"{name} photos")
        for part, name in ((by_night.train, "training"), (by_night.held, "calibration"))
    )
    with stages.stage("learning and publishing the night's agent"):
        learned = certified_or_expected(fit_bandit(prefix, train, held, goal)[0], held, target)
        shutil.rmtree(run / "store", ignore_errors=True)
        store = Store(run / "store")
        agent = publish_run(learned, store, aliases=["current", f"scenery/{NIGHT}"])[0]
    pool = [*by_night.stream, *by_day.stream]
    sceneries = [NIGHT] * len(by_night.stream) + [DAY] * len(by_day.stream)
    rng = np.random.default_rng(seed)
    with stages.stage("features of the stream", len(pool)) as step:
        features = extract(prefix, pool, rng=rng, progress=step).values
    world = World(pool, sceneries, features, job.labeller, job.min_score)
    with stages.stage("asking about the stream's references", len(pool)) as step:
        world.prepare(step)
    places = np.arange(len(pool))
    split = len(by_night.stream)
    return Ready(world, store, agent.id, {NIGHT: places[:split], DAY: places[split:]})


@dataclass(frozen=True)
class _Parts:
    """A scenery's pictures by what they are for; no photo is in two parts."""

    train: list[View]
    held: list[View]
    stream: list[View]


def _photos(
    sizes: Sizes, stages: Stages, images: Path | None, night: Path | None, seed: int
) -> tuple[_Parts, _Parts]:
    paths = readable(find_pictures(images), stages.say) if images else assets.photos()
    by_day = _parts(_some(paths, sizes.photos), sizes, seed)
    if night is not None:
        frames = readable(find_pictures(night), stages.say)
        return by_day, _parts(_some(frames, sizes.photos), sizes, seed)
    seen = [
        [view.through(thermal_camera, index) for index, view in enumerate(part)]
        for part in (by_day.train, by_day.held, by_day.stream)
    ]
    return by_day, _Parts(*seen)


def _some(paths: Sequence[Path], most: int | None) -> Sequence[Path]:
    return paths if most is None else paths[:: max(1, len(paths) // most)][:most]


def _parts(paths: Sequence[Path], sizes: Sizes, seed: int) -> _Parts:
    every = views(paths, sizes.views, long_side=512, seed=seed, whole=False)
    train, held, test = split_by_photo(every, (0.25, 0.5, 0.25), seed=seed)
    photos = sorted({view.path for view in test})
    return _Parts(
        train, held, views(photos, sizes.crops, long_side=512, seed=seed + 1, whole=False)
    )
