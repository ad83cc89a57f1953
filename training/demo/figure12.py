"""Fig. 12 of the paper on our pictures: night, day, night, and what each monitor makes of it.

The device begins with an agent of the night. Day is unknown to it, the second night is not. Both
monitors see the same pictures; what only an observer can know, the true agreement, is read out
beside them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.allowance import WINDOW
from edge_sdk.config import EdgeConfig
from edge_sdk.estimator import TABLE_1, LoopParameters
from edge_sdk.folder import find_pictures
from edge_sdk.ladder import FULL
from export.publish import publish_run
from model_store import Store
from training import assets
from training.cameras import thermal_camera
from training.demo.replay import Diary, LateRetrainer, World, play
from training.job import Job
from training.learn.decisions import scores
from training.learn.features import extract
from training.learn.fit import fit_bandit
from training.learn.goal import Goal
from training.learn.operating import expected_point
from training.learn.sizes import DEFAULT, load_sized
from training.photos import View, readable, split_by_photo, views
from training.progress import Stages

__all__ = ["FULL_SIZES", "GLIMPSE", "QUICK_SIZES", "Sizes", "figure12", "monitors"]

DAY, NIGHT = "day", "night"

#: What a segment is measured in once the loop has settled.
_STEADY = 500
#: Of so many pictures in a row, this many by the right agent: it is back.
_BACK, _OF = 9, 10


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


def monitors(target: float, seed: int, store: Path) -> dict[str, EdgeConfig]:
    """Return the two devices: the paper's, by Table 1, and the default one."""
    common: dict[str, Any] = {"store": store, "backend": "local:none", "seed": seed}
    common |= {"target_accuracy": target, "load_wait_s": 600.0}
    # Table 1's reward threshold is 0.45; an agent that saves less than half would never pass.
    ours = LoopParameters(r_th=0.0)
    return {
        "paper": EdgeConfig(monitor="paper", loop=TABLE_1, steering=0.0, **common),
        "betting": EdgeConfig(monitor="betting", loop=ours, canaries=0, **common),
    }


def figure12(
    job: Job,
    run: Path,
    sizes: Sizes,
    stages: Stages,
    *,
    images: Path | None,
    night: Path | None,
    target: float,
    seed: int,
) -> dict[str, Any]:
    """Run the streams and return the document ``adacompress.figure12/1``."""
    ready = _ready(job, run, sizes, stages, images, night, target, seed)
    rng = np.random.default_rng(seed)
    parts = zip((NIGHT, DAY, NIGHT), sizes.segments, strict=True)
    order = np.concatenate([_draw(ready.pools[name], count, rng) for name, count in parts])
    document: dict[str, Any] = {"schema": "adacompress.figure12/1", "seed": seed, "monitors": {}}
    document["segments"] = list(sizes.segments)
    for name, config in monitors(target, seed, run / "store").items():
        with stages.stage(f"the {name} monitor", len(order)) as step:
            diary = _play(ready, run, config, order, name, sizes, step)
        document["monitors"][name] = {
            "measured": measured(diary, sizes.segments, ready.night, target),
            "events": diary.events,
            "timeline": diary.timeline(),
        }
    for name, config in monitors(target, seed, run / "store-stable").items():
        stable = _draw(ready.pools[NIGHT], sizes.stable, rng)
        with stages.stage(f"stable pictures, the {name} monitor", len(stable)) as step:
            diary = _play(ready, run, config, stable, "stable", sizes, step)
        document["monitors"][name]["stable"] = steady(diary, sizes.stable)
    document["monitors"]["betting"]["returns"] = _returns(ready, run, sizes, document, target, rng)
    return document


def measured(diary: Diary, segments: Sequence[int], night: str, target: float) -> dict[str, Any]:
    """Return the figures of one stream."""
    change, back = segments[0], segments[0] + segments[1]
    wire, reference = np.array(diary.wire_bytes), np.array(diary.reference_wire_bytes)
    calls, accuracy = np.array(diary.calls), np.array(diary.accuracy)
    noticed = _noticed(diary, change)
    adapted = _adapted(diary, change, back)
    lost = accuracy[change + noticed : adapted] if noticed is not None else accuracy[:0]
    settled = slice(max(0, change - _STEADY), change)
    extra = np.array(wire[settled] - _served(diary, settled))
    return {
        "noticed_after": noticed,
        "noticed_return_after": _noticed(diary, back),
        "returned_after": _returned(diary, back, night),
        "labels_on_return": int((calls[back : back + 100] - 1).sum()),
        "day_agent_after": adapted - change,
        "labels": int((calls - 1).sum()),
        "calls_per_image": float(calls.mean()),
        "steady_calls_per_image": float(calls[settled].mean()),
        "steady_monitoring_bytes": float(extra.sum() / reference[settled].sum()),
        "bytes": float(wire.sum() / reference.sum()),
        "bytes_most_in_1000": _most(wire, reference),
        "agreement": float(accuracy.mean()),
        "agreement_while_adapting": float(lost.mean()) if len(lost) else None,
        "agreement_by_segment": [
            float(accuracy[start:end].mean())
            for start, end in ((0, change), (change, back), (back, len(accuracy)))
        ],
        "bytes_by_segment": [
            float(wire[start:end].sum() / reference[start:end].sum())
            for start, end in ((0, change), (change, back), (back, len(wire)))
        ],
        "in_state": {
            state: diary.state.count(state) for state in dict.fromkeys(sorted(diary.state))
        },
        "alarms": diary.alarms,
    }


