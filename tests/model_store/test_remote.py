"""Pulled and pushed: a folder, a file system in memory, and a real HTTP server."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from model_store import (
    AgentNotFound,
    CorruptAgent,
    EnvironmentMissing,
    ManifestInvalid,
    SchemaTooNew,
    Store,
    Untrusted,
    UsageError,
    signing,
)
from model_store.errors import BackendError
from model_store.files import read_json, write_json
from model_store.remote import Remote, pull, push

Publish = Callable[..., str]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without listings, and counts; some requests go wrong."""

    asked: list[str]
    broken: dict[str, str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        fault = next((how for name, how in self.broken.items() if name in self.path), "")
        if fault == "500":
            self.send_error(500)
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"only this")
        elif fault == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
        elif self.path.endswith("/"):
            self.send_error(403)
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        if self.broken:
            self.send_error(405)
        else:
            super().do_HEAD()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(store: Store) -> Iterator[type[Handler]]:
    """The store behind HTTP; ``url`` is its address."""
    handler = type("Served", (Handler,), {"asked": [], "broken": {}})
    directory = functools.partial(handler, directory=str(store.root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), directory)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["file", "memory", "http"])
def url(request: pytest.FixtureRequest, store: Store, publish: Publish) -> Iterator[str]:
    """Where a store with agents ``a`` and ``b`` can be pulled from; ``b`` is current."""
    publish("a", "scenery/day")
    publish("b", "current")
    if request.param == "file":
        yield store.root.as_uri()
    elif request.param == "http":
        yield request.getfixturevalue("served").url
    else:
        memory = fsspec.filesystem("memory")
        memory.put(str(store.root), "/fleet", recursive=True)
        yield "memory://fleet"
        memory.rm("/fleet", recursive=True)


@pytest.fixture
def device(tmp_path: Path) -> Store:
    return Store(tmp_path / "device")


def blob(store: Store, name: str, role: str = "engine") -> Path:
    [entry] = store.manifest(name).entries(role)
    return store.root / "blobs" / "sha256" / entry.sha256[:2] / entry.sha256


def test_an_agent_is_pulled_by_alias_or_id(store: Store, device: Store, url: str) -> None:
    manifest = pull(url, "current", device, aliases=["current", "scenery/x"])
    assert manifest == store.manifest("current")
    assert device.verify() == {manifest.id: ()}
    assert device.aliases() == {"current": manifest.id, "scenery/x": manifest.id}
    assert device.history("current")[0].reason == f"from {url}"
    first = store.resolve("scenery/day")
    assert pull(url, first, device).id == first
    assert pull(url, "scenery/day", device).id == first
    assert device.resolve("current") == manifest.id


def test_what_is_not_there_is_not_found(device: Store, url: str) -> None:
    for reference in ("nobody", "agent-0123456789ab", "../x", "scenery/none"):
        with pytest.raises(AgentNotFound, match=r"at .* no"):
            pull(url, reference, device)
    assert not device.root.exists()


def test_contents_that_are_here_do_not_travel(
    store: Store, publish: Publish, device: Store, served: Any
) -> None:
    publish("a", "current")
    pull(served.url, "current", device)
    publish("b", "current")
    served.asked.clear()
    pull(served.url, "current", device)
    fetched = [line for line in served.asked if line.startswith("GET /blobs")]
    assert fetched == [f"GET /blobs/sha256/{blob(store, 'current').relative_to(_sha(store))}"]


def _sha(store: Store) -> Path:
    return store.root / "blobs" / "sha256"


def test_a_damaged_content_is_refused_and_nothing_becomes_visible(
    store: Store, device: Store, url: str
) -> None:
    path = blob(store, "current")
    good = path.read_bytes()
    for bad in (good[:-1] + b"?", good[:-1], good + b"?"):
        _put(store, url, path, bad)
        with pytest.raises((CorruptAgent, BackendError)):
            pull(url, "current", device, aliases=["current"])
    _put(store, url, path, None)
    with pytest.raises(CorruptAgent, match="is not at"):
        pull(url, "current", device, aliases=["current"])
    assert (device.ids(), device.aliases()) == ((), {})
    assert [item.name for item in device.root.rglob("*") if item.is_file()] == [".lock"]


def _put(store: Store, url: str, path: Path, content: bytes | None) -> None:
    """Change a file of the remote store."""
    if not url.startswith("memory"):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        return
    memory, there = fsspec.filesystem("memory"), f"/fleet/{path.relative_to(store.root)}"
    memory.rm(there) if content is None else memory.pipe_file(there, content)


def test_documents_that_are_not_right_are_refused(store: Store, device: Store, url: str) -> None:
    path = store.root / "agents" / store.resolve("current") / "manifest.json"
    good = path.read_bytes()
    newer = good.replace(b"adacompress.agent/1", b"adacompress.agent/2")
    for bad, error in (
        (b"{", ManifestInvalid),
        (newer, SchemaTooNew),
        (good.replace(b"bandit", b"dqn"), CorruptAgent),
        (b" " * (8 << 20) + good, ManifestInvalid),
    ):
        _put(store, url, path, bad)
        with pytest.raises(error):
            pull(url, "current", device)
    _put(store, url, store.root / "aliases" / "current.json", b"[]")
    with pytest.raises(ManifestInvalid, match="The document"):
        pull(url, "current", device)
    assert not device.root.exists()


