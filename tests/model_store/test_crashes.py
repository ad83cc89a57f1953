"""SIGKILL before every change of the file system that a write makes, and after the last.

A helper process forks a child for each point. In the child an audit hook counts the changes (opens
for writing, renames, removals, new folders; syncs too) and kills the child before the N-th.
Whatever is left must be a store: the old state or the new one, and the next write goes through.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store import Store, StoreError, signing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

Publish = Callable[..., str]

#: argv: template store, folder for copies, operation, its argument. Prints the points as JSON.
_HELPER = """
import json, os, shutil, signal, sys
from pathlib import Path
import model_store
from model_store import Manifest, Store, signing
from model_store.files import read_json

template, folder, operation, argument = sys.argv[1:]
OPERATIONS = {
    "publish": lambda store: store.publish(
        Manifest.from_json(read_json(Path(argument) / "manifest.json")),
        {"engine.onnx": ("engine", Path(argument) / "engine.onnx"), "c": ("card", b"new card")},
        aliases=["current", "scenery/night"],
    ),
    "promote": lambda store: store.promote(argument),
    "rollback": lambda store: store.rollback(),
    "unpack": lambda store: store.unpack(argument, aliases=["current"]),
    "sign": lambda store: store.sign("current", argument),
    "mend": lambda store: store.publish(
        store.manifest("current"), {"engine.onnx": ("engine", Path(argument)), "extra/card.md":
        ("card", b"the same in all")},
    ),
    "gc": lambda store: store.gc(keep=1, grace_s=0),
    "retire": lambda store: store.gc(keep=1, grace_s=60),
    "heal": lambda store: store.load_healthy(),
}
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}

def run(number, root):
    seen = []
    def step(what, path=""):
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(what + " " + os.path.basename(str(path)))
    def hook(event, arguments):
        if event in CHANGES:
            step(event, arguments[0])
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            step(event, arguments[0])
    sync = os.fsync
    def counted(descriptor):
        step("os.fsync")
        sync(descriptor)
    os.fsync = counted
    store = Store(root, clock=lambda: 4e9)
    sys.addaudithook(hook)
    OPERATIONS[operation](store)
    number = -1
    (Path(folder) / "points.json").write_text(json.dumps(seen))

number = 0
while True:
    root = Path(folder) / str(number)
    shutil.copytree(template, root, symlinks=True)
    child = os.fork()
    if not child:
        try:
            run(number, root)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(3)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
    number += 1
print(number)
"""


def crash(store: Store, folder: Path, operation: str, argument: str = "") -> list[Path]:
    """Return one store for each point at which the operation was killed, and the finished one."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _HELPER, str(store.root), str(folder), operation, argument],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    points = json.loads((folder / "points.json").read_text())
    assert len(points) == int(done.stdout)
    return [folder / str(number) for number in range(len(points) + 1)]


def state(store: Store) -> tuple[dict[str, str], tuple[str, ...]]:
    return store.aliases(), store.ids()


def check_whole(root: Path) -> Store:
    """Open a store and see that whatever is visible in it is whole."""
    store = Store(root)
    assert not any(store.verify().values()), store.verify()
    for alias in store.aliases():
        agent, given_up = store.load_healthy(alias)
        assert given_up == ()
        assert agent.problems() == ()
    return store


def check_clean(store: Store) -> None:
    """After one more collection nothing of a killed writer is left."""
    store.gc(keep=100, grace_s=10)
    assert not (store.root / "staging").exists()
    assert not [path for path in store.root.rglob(".*") if path.name != ".lock"]
    assert store.gc(keep=100, dry_run=True, grace_s=10).contents == ()
    assert not any(store.verify().values())


@pytest.fixture
def agents(publish: Publish) -> list[str]:
    return [publish(word, "current") for word in "abc"]


def test_publish(store: Store, publish: Publish, agents: list[str], tmp_path: Path) -> None:
    source, other = tmp_path / "source", Store(tmp_path / "other")
    source.mkdir()
    manifest = store.manifest(agents[0])
    shutil.copy(store.root / "agents" / agents[0] / "manifest.json", source / "manifest.json")
    (source / "engine.onnx").write_bytes(store.load(agents[2]).file("engine"))
    files = {"engine.onnx": ("engine", source / "engine.onnx"), "c": ("card", b"new card")}
    new = other.publish(manifest, files).id  # type: ignore[arg-type]
    before = state(store)[0]
    roots = crash(store, tmp_path / "crashes", "publish", str(source))
    assert len(roots) > 20
    aliases = []
    for root in roots:
        crashed = check_whole(root)
        assert set(crashed.ids()) in ({*agents}, {*agents, new})
        aliases.append(crashed.aliases())
        assert crashed.publish(manifest, files, aliases=["current"]).id == new  # type: ignore[arg-type]
        assert crashed.load("current").read("c") == b"new card"
        check_clean(crashed)
    assert aliases[0] == before
    assert aliases[-1] == {"current": new, "scenery/night": new}
    assert all(one in (before, {"current": new}, aliases[-1]) for one in aliases)


