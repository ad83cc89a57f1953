"""``python -m model_store``: look at a store, check it, move its aliases; see ``carry`` as well."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model_store import carry, cli
from model_store.errors import EnvironmentMissing, StoreError
from model_store.manifest import Manifest
from model_store.printing import document, moved, next_command, open_store, table
from model_store.store import Store

__all__ = ["main"]

COLUMNS = (
    "id",
    "scenery",
    "algorithm",
    "target",
    "size_ratio",
    "agreement",
    "created",
    "aliases",
)
#: Fields that ``show`` prints besides; all of them are in ``show --json``.
SHOWN = (
    "parent",
    "scenery",
    "backend",
    "ladder",
    "operating_points",
    "reward",
    "training",
    "metrics",
    "versions",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code."""
    return cli.run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    commands = cli.parser("model_store", "Keep agents: look at them, check them, move them.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", required=True, metavar="DIR", help="the store's folder")
    common.add_argument(
        "--trusted-keys", metavar="FILE", help="refuse agents that none of these keys has signed"
    )
    common.add_argument("--json", action="store_true", help="print one JSON object")
    group = commands.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, handler: Callable[..., int], summary: str) -> argparse.ArgumentParser:
        command = group.add_parser(name, parents=[common], help=summary, description=summary)
        command.set_defaults(handler=handler)
        return command

    agent = carry.AGENT
    add("ls", _ls, "List the agents.")
    show = add("show", _show, "Print one agent's manifest.")
    show.add_argument("agent", metavar="ID", help=agent)
    verify = add("verify", _verify, "Read every file and compare it with its manifest.")
    verify.add_argument("agent", metavar="ID", nargs="?", help=f"{agent}; all without it")
    promote = add("promote", _promote, "Point an alias to an agent.")
    promote.add_argument("agent", metavar="ID", help=agent)
    promote.add_argument("--reason", default="", help="a sentence for the alias's history")
    rollback = add("rollback", _rollback, "Point an alias to the agent before.")
    for command in (promote, rollback):
        command.add_argument("--alias", default="current", help="default: %(default)s")
    carry.add_commands(add)
    carry.add_keygen(group)
    return commands


def _ls(arguments: argparse.Namespace) -> int:
    store = open_store(arguments)
    rows = [_row(store, name) for name in store.ids()]
    rows.sort(key=lambda row: (row["created"] or "", row["id"]))
    if arguments.json:
        return document("ls", ok=True, agents=rows, aliases=store.aliases())
    table([tuple(map(_heading, COLUMNS)), *map(_cells, rows)])
    if rows:
        next_command(arguments, f"show {rows[-1]['id']}")
    else:
        print(f"next: python -m training fit --store {arguments.store} --help")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    store = open_store(arguments)
    manifest = store.manifest(arguments.agent)
    if arguments.json:
        cli.print_json(manifest.to_json())
        return 0
    cells = _cells(_row(store, manifest.id))
    table(list(zip(map(_heading, COLUMNS), cells, strict=True)))
    detail = manifest.to_json()
    for name in SHOWN:
        _print_field(name, detail[name])
    print()
    heading = ("file", "role", "bytes", "sha256")
    files = [(item.path, item.role, str(item.size), item.sha256[:12]) for item in manifest.files]
    table([heading, *files])
    next_command(arguments, f"verify {manifest.id}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    report = open_store(arguments).verify(arguments.agent)
    good = not any(report.values())
    if arguments.json:
        found = {name: [vars(problem) for problem in report[name]] for name in report}
        document("verify", ok=good, problems=found)
    else:
        for name, problems in report.items():
            print(f"{name}  {'good' if not problems else 'BAD'}")
            for problem in problems:
                print(f"    {problem}")
        next_command(arguments, "ls" if good else "rollback")
    return 0 if good else StoreError.exit_code


def _promote(arguments: argparse.Namespace) -> int:
    name = open_store(arguments).promote(arguments.agent, arguments.alias, arguments.reason)
    return moved(arguments, "promote", name, then="rollback")


def _rollback(arguments: argparse.Namespace) -> int:
    name = open_store(arguments).rollback(arguments.alias)
    return moved(arguments, "rollback", name, then=f"verify {name}")


def _row(store: Store, name: str) -> dict[str, Any]:
    aliases = [alias for alias, target in store.aliases().items() if target == name]
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"id": name, "aliases": aliases, "problem": None}
    try:
        return row | _figures(store.manifest(name))
    except (StoreError, EnvironmentMissing) as error:
        return row | {"problem": str(error)}


def _figures(manifest: Manifest) -> dict[str, Any]:
    return {
        "scenery": (manifest.scenery or {}).get("name"),
        "algorithm": manifest.algorithm,
        "target": manifest.operating_points[0].get("target"),
        "size_ratio": _figure(manifest.metrics.get("size_ratio")),
        "agreement": _figure(manifest.metrics.get("agreement")),
        "created": manifest.created,
    }


def _figure(value: Any) -> float | None:
    """Return a metric's number, be it plain, with its interval, or one of the agreements."""
    if isinstance(value, Mapping):
        return _figure(value.get("mean", value.get("any_hit")))
    return float(value) if isinstance(value, int | float) else None


def _heading(column: str) -> str:
    return column.replace("_", " ")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    known = {**row, "algorithm": "unreadable"} if row["problem"] else row
    return tuple(_cell(known[column]) for column in COLUMNS)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        value = " ".join(value)
    return str(value or "-")


def _print_field(name: str, value: Any) -> None:
    """Print a field of a manifest, one line for each item of a list or an object."""
    print(f"\n{_heading(name)}")
    if isinstance(value, dict):
        lines = [f"{key}: {json.dumps(value[key])}" for key in value]
    else:
        lines = [json.dumps(item) for item in (value if isinstance(value, list) else [value])]
    for line in lines:
        print(f"    {line if len(line) <= 160 else line[:159] + '…'}")


if __name__ == "__main__":
    sys.exit(main())
