"""``python -m training ledger``: look at the paid answers, count the money, hand out, delete."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from model_store.cli import print_json
from model_store.errors import EnvironmentMissing, UsageError
from training.labels.budget import dollars
from training.labels.ledger import Bill, Entry, Holding, Ledger

__all__ = ["add_parser"]

SCHEMA = "adacompress.ledger/2"

#: Columns of an export.
COLUMNS = (
    *("service", "model", "picture", "rung", "labels", "size"),
    *("wire_bytes", "price_usd", "bought", "request_id"),
)

_UNIT_S = {"h": 3600.0, "d": 24 * 3600.0}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training ledger`` and its four commands."""
    summary = "look at the paid answers, count the money, export, delete"
    ledger = commands.add_parser("ledger", help=summary)
    group = ledger.add_subparsers(metavar="COMMAND", title="commands", required=True)

    def add(
        name: str, handler: Callable[[argparse.Namespace, Ledger], None], summary: str
    ) -> argparse.ArgumentParser:
        parser = group.add_parser(name, help=summary, description=summary)
        parser.add_argument("path", nargs="?", type=Path, metavar="PATH", help="a ledger's file")
        parser.add_argument("--run", type=Path, metavar="DIR", help="the ledger of a run's folder")
        parser.set_defaults(handler=lambda arguments: _open_for(handler, arguments))
        return parser

    listing = add("ls", _ls, "What is held of every service.")
    cost = add("cost", _cost, "What every service cost, by day (UTC).")
    export = add("export", _export, "Every answer, one a line, as JSON or CSV.")
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    export.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    prune = add("prune", _prune, "Delete old answers; they would have to be bought anew.")
    prune.add_argument("--older-than", type=_age, required=True, metavar="AGE", help="30d, 12h")
    prune.add_argument("--service", metavar="NAME", help="only this one's, as ls names it")
    prune.add_argument("--dry-run", action="store_true", help="count them and delete nothing")
    for parser in (listing, cost, prune):
        parser.add_argument("--json", action="store_true", help="print one JSON object")


def _open_for(
    handler: Callable[[argparse.Namespace, Ledger], None], arguments: argparse.Namespace
) -> int:
    with contextlib.closing(Ledger(_place(arguments))) as ledger:
        handler(arguments, ledger)
    return 0


def _place(arguments: argparse.Namespace) -> Path:
    if (arguments.path is None) == (arguments.run is None):
        raise UsageError("Name one ledger: either its file, or --run DIR of a run's folder.")
    path: Path = arguments.path or arguments.run / "ledger.sqlite"
    if not path.is_file():  # opening it would make it
        raise UsageError(
            f"There is no ledger {str(path)!r}; fit and evaluate write one into --run."
        )
    return path


def _ls(arguments: argparse.Namespace, ledger: Ledger) -> None:
    held = ledger.holdings()
    if arguments.json:
        _print_document("ls", holdings=[_timed(one._asdict()) for one in held])
        return
    heading = ("service", "model", "answers", "pictures", "rungs", "first", "last", "MB", "cost")
    _print_table([heading, *map(_holding, held)])
    print(f"next: python -m training ledger cost {ledger.path}")


def _cost(arguments: argparse.Namespace, ledger: Ledger) -> None:
    bills = ledger.bills()
    if arguments.json:
        total = sum(bill.cost_usd for bill in bills)
        _print_document("cost", bills=[bill._asdict() for bill in bills], cost_usd=total)
        return
    _print_table([("service", "day", "answers", "cost"), *map(_bill, bills)])
    every = [sum(column) for column in zip(*(bill[2:] for bill in bills), strict=True)]
    answers, usd, unpriced = every or (0, 0.0, 0)
    print(f"total: {answers:.0f} answers, {_money(usd, answers, unpriced)}")


def _export(arguments: argparse.Namespace, ledger: Ledger) -> None:
    write = _write_csv if arguments.format == "csv" else _write_jsonl
    if arguments.out is None:
        write(ledger.entries(), sys.stdout)
        return
    with _replacing(arguments.out) as file:
        write(ledger.entries(), file)
    print(f"{len(ledger)} answers are in {arguments.out}.")


def _prune(arguments: argparse.Namespace, ledger: Ledger) -> None:
    service, dry = arguments.service, arguments.dry_run
    known = {one.service for one in ledger.holdings()}
    if service is not None and service not in known:
        raise UsageError(
            f"The ledger has no answers of {service!r}; it has some of "
            f"{', '.join(sorted(known)) or 'nobody'}."
        )
    count = ledger.prune(arguments.older_than, service, dry_run=dry)
    if arguments.json:
        _print_document("prune", answers=count, dry_run=dry, left=len(ledger))
    elif dry:
        print(f"{count} of {len(ledger)} answers would be deleted.")
    else:
        print(f"{count} answers are deleted, {len(ledger)} are left.")


def _age(text: str) -> float:
    """Read ``30d`` or ``12h`` as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([dh])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age; write 30d or 12h")
    return float(match[1]) * _UNIT_S[match[2]]


def _document(entry: Entry) -> dict[str, Any]:
    document = _timed({name: getattr(entry, name) for name in COLUMNS})
    document["labels"] = [label if label.box else label[:2] for label in entry.labels]
    return document


def _timed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with its Unix times as dates (ISO 8601, UTC)."""
    times = {
        name: _date(document[name]) for name in ("first", "last", "bought") if name in document
    }
    return document | times


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _write_jsonl(entries: Iterable[Entry], file: TextIO) -> None:
    for entry in entries:
        file.write(json.dumps(_document(entry)) + "\n")


def _write_csv(entries: Iterable[Entry], file: TextIO) -> None:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    for entry in entries:
        values = _document(entry).values()
        rows.writerow(
            json.dumps(one) if isinstance(one, list | dict | tuple) else one for one in values
        )


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Open a file that takes the place of ``path`` when everything is written."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise EnvironmentMissing(
            f"{str(path)!r} cannot be written: {error.strerror}. Give another --out."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _holding(one: Holding) -> tuple[str, ...]:
    return (
        one.service,
        one.model or "-",
        *map(str, (one.answers, one.pictures, one.rungs)),
        _date(one.first)[:10],
        _date(one.last)[:10],
        f"{one.wire_bytes / 1e6:.1f}",
        _money(one.cost_usd, one.answers, one.unpriced),
    )


def _bill(one: Bill) -> tuple[str, ...]:
    cost = _money(one.cost_usd, one.answers, one.unpriced)
    return one.service, one.day, str(one.answers), cost


def _money(usd: float, answers: float, unpriced: float) -> str:
    if unpriced and unpriced == answers:
        return "unknown"
    return dollars(usd) + (f" and {unpriced:.0f} of unknown price" if unpriced else "")


def _print_document(command: str, **content: Any) -> None:
    print_json({"schema": SCHEMA, "command": command, "ok": True, **content})


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