@pytest.mark.parametrize("operation", ["promote", "rollback"])
def test_moving_an_alias(store: Store, agents: list[str], tmp_path: Path, operation: str) -> None:
    target = agents[0] if operation == "promote" else agents[1]
    before = store.history("current")
    seen = set()
    for root in crash(store, tmp_path / "crashes", operation, target):
        crashed = check_whole(root)
        steps = crashed.history("current")
        seen.add(steps)
        assert steps == before or steps[-1].id == target
        assert crashed.promote(agents[1]) == agents[1]
        check_clean(crashed)
    assert len(seen) == 2


def test_unpack(store: Store, publish: Publish, agents: list[str], tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    bundle = tmp_path / "agent.zip"
    new = elsewhere.publish(store.manifest(agents[0]), {"d": ("card", b"other")}).id
    elsewhere.pack(new, bundle)
    for root in crash(store, tmp_path / "crashes", "unpack", str(bundle)):
        crashed = check_whole(root)
        assert crashed.resolve("current") in (agents[2], new)
        assert crashed.unpack(bundle, aliases=["current"]).id == new
        assert check_whole(root).load("current").read("d") == b"other"
        check_clean(crashed)


@pytest.mark.parametrize("operation", ["gc", "retire"])
def test_collecting(store: Store, agents: list[str], tmp_path: Path, operation: str) -> None:
    for root in crash(store, tmp_path / "crashes", operation):
        crashed = check_whole(root)
        assert crashed.resolve("current") == agents[2]
        assert set(crashed.ids()) <= {*agents}
        crashed.gc(keep=1, grace_s=0)
        crashed = Store(root, clock=lambda: 4e9)
        crashed.gc(keep=1, grace_s=0)
        assert crashed.ids() == (agents[2],)
        assert not list((root / "trash").iterdir())
        named = {entry.sha256 for entry in crashed.manifest("current").files}
        blobs = (root / "blobs").rglob("*")
        assert {path.name for path in blobs if path.is_file()} == named
        check_clean(crashed)


def test_giving_up_a_damaged_agent(
    store: Store, publish: Publish, agents: list[str], tmp_path: Path
) -> None:
    sha256 = store.manifest(agents[2]).entries("engine")[0].sha256
    (store.root / "blobs" / "sha256" / sha256[:2] / sha256).write_bytes(b"damaged")
    for root in crash(store, tmp_path / "crashes", "heal"):
        crashed = Store(root)
        agent, _ = crashed.load_healthy()
        assert agent.id == agents[1]
        assert agent.problems() == ()
        kept = root / "quarantine" / agents[2]
        assert (kept / "manifest.json").exists()
        with pytest.raises(StoreError):
            crashed.load(agents[2])
        assert crashed.publish(
            store.manifest(agents[2]),
            {"engine.onnx": ("engine", store.load(agents[0]).file("engine"))},
        )
        assert check_whole(root).resolve("current") == agents[1]


def test_signing(store: Store, agents: list[str], tmp_path: Path) -> None:
    signing.make_key(tmp_path / "key.pem")
    store.sign("current", tmp_path / "key.pem")
    signing.make_key(tmp_path / "second.pem")
    counts = []
    for root in crash(store, tmp_path / "crashes", "sign", str(tmp_path / "second.pem")):
        crashed = check_whole(root)
        counts.append(len(crashed.signatures("current")))
        assert Store(root, trusted_keys=tmp_path / "key.pem.pub").load("current")
        crashed.sign("current", tmp_path / "second.pem")
        assert len(crashed.signatures("current")) == 2
        check_clean(crashed)
    assert counts == sorted(counts)
    assert set(counts) == {1, 2}


def test_mending_a_damaged_agent(store: Store, agents: list[str], tmp_path: Path) -> None:
    engine = tmp_path / "engine.onnx"
    engine.write_bytes(store.load("current").file("engine"))
    sha256 = store.manifest("current").entries("engine")[0].sha256
    (store.root / "blobs" / "sha256" / sha256[:2] / sha256).write_bytes(b"damaged")
    files = {
        "engine.onnx": ("engine", engine),
        "extra/card.md": ("card", b"the same in all"),
    }
    manifest = store.manifest("current")
    found = set()
    for root in crash(store, tmp_path / "crashes", "mend", str(engine)):
        agent, _ = Store(root).load_healthy()
        assert agent.problems() == ()
        found.add(agent.id)
        crashed = Store(root)
        crashed.publish(manifest, files, aliases=["current"])
        assert check_whole(root).resolve("current") == agents[2]
        check_clean(crashed)
    assert found == {agents[1], agents[2]}
