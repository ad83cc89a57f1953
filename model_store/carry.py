"""Sub-commands that bring agents in and out, sign them, and remove what nobody needs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model_store import remote, signing
from model_store.errors import UsageError
from model_store.garbage import GRACE_S, KEEP, Garbage
from model_store.manifest import SCHEMA, Draft, Manifest, draft_from_json
from model_store.printing import document, next_command, open_store, table
from model_store.schema import read_document

__all__ = ["AGENT", "add_commands", "add_keygen"]

AGENT = "an alias, an id, or the start of an id"

Add = Callable[[str, Callable[..., int], str], argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    """Add the sub-commands that work on a store."""
    publish = add("publish", _publish, "Add an agent from a manifest and files.")
    publish.add_argument("manifest", metavar="MANIFEST", help="JSON; its id and files are made new")
    publish.add_argument("--file", action="append", default=[], metavar="ROLE=FILE", dest="files")
    publish.add_argument("--signing-key", metavar="FILE", help="a private key to sign it with")
    gc = add("gc", _gc, "Remove agents and contents that no alias needs.")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be done")
    keep = "agents of each alias's history that stay (%(default)s)"
    gc.add_argument("--keep", type=int, default=KEEP, metavar="N", help=keep)
    grace = "how long new agents stay, and old ones wait in the trash (%(default)g)"
    gc.add_argument("--grace-hours", type=float, default=GRACE_S / 3600, metavar="H", help=grace)
    pack = add("pack", _pack, "Write an agent into one file.")
    pack.add_argument("agent", metavar="ID", help=AGENT)
    pack.add_argument("bundle", metavar="FILE", help="the file to write, as in night.zip")
    unpack = add("unpack", _unpack, "Take the agent of such a file, if all of it is right.")
    unpack.add_argument("bundle", metavar="FILE", help="what pack wrote")
    pull = add("pull", _pull, "Take an agent from a store elsewhere.")
    pull.add_argument("url", metavar="URL", help="its folder: https://, s3://, file://, …")
    pull.add_argument("agent", metavar="ID", help="an alias there, or a full id")
    push = add("push", _push, "Copy an agent into a store elsewhere.")
    push.add_argument("agent", metavar="ID", help=AGENT)
    push.add_argument("url", metavar="URL", help="its folder, on what can be written to")
    for command in (publish, unpack, pull, push):
        whose = "there" if command is push else "here"
        command.add_argument(
            "--alias",
            action="append",
            default=[],
            dest="aliases",
            metavar="NAME",
            help=f"point this alias {whose} to the agent; may be repeated",
        )
    sign = add("sign", _sign, "Add a signature to an agent.")
    sign.add_argument("agent", metavar="ID", help=AGENT)
    sign.add_argument("--key", required=True, metavar="FILE", help="a private key, see keygen")


def add_keygen(group: Any) -> None:
    """Add the sub-command that needs no store."""
    summary = "Make a pair of keys: FILE, which is secret, and FILE.pub for trusted keys."
    keygen = group.add_parser("keygen", help=summary, description=summary)
    keygen.add_argument("key", metavar="FILE")
    keygen.add_argument("--json", action="store_true", help="print one JSON object")
    keygen.set_defaults(handler=_keygen)


def _publish(arguments: argparse.Namespace) -> int:
    files = dict(map(_file, arguments.files))
    if len(files) < len(arguments.files):
        raise UsageError("Two of the files have one name; an agent holds each name once.")
    store = open_store(arguments, new=True)
    manifest = store.publish(_draft(Path(arguments.manifest)), files, aliases=arguments.aliases)
    return _told(arguments, "publish", manifest, arguments.aliases)


def _draft(path: Path) -> Draft:
    found = read_document(path, SCHEMA)
    if found is None:
        raise UsageError(f"There is no file {path}; name a manifest, as `show --json` prints one.")
    return draft_from_json(found)


def _file(given: str) -> tuple[str, tuple[str, bytes | Path]]:
    role, separator, name = given.partition("=")
    if not separator or not name:
        raise UsageError(f"The file {given!r} has no role; write it as engine=engine.onnx.")
    return Path(name).name, (role, Path(name))


def _gc(arguments: argparse.Namespace) -> int:
    garbage = open_store(arguments).gc(
        keep=arguments.keep, grace_s=arguments.grace_hours * 3600, dry_run=arguments.dry_run
    )
    if arguments.json:
        found = {name: getattr(garbage, name) for name in garbage.__dataclass_fields__}
        return document("gc", ok=True, dry_run=arguments.dry_run, **found)
    table([("", "count", "what"), *_garbage_rows(garbage)])
    if garbage.unreadable:
        print(
            "No content was removed, because nobody knows which are those of the unreadable; "
            "publish or unpack them again, or move their folders away."
        )
    if arguments.dry_run:
        print("Nothing was done.")
    next_command(arguments, "gc" if arguments.dry_run else "verify")
    return 0


def _garbage_rows(garbage: Garbage) -> list[tuple[str, str, str]]:
    rows = [
        (name, str(len(found)), " ".join(found[:8]) + (" …" if len(found) > 8 else ""))
        for name, found in vars(garbage).items()
        if isinstance(found, tuple) and name != "contents"
    ]
    freed = f"{garbage.freed_bytes:,} bytes freed"
    return [*rows, ("contents", str(len(garbage.contents)), freed)]


def _pack(arguments: argparse.Namespace) -> int:
    path = Path(arguments.bundle)
    manifest = open_store(arguments).pack(arguments.agent, path)
    size = path.stat().st_size
    if arguments.json:
        return document("pack", ok=True, id=manifest.id, bundle=str(path), bytes=size)
    print(f"{manifest.id} -> {path} ({size:,} bytes)")
    print(f"next: python -m model_store unpack {path} --store DIR")
    return 0


def _unpack(arguments: argparse.Namespace) -> int:
    store = open_store(arguments, new=True)
    manifest = store.unpack(arguments.bundle, aliases=arguments.aliases)
    return _told(arguments, "unpack", manifest, arguments.aliases)


def _pull(arguments: argparse.Namespace) -> int:
    store = open_store(arguments, new=True)
    manifest = remote.pull(arguments.url, arguments.agent, store, aliases=arguments.aliases)
    return _told(arguments, "pull", manifest, arguments.aliases)


def _push(arguments: argparse.Namespace) -> int:
    store = open_store(arguments)
    manifest = remote.push(store, arguments.agent, arguments.url, aliases=arguments.aliases)
    return _told(arguments, "push", manifest, arguments.aliases)


def _sign(arguments: argparse.Namespace) -> int:
    store = open_store(arguments)
    name = store.resolve(arguments.agent)
    signature = store.sign(name, arguments.key)
    if arguments.json:
        return document("sign", ok=True, id=name, key=signature.key)
    print(f"{name} signed by {signature.key}")
    next_command(arguments, f"pack {name} {name}.zip")
    return 0


def _keygen(arguments: argparse.Namespace) -> int:
    public = signing.make_key(Path(arguments.key))
    if arguments.json:
        return document("keygen", ok=True, key=public, path=arguments.key)
    print(f"ed25519 {public}")
    print(f"{arguments.key} is secret; {arguments.key}.pub is a line for --trusted-keys.")
    print(f"next: python -m model_store sign ID --key {arguments.key} --store DIR")
    return 0


def _told(
    arguments: argparse.Namespace, command: str, manifest: Manifest, aliases: Sequence[str]
) -> int:
    if arguments.json:
        return document(command, ok=True, id=manifest.id, aliases=list(aliases))
    print(f"{manifest.id}" + (f" as {', '.join(aliases)}" if aliases else ""))
    next_command(arguments, f"show {manifest.id}")
    return 0
