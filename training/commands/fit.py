"""``python -m training fit``: from a folder of pictures and a service to a published agent."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.agreement import ANY_HIT
from edge_sdk.folder import find_pictures
from edge_sdk.ladder import Ladder
from export.network import PRECISIONS, Prefix
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Manifest, Store
from model_store.cli import print_json
from training.commands.options import add_noise, add_service, open_job
from training.commands.rungs import Rungs, add_rungs
from training.job import Job, open_run
from training.learn.acquire import acquire
from training.learn.calibrate import images_needed
from training.learn.coldstart import start_from
from training.learn.compute import provider_of
from training.learn.decisions import choices
from training.learn.fit import fit_bandit, fit_dqn
from training.learn.goal import MAX_PROBES, Goal
from training.learn.heads import NO_START, Start
from training.learn.labelled import Labelled
from training.learn.sizes import DEFAULT, SIZES, decision_ms, largest_within, load_sized
from training.learn.start import built_in
from training.measure.fit_report import FitReport
from training.measure.noise import NEIGHBOURS, Noise, measure_noise, sample
from training.measure.recognition import with_metrics
from training.measure.report import photo_set, rung_shares
from training.photos import View, readable, split_by_photo, views
from training.progress import Stages

__all__ = ["add_parser"]

#: Share of the photos that the heads are fitted to; the others certify the operating point. What
#: limits the bytes is how much better than its target an agent must be to prove it on few photos.
TRAIN_SHARE = 1 / 3

#: (prefix, ladder) -> heads to start from.
Opener = Callable[[Prefix, Ladder], Start]


def nothing(prefix: Prefix, ladder: Ladder) -> Start:
    """Learn from nothing but the service's answers."""
    return NO_START


BUILT_IN = "built-in"
_STARTS: Mapping[str, Opener] = {BUILT_IN: built_in, "none": nothing}

#: Answers a training photo besides its reference, spread over the ladder. Without looks at the
#: encodings six told as much as all in trials, three little less.
SAMPLED_CALLS = 4

