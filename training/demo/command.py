"""``python -m training demo``: parse, run, tell."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

__all__ = ["add_parser"]

#: Seed of the figures in the README.
SEED = 0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training demo``."""
    parser = commands.add_parser(
        "demo", help="the whole job on built-in photos against a local cloud, with a report"
    )
    parser.add_argument("--quick", action="store_true", help="a minute instead of five")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), metavar="DIR")
    parser.add_argument("--images", type=Path, metavar="DIR", help="own day photos")
    parser.add_argument("--night", type=Path, metavar="DIR", help="real night or thermal frames")
    parser.add_argument("--target-accuracy", type=float, default=0.95, metavar="T")
    parser.add_argument("--min-score", type=float, default=0.0, metavar="S")
    parser.add_argument("--model", default="efficientnet-lite0", help="the local cloud's")
    parser.add_argument("--port", type=int, default=0, help="the local cloud's; 0 takes a free one")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--prepare", action="store_true", help="only convert the weights, once for all runs"
    )
    parser.add_argument("--json", action="store_true", help="print the report's JSON on stdout")
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    # Two cores: the cloud has one of them, and a thread pool as large as the machine would fight
    # it. Set before torch is imported, because its pool is sized then.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if arguments.prepare:
        from training.demo.prepare import prepare

        prepare(arguments.model)
        return 0
    from model_store.cli import print_json
    from model_store.files import read_json
    from training.demo.main import run_demo
    from training.demo.plan import FULL, QUICK, Plan

    plan = Plan(
        run=arguments.run,
        sizes=QUICK if arguments.quick else FULL,
        target=arguments.target_accuracy,
        min_score=arguments.min_score,
        seed=arguments.seed,
        model=arguments.model,
        port=arguments.port,
        images=arguments.images,
        night=arguments.night,
    )
    told = run_demo(plan, command=" ".join(["python -m training", *sys.argv[1:]]))
    if arguments.json:
        print_json(read_json(told.json))
    else:
        print(told.text)
    return 0
