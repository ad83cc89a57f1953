"""What no alias needs any more: found without a lock, removed by the one writer, in two steps.

Kept are, for each alias, the agents of its latest steps and the parent of the one it points to;
whatever arrived within the grace time, for it may be about to be promoted; and every content that
a kept, waiting or quarantined manifest names.

Readers take no lock, so nothing is taken from under one. An agent that nobody needs is first moved
out of ``agents/`` by one rename, into ``trash/``, with its contents untouched: who loaded it a
moment ago can go on reading. It is removed by a later collection, when it has waited there for the
grace time. Contents that no manifest names are removed at once: no reader can know them, and no
writer is at work, because a collection holds the writers' lock. A collection that is killed leaves
a store that is whole, and the next one goes on.

    trash/SECONDS.ID/        since when it waits, and what
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import AdaCompressError, UsageError
from model_store.files import sync_folder
from model_store.manifest import ID, SCHEMA, Manifest
from model_store.reader import StoreReader
from model_store.schema import read_document

__all__ = ["GRACE_S", "KEEP", "Garbage", "survey", "sweep"]

#: Steps of every alias's history that can be rolled back to after a collection.
KEEP = 10
#: A day: longer than any reader takes to read an agent that it has loaded.
GRACE_S = 24 * 3600.0

_TRASH = re.compile(rf"(\d+)\.({ID.pattern})")
_HASH = re.compile(r"[0-9a-f]{64}")
# What ``files.write_atomic`` leaves when it is killed.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What a collection did, or would do.

    Attributes:
        kept: ids of agents that stay.
        retired: ids that are moved to the trash.
        removed: what is removed from the trash, ``SECONDS.ID``.
        waiting: what stays in the trash for now, ``SECONDS.ID``.
        contents: hashes of the contents that are removed.
        freed_bytes: their size.
        leftovers: temporary files of killed writers that are removed, relative to the store.
        quarantined: ids in the quarantine; nothing is removed there, but its contents stay.
        unreadable: ids whose manifest cannot be read; while there are any, no content is removed,
            because nobody knows which are theirs.
    """

    kept: tuple[str, ...]
    retired: tuple[str, ...]
    removed: tuple[str, ...]
    waiting: tuple[str, ...]
    contents: tuple[str, ...]
    freed_bytes: int
    leftovers: tuple[str, ...]
    quarantined: tuple[str, ...]
    unreadable: tuple[str, ...]


def survey(store: StoreReader, *, now: float, keep: int, grace_s: float) -> Garbage:
    """Find out what a collection would do now; changes nothing.

    Args:
        store: any reader of it.
        now: Unix time in seconds.
        keep: steps of each alias's history whose agents stay.
        grace_s: how long new agents stay in any case, and retired ones wait.

    Raises:
        UsageError: ``keep`` is less than 1, or ``grace_s`` less than 0.
        StoreError: an alias cannot be read, so nobody knows what it needs.
    """
    if keep < 1 or not grace_s >= 0:
        raise UsageError(
            f"keep is {keep} and grace_s {grace_s:g}; allowed are 1 or more, and 0 or more."
        )
    root, ids = store.root, store.ids()
    manifests = {name: _manifest(root / "agents" / name) for name in ids}
    needed = _needed(store, manifests, keep)
    retired = [
        name
        for name in ids
        if manifests[name] and name not in needed and _age(root, name, now) >= grace_s
    ]
    trash = sorted(path.name for path in _listed(root / "trash") if _TRASH.fullmatch(path.name))
    removed = [name for name in trash if now - int(name.partition(".")[0]) >= grace_s]
    waiting = sorted({*trash} - {*removed})
    holding = [root / "agents" / name for name in ids if grace_s or name not in retired]
    holding += [root / "trash" / name for name in waiting]
    holding += (quarantined := [path for path in _listed(root / "quarantine") if path.is_dir()])
    unreadable = tuple(name for name in ids if not manifests[name])
    contents = () if unreadable else tuple(_unnamed(root, map(_manifest, holding)))
    return Garbage(
        kept=tuple(name for name in ids if name not in retired),
        retired=tuple(retired),
        removed=tuple(removed),
        waiting=tuple(waiting),
        contents=tuple(path.name for path in contents),
        freed_bytes=sum(path.stat().st_size for path in contents),
        leftovers=tuple(path.relative_to(root).as_posix() for path in _leftovers(root)),
        quarantined=tuple(sorted(path.name for path in quarantined)),
        unreadable=unreadable,
    )


def sweep(root: Path, garbage: Garbage, *, now: float, grace_s: float) -> None:
    """Do what :func:`survey` found; the caller holds the writers' lock since before that.

    Raises:
        OSError: something cannot be moved or removed; the rest is left for the next collection.
    """
    trash = root / "trash"
    if garbage.retired:
        trash.mkdir(exist_ok=True)
    moved = []
    for name in garbage.retired:
        target = trash / f"{int(max(now, 0))}.{name}"
        _remove(target)  # it was retired, published and retired again within a second
        (root / "agents" / name).rename(target)
        moved.append(target.name)
    sync_folder(root / "agents")
    for name in (*garbage.removed, *(moved if not grace_s else ())):
        _remove(trash / name)
    for sha256 in garbage.contents:  # only now: a manifest never outlives its contents
        (root / "blobs" / "sha256" / sha256[:2] / sha256).unlink(missing_ok=True)
    for path in garbage.leftovers:
        (root / path).unlink(missing_ok=True)


def _needed(store: StoreReader, manifests: dict[str, Manifest | None], keep: int) -> set[str]:
    needed: set[str] = set()
    for alias in store.alias_names():
        steps = store.history(alias)
        needed |= {step.id for step in steps[-keep:]}
        current = manifests.get(steps[-1].id)
        if current is not None and current.parent is not None:
            needed.add(current.parent)
    return needed


def _manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a folder, whoever signed it, or None if it cannot be read."""
    with contextlib.suppress(AdaCompressError, RecursionError):
        document = read_document(folder / "manifest.json", SCHEMA)
        return None if document is None else Manifest.from_json(document)
    return None


def _age(root: Path, name: str, now: float) -> float:
    """Return for how many seconds an agent has been here, wherever it was made."""
    return now - (root / "agents" / name / "manifest.json").stat().st_mtime


def _unnamed(root: Path, manifests: Iterable[Manifest | None]) -> Iterator[Path]:
    named = {entry.sha256 for manifest in manifests if manifest for entry in manifest.files}
    for folder in _listed(root / "blobs" / "sha256"):
        for path in _listed(folder):
            if _HASH.fullmatch(path.name) and path.name not in named:
                yield path


def _leftovers(root: Path) -> Iterator[Path]:
    for folder in (root / "aliases", root / "agents"):
        for path in sorted(folder.rglob(".*")):
            if _TEMPORARY.fullmatch(path.name) and path.is_file():
                yield path


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