def test_only_the_signed_are_pulled_where_keys_are_trusted(
    store: Store, url: str, tmp_path: Path
) -> None:
    signing.make_key(tmp_path / "fleet.pem")
    device = Store(tmp_path / "device", trusted_keys=tmp_path / "fleet.pem.pub")
    with pytest.raises(Untrusted):
        pull(url, "current", device)
    assert not device.root.exists()
    name = store.resolve("current")
    store.sign(name, tmp_path / "fleet.pem")
    path = store.root / "agents" / name / "signature.json"
    _put(store, url, path, path.read_bytes())
    assert pull(url, "current", device).id == name
    assert device.load(name)


@pytest.mark.parametrize("fault", ["500", "cut", "endless"])
def test_a_server_that_fails_is_told_and_leaves_no_trace(
    publish: Publish, device: Store, served: Any, fault: str
) -> None:
    publish("a", "current")
    for path in ("/aliases", "manifest.json", "/blobs"):
        served.broken = {path: fault}
        with pytest.raises((BackendError, CorruptAgent, ManifestInvalid)) as raised:
            pull(served.url, "current", device, aliases=["current"])
        if fault == "500":
            assert isinstance(raised.value, BackendError)
            assert "(ClientResponseError 500)" in str(raised.value)
    assert device.ids() == ()


def test_nobody_at_the_address_is_an_error_without_secrets(device: Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        with pytest.raises(BackendError) as raised:
            pull(f"http://user:secret@127.0.0.1:{port}/x?token=secret", "current", device)
    assert "secret" not in str(raised.value)
    assert raised.value.exit_code == 6


def test_an_unknown_protocol_is_refused(device: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        pull("gopher://x/y", "current", device)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(EnvironmentMissing, match=r"adacompress\[remote\]"):
        pull("file:///x", "current", device)


@pytest.fixture(params=["file", "memory"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder elsewhere that can be written and is not there yet."""
    if request.param == "file":
        yield (tmp_path / "share" / "agents").as_uri()
    else:
        yield "memory://pushed/agents"
        fsspec.filesystem("memory").rm("/pushed", recursive=True)


def test_what_was_pushed_can_be_pulled(
    store: Store, publish: Publish, device: Store, target: str, tmp_path: Path
) -> None:
    signing.make_key(tmp_path / "fleet.pem")
    first, second = publish("a"), publish("b", "current")
    store.sign(second, tmp_path / "fleet.pem")
    assert push(store, first, target, aliases=["current"]).id == first
    push(store, "current", target, aliases=["current", "scenery/day"], clock=lambda: 2e9)
    push(store, "current", target, aliases=["current"])
    pull(target, "current", device)
    pull(target, first, device)
    assert set(device.ids()) == {first, second}
    assert not any(device.verify().values())
    assert device.signatures(second) == store.signatures(second)
    steps = Remote(target)._steps("current")
    assert [step.id for step in steps] == [first, second]
    assert steps[-1].at == "2033-05-18T03:33:20Z"
    if target.startswith("file"):
        folder = Path(target.removeprefix("file://"))
        assert Store(folder).load("current").id == second
        assert not list(folder.rglob(".*"))


def test_only_missing_or_partial_contents_are_pushed(
    store: Store, publish: Publish, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = Remote.write

    def counted(self: Remote, path: str, data: bytes) -> None:
        written.append(path.partition("/")[0])
        write(self, path, data)

    monkeypatch.setattr(Remote, "write", counted)
    push(store, publish("a"), target)
    assert written == ["blobs", "blobs", "agents"]
    written.clear()
    name = publish("b")
    push(store, name, target)
    assert written == ["blobs", "agents"]
    written.clear()
    remote = Remote(target)
    remote.write(f"blobs/sha256/{blob(store, name).relative_to(_sha(store))}", b"torn")
    written.clear()
    push(store, name, target)
    assert written == ["blobs", "agents"]


def test_where_nothing_can_be_written_it_says_so(
    store: Store, publish: Publish, served: Any, tmp_path: Path
) -> None:
    name = publish("a")
    with pytest.raises(BackendError, match=r"failed at blobs"):
        push(store, name, served.url + "/elsewhere")
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(BackendError, match=r"NotADirectoryError|FileExistsError"):
        push(store, name, (tmp_path / "file" / "x").as_uri())


def test_a_damaged_agent_is_not_pushed(store: Store, publish: Publish, tmp_path: Path) -> None:
    name = publish("a")
    blob(store, name).write_bytes(b"?")
    target = tmp_path / "share"
    with pytest.raises(CorruptAgent):
        push(store, name, target.as_uri(), aliases=["current"])
    assert not (target / "agents").exists()


def test_an_agent_is_taken_from_a_store_on_a_share_that_was_copied(
    store: Store, publish: Publish, device: Store, tmp_path: Path
) -> None:
    name = publish("a", "current")
    shutil.copytree(store.root, tmp_path / "copy")
    assert pull(str(tmp_path / "copy"), "current", device).id == name
    document = read_json(tmp_path / "copy" / "aliases" / "current.json")
    write_json(tmp_path / "copy" / "aliases" / "evil.json", document | {"id": "../../x"})
    with pytest.raises(ManifestInvalid):
        pull(str(tmp_path / "copy"), "evil", device)