def steady(diary: Diary, pictures: int) -> dict[str, Any]:
    """Return the figures of a stream without any change."""
    wire, reference = np.array(diary.wire_bytes), np.array(diary.reference_wire_bytes)
    served = _served(diary, slice(None))
    return {
        "pictures": pictures,
        "alarms": diary.alarms,
        "alarms_per_10000": 10_000 * sum(diary.alarms.values()) / pictures,
        "calls_per_image": float(np.mean(diary.calls)),
        "monitoring_bytes": float((wire - served).sum() / reference.sum()),
        "bytes": float(wire.sum() / reference.sum()),
        "bytes_most_in_1000": _most(wire, reference),
        "agreement": float(np.mean(diary.accuracy)),
    }


def _served(diary: Diary, part: slice) -> NDArray[np.int64]:
    return np.array(diary.served_bytes[part])


def _most(wire: NDArray[np.int64], reference: NDArray[np.int64]) -> float:
    """Return the largest share of the references' bytes in any 1,000 pictures in a row."""
    size = min(WINDOW, len(wire))
    ours, theirs = (np.concatenate([[0], np.cumsum(values)]) for values in (wire, reference))
    return float(np.max((ours[size:] - ours[:-size]) / (theirs[size:] - theirs[:-size])))


def _noticed(diary: Diary, change: int) -> int | None:
    """Return after how many pictures of a new scenery the loop did otherwise than before."""
    before = diary.agent_id[change - 1]
    for place in range(change, len(diary.state)):
        if diary.state[place] in ("querying", "retraining"):
            return place - change
        if diary.agent_id[place] != before and before:
            return place - change
    return None


def _adapted(diary: Diary, change: int, end: int) -> int:
    """Return the picture from which an agent serves the new scenery again."""
    looking = [
        place for place in range(change, end) if diary.state[place] in ("querying", "retraining")
    ]
    return (looking[-1] + 1) if looking else change


def _returned(diary: Diary, back: int, agent: str) -> int | None:
    """Return after how many pictures the known scenery's agent decides again."""
    right = [name == agent for name in diary.agent_id[back:]]
    for place in range(len(right) - _OF + 1):
        if right[place] and sum(right[place : place + _OF]) >= _BACK:
            return place
    return None


def _returns(
    ready: Ready,
    run: Path,
    sizes: Sizes,
    document: dict[str, Any],
    target: float,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Let devices that know both sceneries begin by day, with the night's agent in the store."""
    timeline = document["monitors"]["betting"]["timeline"]
    day = next(
        (name for name in reversed(timeline["agent_id"]) if name not in ("", ready.night)), ""
    )
    if not day:
        return []
    found = []
    for index in range(sizes.returns):
        order = np.concatenate(
            [_draw(ready.pools[DAY], 200, rng), _draw(ready.pools[NIGHT], 200, rng)]
        )
        config = monitors(target, index, run / "store-returns")["betting"]
        origin = Store(run / "store-betting")
        diary = _play(ready, run, config, order, "returns", sizes, begin=day, origin=origin)
        noticed, back = _noticed(diary, 200), _returned(diary, 200, ready.night)
        labels = sum(diary.calls[200 : 200 + (back or 0)]) - (back or 0)
        found.append({"noticed_after": noticed, "back_after": back, "labels": labels})
    return found


def _play(
    ready: Ready,
    run: Path,
    config: EdgeConfig,
    order: NDArray[np.int64],
    name: str,
    sizes: Sizes,
    step: Any = lambda count: None,
    *,
    begin: str | None = None,
    origin: Store | None = None,
) -> Diary:
    root, folder = run / f"store-{name}", run / f"device-{name}"
    for old in (root, folder):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree((origin or ready.store).root, root)
    store = Store(root)
    store.promote(begin or ready.night)
    retrainer = LateRetrainer(sizes.late)
    return play(
        ready.world,
        replace(config, store=root),
        order.tolist(),
        store=store,
        retrainer=retrainer,
        folder=folder,
        step=step,
    )


def _draw(pool: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return ``count`` pictures of a pool, each round through it in another order."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count]


def _ready(
    job: Job,
    run: Path,
    sizes: Sizes,
    stages: Stages,
    images: Path | None,
    night: Path | None,
    target: float,
    seed: int,
) -> Ready:
    by_day, by_night = _photos(sizes, stages, images, night, seed)
    with stages.stage("loading MobileNetV2"):
        prefix = load_sized(DEFAULT)
    goal = Goal(backend=job.backend.name, target=target, scenery=NIGHT, seed=seed, max_probes=0)
    train, held = (
        job.labelled(prefix, part, FULL, f"{name} photos")
        for part, name in ((by_night.train, "training"), (by_night.held, "calibration"))
    )
    with stages.stage("learning and publishing the night's agent"):
        learned, _ = fit_bandit(prefix, train, held, goal)
        if not learned.operating_point.certified:
            # The paper's agents have no certificate either, and the safest rung would show nothing.
            predicted = scores(learned.head, held.features.values)
            learned = replace(learned, operating_point=expected_point(predicted, target))
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
