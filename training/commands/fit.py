"""``python -m training fit``: from a folder of pictures and a service to a published agent."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from edge_sdk.folder import find_pictures
from edge_sdk.ladder import LADDERS, Ladder
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Manifest, Store
from model_store.cli import print_json
from training.commands.options import add_service, open_job
from training.job import Job, open_run
from training.learn.features import load_prefix
from training.learn.fit import Goal, Labelled, fit_bandit, fit_dqn
from training.measure.recognition import with_metrics
from training.photos import View, readable, split_by_photo, views
from training.progress import Stages

__all__ = ["add_parser"]

#: Share of the photos that the head is fitted to; the others calibrate its operating point.
TRAIN_SHARE = 0.5


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training fit``."""
    parser = commands.add_parser("fit", help="learn an agent for a service and publish it")
    add_service(parser)
    parser.add_argument("--scenery", default="day", metavar="NAME")
    parser.add_argument("--target-accuracy", type=float, default=0.95, metavar="T")
    parser.add_argument("--algorithm", choices=("bandit", "dqn"), default="bandit")
    parser.add_argument("--ladder", choices=tuple(LADDERS), help="default: full; paper for dqn")
    parser.add_argument(
        "--views", type=int, default=1, metavar="N", help="views of each photo: whole, then crops"
    )
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    goal = Goal(
        backend=arguments.backend,
        target=arguments.target_accuracy,
        min_score=arguments.min_score or 0.0,
        scenery=arguments.scenery,
        seed=arguments.seed,
    )
    stages, run = Stages(), open_run(arguments.run)
    paths = readable(find_pictures(arguments.images), stages.say)
    pictures = views(paths, arguments.views, long_side=None, seed=arguments.seed)
    default = "paper" if arguments.algorithm == "dqn" else "full"
    ladder = LADDERS[arguments.ladder or default]
    with open_job(arguments, run, stages) as job:
        trained, held = _learn(job, pictures, ladder, goal, arguments.algorithm)
    if held is not None:
        trained = with_metrics(trained, held)
    trained.save(run)
    store = Store(arguments.store)
    with stages.stage("exporting, proving parity, publishing"):
        aliases = [f"scenery/{goal.scenery}", "current"]
        manifest, _ = publish_run(trained, store, aliases=aliases)
    _tell(manifest, arguments)
    return 0


def _learn(
    job: Job, pictures: list[View], ladder: Ladder, goal: Goal, algorithm: str
) -> tuple[TrainingRun, Labelled | None]:
    """Return the trained run, and the photos that were held out, if any."""
    if algorithm == "dqn":
        prefix = load_prefix()
        train = job.labelled(prefix, pictures, ladder, "photos")
        with job.stages.stage("learning"):
            return fit_dqn(prefix, train, _of_model(goal, job))[0], None
    parts = split_by_photo(pictures, (TRAIN_SHARE, 1.0 - TRAIN_SHARE), seed=goal.seed)
    prefix = load_prefix(confidence=True)
    labelled: list[Labelled] = [
        job.labelled(prefix, part, ladder, f"{name} photos")
        for part, name in zip(parts, ("training", "calibration"), strict=True)
    ]
    with job.stages.stage("learning"):
        return fit_bandit(prefix, labelled[0], labelled[1], _of_model(goal, job))[0], labelled[1]


def _of_model(goal: Goal, job: Job) -> Goal:
    """Name the model that answered; some services tell it only in their answers."""
    return replace(goal, model_version=job.labeller.model_version)


def _tell(manifest: Manifest, arguments: argparse.Namespace) -> None:
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
    print(f"Agent {manifest.id} is in {where}, also as 'current'.")
    print(
        f"Next: python -m training evaluate --store {where} --agent {manifest.id} "
        f"--images OTHER_PHOTOS --backend {arguments.backend} --run {arguments.run}"
    )
