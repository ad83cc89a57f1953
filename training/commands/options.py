"""Options that fit and evaluate share, and the job they open."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_store.errors import UsageError
from training.job import Job
from training.labels.labelling import Budget
from training.progress import Stages

__all__ = ["add_service", "open_job"]


def add_service(parser: argparse.ArgumentParser) -> None:
    """Add where pictures, answers and agents are, and what may be spent."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="pictures")
    parser.add_argument(
        "--backend", required=True, metavar="SPEC", help="baidu://HOST, local:MODEL, …"
    )
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="model store")
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="results, and the paid answers"
    )
    parser.add_argument("--min-score", type=float, metavar="S", help="labels below do not count")
    parser.add_argument("--max-calls", type=int, metavar="N", help="answers that may be bought")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="dollars that may be spent")
    parser.add_argument(
        "--price-per-call", type=float, default=0.0, metavar="USD", help="what the service asks"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def open_job(
    arguments: argparse.Namespace, run: Path, stages: Stages, min_score: float = 0.0
) -> Job:
    """Open the job of :func:`add_service`'s options.

    Args:
        arguments: parsed.
        run: the opened run folder.
        stages: tells the progress.
        min_score: used where the option was not given.
    """
    if arguments.max_cost is not None and not arguments.price_per_call > 0:
        raise UsageError(
            "--max-cost needs to know what a call costs; add --price-per-call USD, for example "
            "0.001."
        )
    given = arguments.min_score
    return Job(
        arguments.backend,
        run,
        stages,
        min_score=min_score if given is None else given,
        budget=Budget(arguments.max_calls, arguments.max_cost, arguments.price_per_call),
        seed=arguments.seed,
    )
