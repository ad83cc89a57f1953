"""Publishers, a collector and readers in processes of their own, all at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import time
from typing import Any

import pytest

from model_store import Draft, Store
from model_store.files import write_json

#: ADACOMPRESS_CROWD_S=30 asks for the long run, with ten readers.
SECONDS = float(os.environ.get("ADACOMPRESS_CROWD_S", "3"))

#: argv: the store, the end in Unix time, who. A JSON object of counts is printed.
_COMMON = """
import json, sys, time
from pathlib import Path
from model_store import AgentNotFound, Manifest, Store
from model_store.files import read_json
root, end, who = sys.argv[1], float(sys.argv[2]), sys.argv[3]
store = Store(root, lock_timeout_s=60)
"""

_PUBLISHER = (
    _COMMON
    + """
draft = Manifest.from_json(read_json(Path(root) / "draft.json"))
from dataclasses import replace
made = []
while time.time() < end:
    word = f"{who}-{len(made)}"
    mine = replace(draft, versions={"word": word})
    files = {"a.txt": ("card", word.encode() * 5000), "b.txt": ("head", word.encode() * 7000)}
    made.append(store.publish(mine, files, aliases=["current", "by/" + who]).id)
    if len(made) % 5 == 0:
        store.promote(made[-2])
        store.rollback()
print(json.dumps({"published": made}))
"""
)

_READER = (
    _COMMON
    + """
reads = 0
while time.time() < end:
    agent, given_up = store.load_healthy()
    assert not given_up, given_up
    word = agent.manifest.versions["word"]
    assert agent.file("card") == word.encode() * 5000, "torn"
    assert agent.file("head") == word.encode() * 7000, "torn"
    for name in store.aliases().values():
        store.load(name).read("a.txt")
    steps = store.history("current")
    assert steps and all(step.id in store.ids() or len(steps) > 90 for step in steps[-20:])
    reads += 1
print(json.dumps({"reads": reads}))
"""
)

_COLLECTOR = (
    _COMMON
    + """
runs = 0
while time.time() < end:
    store.gc(keep=50, grace_s=3600)
    runs += 1
    for name in store.ids():  # what it left is whole; meanwhile others may write
        store.load(name).read("a.txt")
print(json.dumps({"collected": runs}))
"""
)


def crowd(
    store: Store, draft: Draft, seconds: float, publishers: int, readers: int
) -> dict[str, Any]:
    """Let them loose on a store, and return what they did, summed up."""
    first = store.publish(
        draft,
        {"a.txt": ("card", b"first" * 5000), "b.txt": ("head", b"first" * 7000)},
        aliases=["current"],
    )
    write_json(store.root / "draft.json", first.to_json())
    scripts = [(_PUBLISHER, f"p{number}") for number in range(publishers)]
    scripts += [(_READER, f"r{number}") for number in range(readers)] + [(_COLLECTOR, "gc")]
    end = str(time() + seconds)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(store.root), end, who],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for script, who in scripts
    ]
    done = [worker.communicate(timeout=seconds + 90) for worker in workers]
    for worker, (_, complaint) in zip(workers, done, strict=True):
        assert worker.returncode == 0, complaint
    said = [json.loads(output) for output, _ in done]
    published = {name for one in said for name in one.get("published", ())}
    assert published <= set(store.ids()), "a version was lost"
    assert set(store.ids()) == {*published, first.id}
    assert not any(store.verify().values())
    assert not (store.root / "quarantine").exists()
    assert not [path for path in store.root.rglob(".*") if path.name != ".lock"]
    return {
        "published": len(published),
        "reads": sum(one.get("reads", 0) for one in said),
        "collected": sum(one.get("collected", 0) for one in said),
    }


def test_publishers_readers_and_a_collector_at_once(tmp_path: Path, make_draft: Any) -> None:
    pytest.importorskip("fcntl")
    draft = make_draft(versions={"word": "first"})
    readers = 10 if SECONDS > 3 else 3
    did = crowd(Store(tmp_path / "store"), draft, SECONDS, publishers=2, readers=readers)
    print(did)  # for who runs it longer, with -rP
    assert did["published"] > 2
    assert did["reads"] > 3
