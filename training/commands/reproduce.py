"""``python -m training reproduce``: the paper's figures and tables on anybody's pictures."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_store.errors import UsageError

if TYPE_CHECKING:
    from training.reproduce.cases import Request

__all__ = ["add_parser"]

#: What can be drawn besides the device's stream, in the order of the page.
CASES = ("1", "5", "6", "7", "8", "9", "10", "11", "table2", "extractors")
STREAM = "12"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training reproduce``."""
    parser = commands.add_parser(
        "reproduce", help="the paper's figures and tables on any pictures, beside its numbers"
    )
    parser.add_argument("--figure", choices=(*CASES, STREAM, "all"), required=True)
    parser.add_argument("--quick", action="store_true", help="fewer pictures")
    parser.add_argument("--run", type=Path, default=Path("runs/figures"), metavar="DIR")
    parser.add_argument("--images", type=Path, metavar="DIR", help="own day photos")
    parser.add_argument("--night", type=Path, metavar="DIR", help="real night or thermal frames")
    # The paper's device keeps agreement above 0.8; at 0.95 thermal pictures leave nothing to save.
    parser.add_argument("--target-accuracy", type=float, default=0.9, metavar="T")
    parser.add_argument(
        "--backend",
        type=_backends,
        default=("local:efficientnet-lite0",),
        metavar="SPEC[,SPEC…]",
        help="services to compare; figure 12 takes the first (default: local:efficientnet-lite0)",
    )
    parser.add_argument(
        "--uplink", type=float, metavar="MBPS", help="table 2 at this link too, megabits a second"
    )
    parser.add_argument(
        "--extractor",
        action="append",
        default=[],
        metavar="NAME",
        help="compare with MobileNetV2's prefix: FILE.onnx, or torchvision:NAME[:FILE.pth]; "
        "may be given several times",
    )
    parser.add_argument("--max-calls", type=int, metavar="N", help="answers that may be bought")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="dollars that may be spent")
    parser.add_argument(
        "--price-per-call", type=float, metavar="USD", help="default: the service's list price"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the measured figures as JSON")
    parser.set_defaults(handler=_command)


def _backends(text: str) -> tuple[str, ...]:
    """Read a list of specifications, for argparse."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise argparse.ArgumentTypeError("no service is named; give one as local:MODEL")
    return names


def _command(arguments: argparse.Namespace) -> int:
    from model_store.cli import print_json
    from training.job import open_run
    from training.progress import Stages

    if arguments.uplink is not None and not arguments.uplink > 0:
        raise UsageError(f"--uplink is {arguments.uplink}; allowed is above 0 megabits a second.")
    stages, run = Stages(), open_run(arguments.run)
    found: dict[str, Any] = {}
    if arguments.figure in (STREAM, "all"):
        found["12"] = _stream(arguments, run, stages)
    if arguments.figure != STREAM:
        found |= _figures(arguments, run, stages, found.get("12"))
    if arguments.json:
        print_json(found["12"] if arguments.figure == STREAM else found)
    return 0


def _figures(
    arguments: argparse.Namespace, run: Path, stages: Any, stream: dict[str, Any] | None
) -> dict[str, Any]:
    from training.job import Terms
    from training.reproduce.main import PAGE, Pictures, gathered, reproduce

    names = CASES if arguments.figure == "all" else (arguments.figure,)
    request = _request(arguments)
    pictures = Pictures(images=arguments.images, night=arguments.night, quick=arguments.quick)
    terms = Terms(
        max_calls=arguments.max_calls,
        max_cost_usd=arguments.max_cost,
        price_per_call=arguments.price_per_call,
    )
    with gathered(arguments.backend, pictures, run, request, stages, terms) as cases:
        exhibits = reproduce(names, cases, run, request, stages, stream)
    if not arguments.json:
        for exhibit in exhibits:
            print(f"{exhibit.title}\n{exhibit.caption}\n")
        print(f"All of it: {run / PAGE} (SVG, PNG, CSV and caption of each beside it)")
    return {exhibit.name: list(exhibit.rows) for exhibit in exhibits}


def _request(arguments: argparse.Namespace) -> Request:
    from training.reproduce.cases import Request

    return Request(
        command=f"python -m training {shlex.join(sys.argv[1:])}",
        target=arguments.target_accuracy,
        seed=arguments.seed,
        uplink=arguments.uplink,
        extractors=tuple(arguments.extractor),
    )


def _stream(arguments: argparse.Namespace, run: Path, stages: Any) -> dict[str, Any]:
    from model_store.files import write_json
    from training.demo.figure12 import figure12
    from training.demo.night_and_day import FULL_SIZES, GLIMPSE, QUICK_SIZES
    from training.job import Job
    from training.reproduce.stream import streams

    quick = GLIMPSE if arguments.figure == "all" else QUICK_SIZES
    with Job(arguments.backend[0], run, stages, seed=arguments.seed) as job:
        document = figure12(
            job,
            run,
            quick if arguments.quick else FULL_SIZES,
            stages,
            images=arguments.images,
            night=arguments.night,
            target=arguments.target_accuracy,
            seed=arguments.seed,
        )
    write_json(run / "figure12.json", document)
    for exhibit in streams(document, _request(arguments), synthetic=arguments.night is None):
        exhibit.write(run)
    figures = _columns_left_out(document)
    if not arguments.json:
        print(_table(figures, synthetic=arguments.night is None))
        print(f"\nFigures: {run}/figure12-paper.svg, {run}/figure12-betting.svg\n")
    return figures


def _columns_left_out(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without its columns."""
    left_out = ("timeline", "events")
    return {
        name: {key: value for key, value in seen.items() if key not in left_out}
        for name, seen in document["monitors"].items()
    }


def _table(figures: dict[str, Any], *, synthetic: bool) -> str:
    names = list(figures)
    lines = [f"{'':<34}" + "".join(f"{name:>14}" for name in names)]
    for group in ("measured", "stable"):
        lines.append(f"-- {group}")
        for key in figures[names[0]][group]:
            values = [_shown(figures[name][group][key]) for name in names]
            lines.append(f"{key:<34}" + "".join(f"{value:>14}" for value in values))
    for index, one in enumerate(figures["betting"].get("returns", [])):
        lines.append(f"-- return {index}: " + ", ".join(f"{k} {v}" for k, v in one.items()))
    if synthetic:
        lines.append("The night is synthetic: a thermal-camera model applied to photos.")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return " ".join(f"{key[:4]}:{count}" for key, count in value.items()) or "none"
    if isinstance(value, list):
        return "/".join(_shown(one) for one in value)
    return "never" if value is None else str(value)
