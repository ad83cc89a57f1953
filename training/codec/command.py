"""``python -m training codec``: a feature codec for whoever runs the classifier."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np

from edge_sdk.folder import find_pictures
from model_store.cli import print_json
from training.codec.classifier import open_classifier
from training.codec.job import Plan, run
from training.codec.report import CodecReport, print_rates
from training.codec.torfason import parse
from training.commands.options import view_of
from training.job import open_run
from training.learn.compute import DEVICES, device_of
from training.photos import readable
from training.progress import Stages

__all__ = ["add_parser"]

#: λ of the first and the last rate; those between fall geometrically.
_DEAREST, _CHEAPEST = 20.0, 0.1


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training codec``."""
    parser = commands.add_parser(
        "codec", help="learn a feature codec for a classifier of your own, from unlabelled photos"
    )
    parser.add_argument(
        "--classifier", required=True, metavar="MODEL|FILE", help="a local model, or an ONNX file"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="photos")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="results")
    parser.add_argument("--cut", metavar="NAME", help="tensor to cut at (default: 1/16 wide)")
    parser.add_argument(
        "--prefix",
        default="own",
        metavar="own|mobilenetv2[:N]",
        help="the device's first blocks: the classifier's own, or MobileNetV2's first N",
    )
    view = parser.add_argument_group("an ONNX file's pictures")
    view.add_argument(
        "--view",
        type=view_of,
        metavar="SIDE[/RESIZED]",
        help="how the classifier's service looks at a picture, as in 224/256,bicubic (default: "
        "middle 7/8, bilinear)",
    )
    view.add_argument("--mean", type=_numbers, metavar="LIST", help="of pixels, for a float input")
    view.add_argument("--deviation", type=_numbers, metavar="LIST", help="of pixels")
    parser.add_argument(
        "--architecture",
        default="ours",
        metavar="ours|torfason-28x28xC[:NETWORK]",
        help="Torfason et al. (2018) as published: an autoencoder and a cResNet of its codes",
    )
    parser.add_argument("--rates", type=_rates, default=7, metavar="N", help="default: 7")
    parser.add_argument("--entropy", choices=("context", "factorised"), default="context")
    parser.add_argument("--channels", type=int, metavar="C", help="of what is sent")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=800, metavar="N", help="default: 800")
    length.add_argument("--minutes", type=float, metavar="M", help="about as many steps as fit")
    parser.add_argument(
        "--fine-tune-tail", action="store_true", help="let the tail's weights learn too"
    )
    parser.add_argument(
        "--masks", type=Path, metavar="DIR", help="PNGs of class numbers: learn to segment as well"
    )
    parser.add_argument(
        "--no-viewer", action="store_true", help="do not learn to show what is sent"
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where torch learns; files and figures are the CPU's (default: a GPU if there is one)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    device = device_of(arguments.device)
    stages, folder = Stages(), open_run(arguments.run)
    classifier = open_classifier(
        arguments.classifier,
        view=arguments.view,
        mean=arguments.mean,
        deviation=arguments.deviation,
    )
    paths = readable(find_pictures(arguments.images), stages.say)
    theirs = None
    if arguments.architecture != "ours":
        theirs = parse(arguments.architecture, steps=arguments.steps, seed=arguments.seed)
    plan = Plan(
        classifier=classifier,
        cut=arguments.cut,
        prefix=arguments.prefix,
        lambdas=tuple(np.geomspace(_DEAREST, _CHEAPEST, arguments.rates).tolist()),
        entropy=arguments.entropy,
        codes=arguments.channels,
        steps=arguments.steps,
        minutes=arguments.minutes,
        fine_tune_tail=arguments.fine_tune_tail,
        viewer=not arguments.no_viewer,
        seed=arguments.seed,
        architecture=theirs,
        masks=arguments.masks,
        device=device,
    )
    report = CodecReport(
        command=f"python -m training {shlex.join(sys.argv[1:])}",
        seed=arguments.seed,
        trial=run(plan, paths, folder / "codec", stages),
        timings_s=stages.seconds,
    )
    page = report.write(folder)
    if arguments.json:
        print_json(report.to_json())
        return 0
    print(print_rates(report.to_json()))
    print(f"Codec: {folder / 'codec'}. Report: {page} (report.json beside it)")
    return 0


def _rates(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 32:
        raise argparse.ArgumentTypeError(f"{text!r} rates; allowed are 2 to 32")
    return int(text)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed are one number or three, 1.5,2,3")
    return values
