"""``python -m edge_sdk``: the device loop from a shell, and a look at the machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.folder import find_pictures
from model_store import cli
from model_store.errors import EnvironmentMissing, UsageError

if TYPE_CHECKING:
    from edge_sdk.client import EdgeClient
    from edge_sdk.stats import Result, Stats
    from model_store import Manifest

__all__ = ["main"]

SCHEMA = "adacompress.run/1"

_CHOICES = ("store", "backend", "alias", "folder", "min_score", "provider", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code."""
    return cli.run(_parser(), argv)


def _parser() -> argparse.ArgumentParser:
    commands = cli.parser("edge_sdk", "Upload pictures for fewer bytes; look at this machine.")
    group = commands.add_subparsers(title="commands", metavar="COMMAND")
    summary = "Process pictures with the device loop."
    run = group.add_parser("run", help=summary, description=summary)
    run.add_argument(
        "--images", required=True, nargs="+", metavar="PATH", help="pictures, or folders of them"
    )
    run.add_argument("--backend", metavar="SPEC", help="baidu://aip.baidubce.com, local:MODEL, …")
    run.add_argument("--store", metavar="DIR", help="the folder of the agents")
    run.add_argument("--config", metavar="FILE", help="a TOML file of choices; ADACOMPRESS_CONFIG")
    run.add_argument("--alias", help="agent to begin with (current)")
    run.add_argument("--folder", metavar="DIR", help="for transitions (beside the store)")
    run.add_argument("--min-score", type=float, help="labels below do not count (0)")
    run.add_argument("--provider", help="cpu, cuda, tensorrt or trt (cpu)")
    run.add_argument("--seed", type=int, help="of every random draw (0)")
    run.add_argument("--json", action="store_true", help="print one JSON object")
    run.set_defaults(handler=_run)
    summary = "Tell whether this machine can run an agent."
    doctor = group.add_parser("doctor", help=summary, description=summary)
    doctor.add_argument("--provider", default="cpu", help="cpu, cuda or tensorrt (%(default)s)")
    doctor.add_argument("--store", metavar="DIR", help="look whether its agent can run here")
    doctor.add_argument("--agent", default="current", metavar="ID", help="which (%(default)s)")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(handler=_doctor)
    return commands


def _run(arguments: argparse.Namespace) -> int:
    from edge_sdk.behind import Inline
    from edge_sdk.client import EdgeClient  # Pillow and the engine's module: not for --help
    from edge_sdk.config import EdgeConfig

    paths = _pictures(arguments.images)
    given = {name: getattr(arguments, name) for name in _CHOICES}
    chosen = {name: value for name, value in given.items() if value is not None}
    config = EdgeConfig.load(arguments.config, **chosen)
    images: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    with EdgeClient(config, behind=Inline()) as client:  # nobody waits for the single answer
        try:
            for path, result, problem in _processed(client, paths):
                if result is None:
                    skipped.append({"path": str(path), "reason": problem})
                    print(f"skipped: {problem}", file=sys.stderr)
                else:
                    images.append(_described(path, result))
        finally:  # also when the service fails or somebody interrupts: it was paid for
            _report(arguments, client.stats(), images, skipped)
    if not images:
        raise UsageError(f"None of the {len(paths)} pictures could be processed; see above.")
    return 0


def _pictures(given: Sequence[str]) -> list[Path]:
    """Return the pictures named or found, in a stable order."""
    paths: list[Path] = []
    for name in given:
        path = Path(name)
        paths += find_pictures(path) if path.is_dir() else [path]
    return paths


def _processed(
    client: EdgeClient, paths: Sequence[Path]
) -> Iterator[tuple[Path, Result | None, str]]:
    from edge_sdk.errors import BackendRejected, ImageError  # see _run

    for path in paths:
        try:
            yield path, client.process(path), ""
        except ImageError as error:
            yield path, None, str(error)
        except BackendRejected as error:
            yield path, None, f"{path}: {error}"


def _described(path: Path, result: Result) -> dict[str, Any]:
    return {
        "path": str(path),
        "labels": [list(label if label.box else label[:2]) for label in result.labels],
        "rung": result.rung.name,
        "as_is": result.as_is,
        "bytes": result.bytes,
        "wire_bytes": result.wire_bytes,
        "uploaded_wire_bytes": result.uploaded_wire_bytes,
        "calls": result.calls,
        "state": result.state.value,
        "agent": result.agent_id,
        "agreement": result.agreement,
        "fallback": result.fallback,
        "milliseconds": {part: round(ms, 3) for part, ms in result.milliseconds.items()},
    }


def _report(
    arguments: argparse.Namespace,
    stats: Stats,
    images: list[dict[str, Any]],
    skipped: list[dict[str, str]],
) -> None:
    if arguments.json:
        counted = {
            name: dict(value) if hasattr(value, "items") else value
            for name, value in _fields(stats).items()
        }
        cli.print_json({"schema": SCHEMA, "images": images, "skipped": skipped, "stats": counted})
        return
    if not images:
        return
    for row in _summary(stats, len(skipped)):
        print(f"{row[0]:<22}{row[1]}")


def _fields(stats: Stats) -> dict[str, Any]:
    return {name: getattr(stats, name) for name in stats.__dataclass_fields__}


def _summary(stats: Stats, skipped: int) -> Iterator[tuple[str, str]]:
    yield "pictures", f"{stats.images}" + (f" ({skipped} skipped)" if skipped else "")
    yield "agent", stats.agent_id or "none: every picture went at the reference"
    yield "file bytes a picture", f"{stats.bytes / stats.images:,.0f}"
    yield "sent bytes a picture", f"{stats.uploaded_wire_bytes / stats.images:,.0f}"
    yield "calls a picture", f"{stats.calls / stats.images:.3f}"
    yield "states", _counts(stats.states)
    for name in ("fallbacks", "skips", "failures", "drops"):
        counts = getattr(stats, name)
        if counts:
            yield name, _counts(counts)


def _counts(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _doctor(arguments: argparse.Namespace) -> int:
    from edge_sdk.doctor import examine, rows  # see _run
    from edge_sdk.engine import PROVIDERS

    if arguments.provider not in PROVIDERS:
        raise UsageError(
            f"Provider {arguments.provider!r} is unknown; allowed are {', '.join(PROVIDERS)}."
        )
    report = examine(arguments.provider, _manifest(arguments))
    if arguments.json:
        cli.print_json(report)
    else:
        for name, value in rows(report):
            print(f"{name:<22}{value}")
    return 0 if report["ok"] else EnvironmentMissing.exit_code


def _manifest(arguments: argparse.Namespace) -> Manifest | None:
    if arguments.store is None:
        return None
    from model_store import StoreReader  # JSON and hashes: not for --help

    return StoreReader(arguments.store).manifest(arguments.agent)


if __name__ == "__main__":
    raise SystemExit(main())