#: How many of them wait, where encodings are looked at, until the others tell where answers are in
#: doubt: at an agreement of .97 and above that saved a fifth of the bytes.
DOUBTFUL_CALLS = 2


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training fit``."""
    parser = commands.add_parser("fit", help="learn an agent for a service and publish it")
    add_service(parser)
    parser.add_argument("--scenery", default="day", metavar="NAME")
    parser.add_argument("--target-accuracy", type=float, default=0.95, metavar="T")
    parser.add_argument("--algorithm", choices=("bandit", "dqn"), default="bandit")
    add_rungs(parser)
    parser.add_argument(
        "--answers",
        choices=("sample", "grid"),
        default="sample",
        help="ask about a few rungs of every training picture, or about all",
    )
    parser.add_argument(
        "--max-probes",
        type=int,
        default=MAX_PROBES,
        metavar="N",
        help="encodings that the device may look at before it sends; 0 for none",
    )
    add_noise(parser)
    parser.add_argument(
        "--start",
        metavar="ID",
        default=BUILT_IN,
        help="agent of the store to start from where that helps, or 'none' (default: heads learnt "
        "from local models)",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--engine-size",
        choices=tuple(SIZES),
        default=DEFAULT,
        help="what a decision may cost the device (default: %(default)s)",
    )
    size.add_argument(
        "--device-budget-ms",
        type=float,
        metavar="MS",
        help="take the largest engine whose decision takes no longer on one core of this machine",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the engine: int8 for a device's CPU (default), fp32 for a GPU and for dqn",
    )
    parser.add_argument(
        "--views", type=int, default=1, metavar="N", help="views of each photo: whole, then crops"
    )
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    goal = Goal(
        backend=arguments.backend,
        target=arguments.target_accuracy,
        metric=arguments.metric or ANY_HIT,
        min_score=arguments.min_score or 0.0,
        scenery=arguments.scenery,
        seed=arguments.seed,
        max_probes=arguments.max_probes,
    )
    stages, rungs, run = Stages(), Rungs.of(arguments), open_run(arguments.run)
    paths = readable(find_pictures(arguments.images), stages.say)
    pictures = views(paths, arguments.views, long_side=None, seed=arguments.seed)
    prefix = _prefix(arguments, pictures[0], stages)
    provider_of(arguments.device, prefix.precision)  # what is missing is told before any answer
    with open_job(arguments, run, stages, codec=rungs.codec) as job:
        noise = _noise(job, pictures, goal, arguments.noise)
        if arguments.algorithm == "dqn":
            learned = _learn_dqn(job, prefix, pictures, rungs, goal)
        else:
            calls = None if arguments.answers == "grid" else rungs.times * SAMPLED_CALLS
            start = _start(arguments)
            learned = _learn(job, prefix, pictures, rungs, goal, calls=calls, start=start)
    learned = replace(learned, run=replace(learned.run, codec=rungs.files))
    if noise:
        learned = learned.knowing("noise", noise.as_dict())
    learned.run.save(run)
    store = Store(arguments.store)
    with stages.stage("exporting, proving parity, publishing"):
        aliases = [f"scenery/{goal.scenery}", "current"]
        manifest, _ = publish_run(learned.run, store, aliases=aliases)
    report = FitReport(
        command=f"python -m training {shlex.join(sys.argv[1:])}",
        agent=manifest,
        photos={name: photo_set(part.table) for name, part in learned.parts.items()},
        rungs=_rungs(learned),
        cost_usd=job.labeller.cost_usd,
        timings_s=stages.seconds,
    )
    _tell(manifest, arguments, report.write(run)[1])
    return 0


def _prefix(arguments: argparse.Namespace, picture: View, stages: Stages) -> Prefix:
    """Return the prefix of the engine that was asked for, or that the budget allows."""
    paper = arguments.algorithm == "dqn"
    precision: str = arguments.precision or ("fp32" if paper else "int8")
    opened = partial(load_sized, precision=precision, confidence=not paper)
    budget: float | None = arguments.device_budget_ms
    if budget is None:
        return opened(arguments.engine_size)
    image = picture.open()
    with stages.stage("timing engines"):
        name = largest_within(budget, lambda size: decision_ms(opened(size), image))
    stages.say(f"engine size: {name}")
    return opened(name)


def _noise(job: Job, pictures: list[View], goal: Goal, count: int) -> Noise | None:
    """Ask how far the service agrees with itself, before anything is learnt from it."""
    if not count:
        return None
    rng = np.random.default_rng(goal.seed)
    asked = [pictures[row] for row in sample(len(pictures), count, rng)]
    table = job.label(asked, NEIGHBOURS, "asking about the service's own noise")
    noise = measure_noise(table, agreement=None, target=goal.target, rng=rng, metric=goal.metric)
    job.stages.say(noise.sentence)
    return noise


@dataclass(frozen=True)
class _Learned:
    """What was learnt, and from what: ``train``, and ``calibration`` if there was any."""

    run: TrainingRun
    parts: Mapping[str, Labelled]

    def knowing(self, name: str, fact: Mapping[str, Any]) -> _Learned:
        """Return the same with one more fact about the training."""
        facts = {**self.run.facts, "training": {**self.run.facts["training"], name: fact}}
        return replace(self, run=replace(self.run, facts=facts))


def _rungs(learned: _Learned) -> dict[str, float]:
    """Return which rungs the calibration photos get, if there are any."""
    held, run = learned.parts.get("calibration"), learned.run
    if held is None:
        return {}
    return rung_shares(run.ladder[index].name for index in choices(run, held))


def _learn_dqn(
    job: Job, prefix: Prefix, pictures: list[View], rungs: Rungs, goal: Goal
) -> _Learned:
    train = job.labelled(prefix, pictures, rungs.ladder(job, pictures), "photos")
    with job.stages.stage("learning"):
        return _Learned(fit_dqn(prefix, train, _of_model(goal, job))[0], {"train": train})


def _learn(
    job: Job,
    prefix: Prefix,
    pictures: list[View],
    rungs: Rungs,
    goal: Goal,
    *,
    calls: int | None,
    start: Opener = nothing,
) -> _Learned:
    """Learn and certify.

    Args:
        job: service and ledger.
        prefix: makes the features.
        pictures: for training and for calibration.
        rungs: which ladder.
        goal: what is promised.
        calls: answers a training picture besides its reference; None for every rung of every one.
        start: opens the heads to start from.
    """
    train_views, held_views = split_by_photo(
        pictures, (TRAIN_SHARE, 1.0 - TRAIN_SHARE), seed=goal.seed
    )
    ladder = rungs.ladder(job, train_views)
    begin = start(prefix, ladder)
    look_at = ladder if goal.max_probes else ()
    if calls is None:
        train = job.labelled(prefix, train_views, ladder, "training photos", look_at=look_at)
        held = job.labelled(prefix, held_views, ladder, "calibration photos", look_at=look_at)
    else:
        look = bool(look_at)
        later = rungs.times * DOUBTFUL_CALLS if look else 0
        train = job.answered(
            prefix, train_views, ladder, "training photos", calls - later, look=look
        )
        if later:
            with job.stages.stage("asking where answers are in doubt"):
                train = acquire(prefix, train, goal, later, begin)
        held = job.answered(prefix, held_views, ladder, "calibration photos", 0, look=look)
    with job.stages.stage("learning and calibrating"):
        trained, _ = fit_bandit(prefix, train, held, _of_model(goal, job), begin)
    held = held.refreshed()
    return _Learned(with_metrics(trained, held), {"train": train, "calibration": held})


def _start(arguments: argparse.Namespace) -> Opener:
    """Return what opens the heads of --start; a bad name is told before anything is paid."""
    if arguments.start in _STARTS:
        return _STARTS[arguments.start]
    parent = Store(arguments.store).load(arguments.start)
    return lambda prefix, ladder: start_from(parent, ladder, prefix.dimension)


def _of_model(goal: Goal, job: Job) -> Goal:
    """Name the model that answered; some services tell it only in their answers."""
    return replace(goal, model_version=job.labeller.model_version)


def _tell(manifest: Manifest, arguments: argparse.Namespace, page: Path) -> None:
    point = manifest.operating_points[0]
    if arguments.json:
        print_json({"schema": "adacompress.fit/1", "ok": True, "agent": manifest.to_json()})
        return
    where: Path = arguments.store
    if point["certified"]:
        print(
            f"Certified: agreement at least {point['target']:g} with probability "
            f"{1 - point['delta']:.0%} (n = {point['n']}, achieved {point['achieved']:.3f})."
        )
    else:
        print(point["note"])
    if manifest.algorithm == "bandit":
        if not point["certified"]:
            print(_pictures_needed(point["delta"]))
        print(f"How it decides: {_way(point)}")
    print(f"Report: {page}")
    print(f"Agent {manifest.id} is in {where}, also as 'current'.")
    print(
        f"Next: python -m training evaluate --store {where} --agent {manifest.id} "
        f"--images OTHER_PHOTOS --backend {arguments.backend} --run {arguments.run}"
    )


def _way(point: Mapping[str, Any]) -> str:
    """Return in words what an operating point does."""
    if point["rung"] is not None:
        return "one rung for every picture; looking at pictures did not pay."
    if point["max_probes"]:
        return "by looking at candidate encodings before one is sent."
    return "by one look at the picture."


def _pictures_needed(delta: float) -> str:
    """Return how many photos would certify some targets if every answer agreed."""
    targets = (0.9, 0.95, 0.97, 0.99)
    told = ", ".join(
        f"{target:g}: {math.ceil(images_needed(target, delta) / (1.0 - TRAIN_SHARE))}"
        for target in targets
    )
    return f"Photos needed at least, training included, for a target of {told}."
