"""``python -m training reproduce --figure N``: the paper's figures on our pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training reproduce``."""
    parser = commands.add_parser("reproduce", help="a figure of the paper on our pictures")
    parser.add_argument("--figure", type=int, choices=(12,), required=True)
    parser.add_argument("--quick", action="store_true", help="fewer pictures")
    parser.add_argument("--run", type=Path, default=Path("runs/figures"), metavar="DIR")
    parser.add_argument("--images", type=Path, metavar="DIR", help="own day photos")
    parser.add_argument("--night", type=Path, metavar="DIR", help="real night or thermal frames")
    # The paper's device keeps agreement above 0.8; at 0.95 thermal pictures leave nothing to save.
    parser.add_argument("--target-accuracy", type=float, default=0.9, metavar="T")
    parser.add_argument("--backend", default="local:efficientnet-lite0", metavar="SPEC")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the measured figures as JSON")
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    from model_store.cli import print_json
    from model_store.files import write_json
    from training.demo.figure12 import FULL_SIZES, QUICK_SIZES, figure12
    from training.job import Job, open_run
    from training.measure.stream_figure import timeline
    from training.progress import Stages

    stages, run = Stages(), open_run(arguments.run)
    with Job(arguments.backend, run, stages, seed=arguments.seed) as job:
        document = figure12(
            job,
            run,
            QUICK_SIZES if arguments.quick else FULL_SIZES,
            stages,
            images=arguments.images,
            night=arguments.night,
            target=arguments.target_accuracy,
            seed=arguments.seed,
        )
    write_json(run / "figure12.json", document)
    for name, seen in document["monitors"].items():
        (run / f"figure12-{name}.svg").write_text(timeline(seen["timeline"]), encoding="utf-8")
    figures = _figures(document)
    if arguments.json:
        print_json(figures)
    else:
        print(_table(figures, synthetic=arguments.night is None))
        print(f"\nFigures: {run}/figure12-paper.svg, {run}/figure12-betting.svg")
    return 0


def _figures(document: dict[str, Any]) -> dict[str, Any]:
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
