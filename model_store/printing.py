"""What the sub-commands of ``python -m model_store`` share: the store, tables, JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from model_store import cli
from model_store.errors import UsageError
from model_store.store import Store

__all__ = ["SCHEMA", "document", "moved", "next_command", "open_store", "table"]

SCHEMA = "adacompress.store/1"


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def document(command: str, *, ok: bool, **fields: Any) -> int:
    """Print one JSON object; return exit code 0."""
    cli.print_json({"schema": SCHEMA, "command": command, "ok": ok, **fields})
    return 0


def moved(arguments: argparse.Namespace, command: str, name: str, then: str) -> int:
    """Say where an alias points now, and what to do next."""
    if arguments.json:
        return document(command, ok=True, alias=arguments.alias, id=name)
    print(f"{arguments.alias} -> {name}")
    next_command(arguments, f"{then} --alias {arguments.alias}" if then == "rollback" else then)
    return 0


def next_command(arguments: argparse.Namespace, command: str) -> None:
    """Name the command that a user may want next."""
    print(f"next: python -m model_store {command} --store {arguments.store}")


def open_store(arguments: argparse.Namespace, *, new: bool = False) -> Store:
    """Open the store that the options name; only what is written to may be ``new``."""
    store = Store(
        arguments.store,
        trusted_keys=arguments.trusted_keys,
        signing_key=getattr(arguments, "signing_key", None),
    )
    if not new and not store.root.is_dir():
        raise UsageError(
            f"There is no folder {arguments.store!r}, so no store to look at; name the one that "
            "'python -m training fit --store DIR' wrote to."
        )
    return store
