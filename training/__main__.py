"""``python -m training``: learn agents, measure them, and run everything around them."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from model_store.cli import parser, run

__all__ = ["main"]

#: Modules that add a sub-command. Listed, not imported: torch takes seconds to load, and a cloud
#: that serves ONNX or a fetch of assets needs none of it.
_COMMANDS = {
    "demo": "training.demo.command",
    "fit": "training.commands.fit",
    "coldstart": "training.commands.coldstart",
    "evaluate": "training.commands.evaluate",
    "study": "training.commands.study",
    "reproduce": "training.commands.reproduce",
    "codec": "training.codec.command",
    "retrain": "training.retrain",
    "serve": "training.serve.command",
    "ledger": "training.commands.ledger",
    "cloud": "training.cloud.command",
    "assets": "training.assets",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    return run(_parser(argv), argv)


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; only the named command's module is imported, all of them for the help."""
    commands = parser("training", "Learn agents, measure them, and run everything around them.")
    subparsers = commands.add_subparsers(metavar="COMMAND", title="commands")
    named = [argv[0]] if argv and argv[0] in _COMMANDS else list(_COMMANDS)
    for name in named:
        importlib.import_module(_COMMANDS[name]).add_parser(subparsers)
    return commands


if __name__ == "__main__":
    # numpy reads it when it is imported, with a command. Matrices here are small: a pool's threads
    # would wait for each other by spinning, and take the cores from what labels beside them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
