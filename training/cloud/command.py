"""``python -m training cloud``: serve a real vision service on this machine until told to stop.

Prints one JSON line when it is ready. It stops on Ctrl-C, on SIGTERM, and when the pipe on its
standard input closes, so that it never outlives the program that started it; requests under way
are finished first.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from pathlib import Path
from types import FrameType

from model_store.errors import UsageError
from training.cloud.coded import open_codec
from training.cloud.dialects import DIALECTS
from training.cloud.faults import FAULTS, parse_faults
from training.cloud.models import Model, open_model
from training.cloud.server import CloudServer
from training.cloud.settings import Settings, parse_latency
from training.cloud.zoo import MODELS
from training.parent import when_parent_ends

__all__ = ["add_parser", "another"]

_MODEL = "efficientnet-lite0"
_SUMMARY = "serve a pretrained model on loopback in the dialects of cloud vendors"
_DESCRIPTION = (
    "Serve a pretrained model on loopback in the dialects of cloud vendors. The line that is "
    "printed names what --backend takes for each; the vendors' own clients take the url as their "
    "endpoint. Any key is accepted, and GET /_cloud/counts tells what was billed. Ctrl-C ends it."
)
_EPILOG = "faults: " + " · ".join(f"{name} ({what})" for name, what in FAULTS.items())


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training cloud``."""
    parser = commands.add_parser("cloud", help=_SUMMARY, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--model",
        metavar="NAME",
        help=f"one of {', '.join(MODELS)} ({_MODEL})",
    )
    parser.add_argument(
        "--codec",
        type=Path,
        metavar="DIR",
        help="a feature codec's folder: serve the classifier it was trained for, and read its "
        "feature streams in torchserve's dialect",
    )
    parser.add_argument(
        "--dialects",
        metavar="NAME,...",
        help=f"what is spoken, all on one port: {', '.join(DIALECTS)} (default: all of them)",
    )
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="default: any that is free"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="append a JSON line per request")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="decides faults, delays, request ids (%(default)s)",
    )
    _add_trouble(parser)
    parser.set_defaults(handler=_command)


def _add_trouble(parser: argparse.ArgumentParser) -> None:
    trouble = parser.add_argument_group("trouble, none of it by default")
    trouble.add_argument(
        "--latency", default="0", metavar="SECONDS[,JITTER]", help="before every answer"
    )
    trouble.add_argument(
        "--qps",
        type=float,
        metavar="N",
        help="uploads a second in each dialect; more are throttled",
    )
    trouble.add_argument(
        "--faults",
        default="0",
        metavar="SHARE|FAULT=SHARE,...",
        help="share of the uploads that fail: a mixture, or the named faults (below)",
    )
    trouble.add_argument(
        "--slow-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="that a slow answer takes (%(default)g)",
    )
    trouble.add_argument(
        "--swap-after", type=int, metavar="N", help="another model answers after N billed answers"
    )
    trouble.add_argument("--swap-to", metavar="MODEL", help="which (default: the next one)")
    trouble.add_argument(
        "--rename-labels",
        action="store_true",
        help="every label gets another name, with --swap-after from then on; with --swap-to the "
        "same model nothing else changes",
    )
    trouble.add_argument(
        "--silent",
        action="store_true",
        help="name the model only where the vendor would, not in the header X-Model-Version",
    )


def _command(arguments: argparse.Namespace) -> int:
    with _server(arguments) as server:
        # Both before the ready line: its reader may stop us at once.
        signal.signal(signal.SIGTERM, _stop)
        closed = threading.Event()
        when_parent_ends(closed.set)
        ready = {
            "ready": True,
            "url": server.url,
            "spec": server.spec,
            "specs": server.specs,
            "model": server.model.version,
        }
        print(json.dumps(ready), flush=True)
        closed.wait()
    return 0


def _server(arguments: argparse.Namespace) -> CloudServer:
    latency_s, jitter_s = parse_latency(arguments.latency)
    settings = Settings(
        seed=arguments.seed,
        latency_s=latency_s,
        jitter_s=jitter_s,
        qps=arguments.qps,
        faults=parse_faults(arguments.faults),
        slow_s=arguments.slow_seconds,
        swap_after=arguments.swap_after,
        rename_labels=arguments.rename_labels,
        silent=arguments.silent,
    )
    dialects = arguments.dialects
    model = _model(arguments)
    return CloudServer(
        model,
        arguments.port,
        dialects=None if dialects is None else [name.strip() for name in dialects.split(",")],
        settings=settings,
        swap_to=_swap_to(arguments, model),
        log=arguments.log,
    )


def _model(arguments: argparse.Namespace) -> Model:
    if arguments.codec is None:
        return open_model(arguments.model or _MODEL)
    model = open_codec(arguments.codec)
    if arguments.model not in (None, model.name):
        raise UsageError(
            f"The codec in {arguments.codec} is for {model.name!r}, not {arguments.model!r}; leave "
            "--model out."
        )
    return model


def _swap_to(arguments: argparse.Namespace, model: Model) -> Model | None:
    if arguments.swap_to is None and arguments.swap_after is None:
        return None
    name = arguments.swap_to or another(model.name)
    return model if name == model.name else open_model(name)


def another(model: str) -> str:
    """Return the next model of the zoo that answers in the same way, if there is one.

    A model that is not of the zoo is a codec's, hence a classifier.
    """
    names = [*MODELS]
    at = names.index(model) if model in MODELS else -1
    following = names[at + 1 :] + names[: max(at, 0)]
    boxes = model in MODELS and MODELS[model].boxes
    alike = [name for name in following if MODELS[name].boxes == boxes]
    return (alike or following)[0]


def _stop(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; requests are being finished
    raise SystemExit(0)  # setting an event here could deadlock with its own wait
