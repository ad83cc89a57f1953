from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

import model_store
from model_store import (
    AgentNotFound,
    Draft,
    EnvironmentMissing,
    ManifestInvalid,
    Store,
    StoreError,
    UsageError,
)

MakeDraft = Callable[..., Draft]
MakeModel = Callable[..., bytes]
Publish = Callable[..., str]
Files = dict[str, tuple[str, bytes | Path]]

ENGINE: Files = {"engine.onnx": ("head", b"engine")}


def contents(store: Store) -> list[str]:
    """Everything that a publication leaves visible."""
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


def test_what_was_published_can_be_loaded_by_alias_id_and_prefix(
    store: Store, make_draft: MakeDraft, make_model: MakeModel, tmp_path: Path
) -> None:
    engine = tmp_path / "engine.onnx"
    engine.write_bytes(make_model("night"))
    draft = make_draft(scenery={"name": "night", "signature": None})
    files: Files = {
        "probe/p.onnx": ("probe", make_model("probe")),
        "engine.onnx": ("engine", engine),
    }
    manifest = store.publish(draft, files, aliases=["current", "scenery/night"])
    for reference in ("current", "scenery/night", manifest.id, manifest.id[:8]):
        agent = store.load(reference)
        assert agent.manifest == manifest
        assert agent.file("engine") == agent.read("engine.onnx") == engine.read_bytes()
    assert agent.file("probe") == make_model("probe")
    assert manifest.created == "2033-05-18T03:33:20Z"
    assert manifest.id.startswith("night-")
    assert [entry.path for entry in manifest.files] == ["engine.onnx", "probe/p.onnx"]
    assert store.aliases() == {"current": manifest.id, "scenery/night": manifest.id}
    assert store.verify() == {manifest.id: ()}


def test_publishing_the_same_again_returns_the_first(store: Store, make_draft: MakeDraft) -> None:
    first = store.publish(make_draft(), ENGINE)
    before = contents(store)
    assert store.publish(make_draft(), ENGINE) == first
    assert store.publish(first, ENGINE) == first
    assert contents(store) == before


