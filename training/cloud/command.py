"""``python -m training cloud``: serve a real vision service on this machine until told to stop.

Prints one JSON line when it is ready. It stops on Ctrl-C, on SIGTERM, and when the pipe on its
standard input closes, so that it never outlives the program that started it.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from types import FrameType

from training.cloud.models import SIDES, open_classifier
from training.cloud.server import CloudServer
from training.parent import when_parent_ends

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training cloud``."""
    parser = commands.add_parser(
        "cloud", help="serve an open classifier on loopback in a cloud vendor's dialect"
    )
    parser.add_argument("--model", default="efficientnet-lite0", help=f"one of {', '.join(SIDES)}")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    with CloudServer(open_classifier(arguments.model), arguments.port) as server:
        # Both before the ready line: its reader may stop us at once.
        signal.signal(signal.SIGTERM, _stop)
        closed = threading.Event()
        when_parent_ends(closed.set)
        ready = {
            "ready": True,
            "url": server.url,
            "spec": server.spec,
            "model": server.model.version,
        }
        print(json.dumps(ready), flush=True)
        closed.wait()
    return 0


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)  # setting an event here could deadlock with its own wait
