"""Fig. 12 of the paper on our pictures: night, day, night, and what each monitor makes of it.

The device begins with an agent of the night. Day is unknown to it, the second night is not. Both
monitors see the same pictures; what only an observer can know, the true agreement, is read out
beside them.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.config import EdgeConfig
from edge_sdk.estimator import TABLE_1, LoopParameters
from model_store import Store
from training.demo.diary_figures import measured, noticed_after, returned_after, steady
from training.demo.night_and_day import DAY, NIGHT, Ready, Sizes, make_ready
from training.demo.replay import Diary, LateRetrainer, play
from training.job import Job
from training.progress import Stages

__all__ = ["figure12", "monitors"]


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
    ready = make_ready(job, run, sizes, stages, images, night, target, seed)
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
        noticed, back = noticed_after(diary, 200), returned_after(diary, 200, ready.night)
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