def test_equal_contents_are_kept_once(store: Store, publish: Publish) -> None:
    publish("a")
    publish("b")
    blobs = [path for path in (store.root / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 3  # two engines, one card


def test_an_agent_without_files_is_an_agent(store: Store, make_draft: MakeDraft) -> None:
    assert store.load(store.publish(make_draft(), {}).id).manifest.files == ()


def test_asking_for_a_file_that_is_not_there_lists_what_is(store: Store, publish: Publish) -> None:
    agent = store.load(publish("a"))
    with pytest.raises(UsageError, match=r"no file 'x'; its files are engine\.onnx, extra/card"):
        agent.read("x")
    with pytest.raises(UsageError, match="no file as 'probe'; its roles are card, engine"):
        agent.file("probe")


def test_several_files_of_a_role_are_read_by_path(store: Store, make_draft: MakeDraft) -> None:
    files: Files = {"a.onnx": ("head", b"a"), "b.onnx": ("head", b"b")}
    agent = store.load(store.publish(make_draft(), files).id)
    with pytest.raises(UsageError, match=r"has a\.onnx, b\.onnx as 'head'"):
        agent.file("head")
    assert agent.read("b.onnx") == b"b"


@pytest.mark.parametrize(
    "reference", ["", "nobody", "../agents", "agent-000000000000", "scenery/x"]
)
def test_an_unknown_reference_lists_what_there_is(
    store: Store, publish: Publish, reference: str
) -> None:
    name = publish("a", "current")
    with pytest.raises(AgentNotFound) as raised:
        store.resolve(reference)
    assert raised.value.known == ("current", name)


def test_an_ambiguous_prefix_is_refused(store: Store, publish: Publish) -> None:
    names = {publish("a"), publish("b")}
    with pytest.raises(UsageError, match="the start of 2 ids") as raised:
        store.resolve("agent-")
    assert all(name in str(raised.value) for name in names)


@pytest.mark.parametrize("path", ["../../aliases/current.json", "/etc/passwd", "a\\b", "a/../b"])
def test_a_path_out_of_the_agent_is_refused_before_anything_is_written(
    store: Store, make_draft: MakeDraft, path: str
) -> None:
    with pytest.raises(ManifestInvalid, match="a relative path"):
        store.publish(make_draft(), {path: ("head", b"x")})
    assert not store.root.exists()


@pytest.mark.parametrize("alias", ["", "../x", "/x", "a//b", "a.json/b", "night-0123456789ab"])
def test_an_alias_that_cannot_be_a_file_or_hides_an_agent_is_refused(
    store: Store, make_draft: MakeDraft, alias: str
) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        store.publish(make_draft(), ENGINE, aliases=[alias])
    with pytest.raises(UsageError, match="cannot be used"):
        store.promote("x", alias)
    assert not store.root.exists()


def test_an_empty_store_answers(tmp_path: Path) -> None:
    store = Store(tmp_path / "nowhere")
    assert (store.ids(), store.aliases(), store.verify()) == ((), {}, {})
    with pytest.raises(AgentNotFound, match="the store is empty"):
        store.load_healthy()


def test_promote_moves_an_alias_and_keeps_the_way_back(store: Store, publish: Publish) -> None:
    first, second = publish("a", "current"), publish("b")
    assert store.promote(second[:10], reason="better at night") == second
    store.promote(second)  # again: no second step
    steps = store.history("current")
    assert [(step.id, step.reason) for step in steps] == [
        (first, "published"),
        (second, "better at night"),
    ]
    assert steps[0].at < steps[1].at


def test_rollback_goes_one_step_back_until_there_is_none(store: Store, publish: Publish) -> None:
    first, second, third = (publish(word, "current") for word in "abc")
    assert (store.rollback(), store.rollback()) == (second, first)
    with pytest.raises(StoreError, match=f"nothing to roll back to: no agent before {first}"):
        store.rollback()
    assert store.resolve("current") == first
    assert third in store.ids()


def test_rolling_back_an_unknown_alias_lists_what_there_is(store: Store, publish: Publish) -> None:
    publish("a", "current")
    with pytest.raises(AgentNotFound, match="'scenery/day'"):
        store.rollback("scenery/day")


def test_the_history_stays_short(tmp_path: Path, publish: Publish, store: Store) -> None:
    names = [publish("a"), publish("b")]
    for number in range(110):
        store.promote(names[number % 2])
    assert len(store.history("current")) == 100
    assert store.resolve("current") == names[1]


def test_a_damaged_alias_is_told_and_a_promotion_mends_it(store: Store, publish: Publish) -> None:
    name = publish("a", "current", "scenery/day")
    path = store.root / "aliases" / "current.json"
    path.write_text(path.read_text().replace(name, "agent-000000000000", 1))
    with pytest.raises(ManifestInvalid, match="alias 'current' is damaged"):
        store.resolve("current")
    assert store.aliases() == {"scenery/day": name}
    assert store.verify()["current"][0].kind == "bad alias"
    store.promote(name)
    assert store.resolve("current") == name
    assert store.verify() == {name: ()}


class FailsHalfway(Mapping[str, tuple[str, bytes | Path]]):
    """A mapping that is interrupted before its last item."""

    def __getitem__(self, path: str) -> tuple[str, bytes | Path]:
        if path == "b":
            raise KeyboardInterrupt
        return "head", b"x"

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


def test_an_interrupted_publication_leaves_nothing(store: Store, make_draft: MakeDraft) -> None:
    with pytest.raises(KeyboardInterrupt):
        store.publish(make_draft(), FailsHalfway())
    assert not store.root.exists()


def test_a_source_that_cannot_be_read_leaves_nothing(
    store: Store, make_draft: MakeDraft, tmp_path: Path
) -> None:
    files: Files = {"a": ("head", b"a"), "b": ("probe", tmp_path / "missing")}
    with pytest.raises(UsageError, match="missing cannot be read"):
        store.publish(make_draft(), files, aliases=["current"])
    assert contents(store) == [".lock"]
    assert not (store.root / "staging").exists()


_KILLED = """
import os, signal, sys
from pathlib import Path
from model_store import Manifest, Store
from model_store.files import read_json
manifest = Manifest.from_json(read_json(Path(sys.argv[2])))
# The clock is asked when the files are staged and nothing is visible yet.
store = Store(sys.argv[1], clock=lambda: os.kill(os.getpid(), signal.SIGKILL))
store.publish(manifest, {"engine.onnx": ("head", b"engine")}, aliases=["current"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_writer_that_is_killed_leaves_nothing_visible_and_no_lock(
    store: Store, make_draft: MakeDraft, tmp_path: Path
) -> None:
    document = tmp_path / "manifest.json"
    manifest = make_draft().complete(created="2031-01-01T00:00:00Z", files=())
    model_store.files.write_json(document, manifest.to_json())
    arguments = [sys.executable, "-c", _KILLED, str(store.root), str(document)]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert list((store.root / "staging").iterdir())
    assert (store.ids(), store.aliases(), store.verify()) == ((), {}, {})
    published = store.publish(make_draft(), ENGINE, aliases=["current"])
    assert store.load("current").file("head") == b"engine"
    assert store.verify() == {published.id: ()}
    assert not (store.root / "staging").exists()


def test_what_killed_writers_left_is_swept_and_a_torn_content_is_mended(
    store: Store, make_draft: MakeDraft
) -> None:
    published = store.publish(make_draft(), ENGINE)
    entry = published.files[0]
    (store.root / "blobs" / "sha256" / entry.sha256[:2] / entry.sha256).write_bytes(b"eng")
    (store.root / "staging" / "agent").mkdir(parents=True)
    (store.root / "staging" / "0").write_bytes(b"half")
    assert store.publish(make_draft(), ENGINE) == published
    assert store.verify() == {published.id: ()}
    assert not (store.root / "staging").exists()


def test_a_store_that_cannot_be_written_says_so_in_a_sentence(
    tmp_path: Path, make_draft: MakeDraft
) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = Store(tmp_path / "file" / "store")
    assert store.ids() == ()
    with pytest.raises(EnvironmentMissing, match=r"store cannot be written \(Not a directory\)"):
        store.publish(make_draft(), ENGINE)


def test_another_writer_is_waited_for_until_the_deadline(
    store: Store, make_draft: MakeDraft
) -> None:
    pytest.importorskip("fcntl")
    store.publish(make_draft(), ENGINE, aliases=["current"])
    hasty = Store(store.root, lock_timeout_s=0)
    with model_store.locking.exclusive(store.root / ".lock", timeout_s=0):
        with pytest.raises(EnvironmentMissing, match="Another process"):
            hasty.publish(make_draft(), ENGINE)
        assert hasty.load_healthy()[0].file("head") == b"engine"


def test_threads_publish_at_once_while_others_read(store: Store, make_draft: MakeDraft) -> None:
    failures: list[BaseException] = []
    done = threading.Event()

    def write(word: str) -> None:
        for version in ("same", word):
            files: Files = {"engine.onnx": ("head", version.encode() * 1000)}
            mine = Store(store.root)
            mine.publish(make_draft(versions={"word": version}), files, aliases=["current", word])

    def read() -> None:
        while not done.is_set():
            for name in store.ids():
                engine = store.load(name).file("head")
                assert engine == store.manifest(name).versions["word"].encode() * 1000
            assert set(store.aliases().values()) <= set(store.ids())

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=guarded, args=(read,))
    words = [f"writer{number}" for number in range(6)]
    writers = [
        threading.Thread(target=guarded, args=(lambda word=word: write(word),)) for word in words
    ]
    reader.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join(30)
    done.set()
    reader.join(30)
    assert failures == []
    assert len(store.ids()) == 7
    assert set(store.aliases()) == {"current", *words}
    assert not any(store.verify().values())
    assert {step.id for step in store.history("current")} == set(store.ids())


def test_the_package_imports_the_standard_library_alone() -> None:
    code = (
        "import sys; before = set(sys.modules); import model_store\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert set(printed.split()) - set(sys.stdlib_module_names) == {"model_store"}


def test_every_public_name_is_there() -> None:
    assert sorted(model_store.__all__) == model_store.__all__
    assert all(hasattr(model_store, name) for name in model_store.__all__)
