"""``python -m training coldstart``: an agent from local models, before any answer is paid for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_sdk.folder import find_pictures
from edge_sdk.ladder import LADDERS, Ladder
from export.network import Prefix
from export.publish import publish_run
from model_store import Manifest, Store
from model_store.cli import print_json
from model_store.errors import UsageError
from training import assets
from training.cloud.zoo import MODELS
from training.job import Job, open_run
from training.learn.coldstart import cold_start
from training.learn.goal import MAX_PROBES, Goal
from training.learn.labelled import Labelled
from training.learn.sizes import DEFAULT, load_sized
from training.photos import View, readable, split_rows, views
from training.progress import Stages

__all__ = ["add_parser"]

#: Three families and two label spaces; MobileNetV2 is on the device and would agree with itself.
STAND_INS = ("efficientnet-lite0", "squeezenet", "dog-breeds")

#: Share of the photos that the heads are fitted to; the others set the trade-off.
TRAIN_SHARE = 0.5

#: Pictures at least.
FEWEST = 4

#: Longer sides of the built-in photos are scaled down to this; the device's are what they are.
LONG_SIDE = 512


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training coldstart``."""
    parser = commands.add_parser(
        "coldstart", help="make an uncertified agent from local models, without a paid answer"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="pictures (default: the built-in photos)"
    )
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="model store")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="results")
    parser.add_argument("--scenery", default="day", metavar="NAME")
    parser.add_argument("--target-accuracy", type=float, default=0.95, metavar="T")
    parser.add_argument("--ladder", choices=tuple(LADDERS), default="full")
    parser.add_argument("--max-probes", type=int, default=MAX_PROBES, metavar="N")
    parser.add_argument(
        "--models",
        type=_models,
        default=STAND_INS,
        metavar="LIST",
        help=f"stand-ins for the service, separated by commas (default: {','.join(STAND_INS)})",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=_command)


def _models(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in MODELS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"the model {(unknown or [text])[0]!r} is unknown; allowed are {', '.join(MODELS)}"
        )
    return names


def _command(arguments: argparse.Namespace) -> int:
    stages, run = Stages(), open_run(arguments.run)
    paths = find_pictures(arguments.images) if arguments.images else assets.photos()
    long_side = None if arguments.images else LONG_SIDE
    pictures = views(readable(paths, stages.say), 1, long_side=long_side, seed=arguments.seed)
    if len(pictures) < FEWEST:
        raise UsageError(
            f"{len(pictures)} picture(s) are too few to learn from; give at least {FEWEST}, better "
            "a hundred."
        )
    goal = Goal(
        backend="none",
        target=arguments.target_accuracy,
        scenery=arguments.scenery,
        max_probes=arguments.max_probes,
        seed=arguments.seed,
    )
    prefix = load_sized(DEFAULT)
    every = _answered(prefix, pictures, LADDERS[arguments.ladder], arguments, stages)
    groups = every[0].table.groups
    training = round(TRAIN_SHARE * len(set(groups)))
    rows = split_rows(groups, (training, len(groups) - training), goal.seed)
    train, held = ([one.take(part) for one in every] for part in rows)
    with stages.stage("learning"):
        trained = cold_start(prefix, train, held, goal, arguments.models)
    trained.save(run)
    with stages.stage("exporting, proving parity, publishing"):
        manifest, _ = publish_run(
            trained, Store(arguments.store), aliases=[f"scenery/{goal.scenery}", "current"]
        )
    _tell(manifest, arguments)
    return 0


def _answered(
    prefix: Prefix,
    pictures: Sequence[View],
    ladder: Ladder,
    arguments: argparse.Namespace,
    stages: Stages,
) -> list[Labelled]:
    """Return what every stand-in says of the pictures, with features and looks computed once."""
    answered: list[Labelled] = []
    for name in arguments.models:
        folder = open_run(arguments.run / name)
        with Job(f"local:{name}", folder, stages, seed=arguments.seed) as job:
            if not answered:
                look_at = ladder if arguments.max_probes else ()
                answered.append(job.labelled(prefix, pictures, ladder, name, look_at=look_at))
            else:
                table = job.label(pictures, ladder, f"asking {name}")
                if table.rejected:
                    raise UsageError(
                        f"{name} refused {table.rejected[0].photo}, which {arguments.models[0]} "
                        "took; leave the picture or the model out."
                    )
                answered.append(replace(answered[0], table=table))
    return answered


def _tell(manifest: Manifest, arguments: argparse.Namespace) -> None:
    point = manifest.operating_points[0]
    if arguments.json:
        document = {"schema": "adacompress.coldstart/1", "ok": True, "agent": manifest.to_json()}
        print_json(document)
        return
    print(point["note"])
    print(
        f"The least agreement of a stand-in on {point['n']} other photos is "
        f"{point['achieved']:.3f}; aimed at was {point['target']:g}."
    )
    print(f"Agent {manifest.id} is in {arguments.store}, also as 'current'.")
    print(
        "Next: python -m training fit --start current --images YOUR_PHOTOS --backend SPEC "
        f"--store {arguments.store} --run {arguments.run}/fit"
    )
