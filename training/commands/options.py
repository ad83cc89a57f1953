"""Options that several commands share, and the job they open."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from edge_sdk.agreement import METRICS
from edge_sdk.codec import Streams
from edge_sdk.view import View
from model_store.errors import UsageError
from training.job import Job, Terms
from training.learn.compute import DEVICES, device_of
from training.measure.failures import MOST
from training.measure.noise import SAMPLE
from training.progress import Stages

__all__ = ["add_failures", "add_noise", "add_service", "open_job", "view_of"]

_VIEW = re.compile(r"(\d{1,4})(?:/(\d{1,4}))?((?:,(?:squeezed|bicubic|bilinear))*)")


def add_service(parser: argparse.ArgumentParser, *, store: bool = True) -> None:
    """Add where pictures, answers and, if wanted, agents are, and what may be spent."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="pictures")
    parser.add_argument(
        "--backend", required=True, metavar="SPEC", help="baidu://HOST, local:MODEL, …"
    )
    if store:
        parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="model store")
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="results, and the paid answers"
    )
    parser.add_argument("--min-score", type=float, metavar="S", help="labels below do not count")
    parser.add_argument(
        "--metric",
        choices=METRICS,
        help="agreement that counts (default: any_hit, or the agent's own)",
    )
    parser.add_argument("--max-calls", type=int, metavar="N", help="answers that may be bought")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="dollars that may be spent")
    parser.add_argument(
        "--price-per-call", type=float, metavar="USD", help="default: the service's list price"
    )
    parser.add_argument(
        "--max-failures",
        type=int,
        default=Terms.max_failures,
        metavar="N",
        help="pictures that the service may fail on before the run stops (%(default)s)",
    )
    parser.add_argument(
        "--answer-ttl",
        type=float,
        metavar="DAYS",
        help="delete older answers and buy them anew; some services' terms limit storage",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="uploads at once (default: twice the cores)"
    )
    parser.add_argument(
        "--executor",
        default=Terms.executor,
        metavar="WHERE",
        help="where pictures are encoded that are asked about at every rung: threads, threads:N, "
        "or dask://HOST:PORT, whose workers must see the pictures under the same path; "
        "keys and answers stay here (%(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where features in fp32 are computed; those of INT8 engines, which are the CPU's, and "
        "the heads stay on the CPU (default: a GPU if torch and onnxruntime-gpu find one)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_noise(parser: argparse.ArgumentParser) -> None:
    """Add whether the service is asked how far it agrees with itself."""
    parser.add_argument(
        "--noise",
        type=_pictures,
        nargs="?",
        const=SAMPLE,
        default=0,
        metavar="N",
        help="ask twice more about N pictures, to learn how often the service disagrees with "
        "itself (default: do not ask; without N: %(const)s)",
    )


def add_failures(parser: argparse.ArgumentParser) -> None:
    """Add how many pictures the report shows."""
    parser.add_argument(
        "--failures",
        type=_pictures,
        default=MOST,
        metavar="N",
        help="worst failures that the report shows, with their pictures; 0 for none, where "
        "pictures must not leave with it (%(default)s)",
    )


def _pictures(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = -1
    if count < 0:
        raise argparse.ArgumentTypeError(f"{text} is given; allowed is 0 or more pictures")
    return count


def open_job(
    arguments: argparse.Namespace,
    run: Path,
    stages: Stages,
    min_score: float = 0.0,
    codec: Streams | None = None,
) -> Job:
    """Open the job of :func:`add_service`'s options.

    Args:
        arguments: parsed.
        run: the opened run folder.
        stages: tells the progress.
        min_score: used where the option was not given.
        codec: of rungs of features.
    """
    device_of(arguments.device)  # a GPU that is not there is told before anything is paid
    given = arguments.min_score
    return Job(
        arguments.backend,
        run,
        stages,
        min_score=min_score if given is None else given,
        terms=Terms(
            max_calls=arguments.max_calls,
            max_cost_usd=arguments.max_cost,
            price_per_call=arguments.price_per_call,
            answer_ttl_days=arguments.answer_ttl,
            max_failures=arguments.max_failures,
            workers=arguments.workers,
            executor=arguments.executor,
        ),
        codec=codec,
        seed=arguments.seed,
        device=arguments.device,
    )


def view_of(text: str) -> View:
    """Read ``SIDE[/RESIZED]``, perhaps with ``,squeezed`` and ``,bicubic`` behind it."""
    read = _VIEW.fullmatch(text)
    if read is None:
        raise argparse.ArgumentTypeError(
            f"the view {text!r} cannot be read; allowed is SIDE or SIDE/RESIZED in pixels, as in "
            "224/256,bicubic"
        )
    side, resized, words = read.groups()
    chosen = words.split(",")
    try:
        return View(
            side=int(side),
            resized=int(resized or side),
            squeezed="squeezed" in chosen,
            filter="bicubic" if "bicubic" in chosen else "bilinear",
        )
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
