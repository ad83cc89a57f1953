"""The one command-line idiom: parse, do, one sentence on stderr, a documented exit code.

Every ``python -m PACKAGE`` calls :func:`run` with its parser; each sub-command sets
``handler=FUNCTION`` with ``set_defaults`` and its function returns an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_store.errors import AdaCompressError

__all__ = ["EXIT_CODES", "parser", "print_json", "run"]

EXIT_CODES = """\
exit codes: 0 ok · 1 unexpected · 2 usage · 3 quality or parity gate failed · 4 environment missing
(GPU, TensorRT, Java, a folder that cannot be written) · 5 agent not found or corrupt · 6 backend or
network · 7 budget reached (what was paid for is kept) · 130 interrupted"""


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m program`` with the exit codes in its epilog."""
    return argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON object on stdout, the machine-readable face of every command."""
    json.dump(document, sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")


def run(commands: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse ``argv``, call the chosen handler, and turn what it raises into an exit code."""
    arguments = commands.parse_args(argv)
    handler = getattr(arguments, "handler", None)
    if handler is None:
        commands.print_help(sys.stderr)
        return 2
    try:
        code = int(handler(arguments))
        sys.stdout.flush()  # here, where a reader that went away can still be handled
        return code
    except AdaCompressError as error:
        print(f"{commands.prog}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{commands.prog}: interrupted; what was paid for is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our stdout went away: nobody is left to tell, at the last flush neither.
        with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 0
