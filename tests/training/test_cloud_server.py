"""The local cloud over real sockets, in a thread and in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from edge_sdk import codec
from edge_sdk.backends import open_backend
from edge_sdk.backends.baidu import RECOGNIZE_PATH, TOKEN_PATH, BaiduBackend
from edge_sdk.backends.base import Label
from edge_sdk.backends.http import HttpClient
from edge_sdk.errors import BackendAuth, BackendUnavailable
from edge_sdk.ladder import REFERENCE
from model_store.errors import EnvironmentMissing, UsageError
from training.assets import find
from training.cloud import process
from training.cloud.models import open_classifier
from training.cloud.process import CloudProcess
from training.cloud.server import CloudServer

ROOT = Path(__file__).parents[2]
JPEG = codec.encode(Image.effect_noise((64, 48), 80).convert("RGB"), REFERENCE)


class Stub:
    name = "stub"
    version = "stub@1"

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        return (Label(f"{len(jpeg)} bytes", 1 / 3), Label("cat", 0.25))


@pytest.fixture
def server() -> Iterator[CloudServer]:
    with CloudServer(Stub()) as running:
        yield running


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADACOMPRESS_BAIDU_API_KEY", raising=False)


def test_the_sdks_client_gets_the_models_answer(server: CloudServer) -> None:
    backend = open_backend(server.spec)

    answer = backend.recognize(JPEG)
    backend.close()

    assert answer.labels == Stub().answer(JPEG)  # scores survive JSON to the last bit
    assert answer.model_version == "stub@1"
    assert answer.request_id.isdecimal()


def test_the_model_is_known_before_the_first_upload(server: CloudServer) -> None:
    backend = BaiduBackend(server.url, keys=lambda: ("any", "pair"))

    assert backend.model_version() == "stub@1"
    backend.close()


def test_a_server_with_keys_refuses_others() -> None:
    with CloudServer(Stub(), keys=("key", "secret")) as server:
        right = BaiduBackend(server.url, keys=lambda: ("key", "secret"))
        wrong = BaiduBackend(server.url, keys=lambda: ("key", "guess"))
        assert right.recognize(JPEG).labels
        with pytest.raises(BackendAuth, match="Client authentication failed"):
            wrong.recognize(JPEG)
        right.close()
        wrong.close()


def test_an_expired_token_is_replaced_by_the_client() -> None:
    now = [1000.0]
    with CloudServer(Stub(), clock=lambda: now[0]) as server:
        backend = BaiduBackend(server.url, keys=lambda: ("k", "s"))
        backend.recognize(JPEG)
        now[0] += 31 * 24 * 3600
        assert backend.recognize(JPEG).labels
        backend.close()


def test_several_clients_are_served_at_once(server: CloudServer) -> None:
    backend = open_backend(server.spec)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(backend.recognize(JPEG).labels))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.close()

    assert answers == [Stub().answer(JPEG)] * 6


def test_a_connection_is_kept_for_several_requests(server: CloudServer) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    sockets = set()
    for _ in range(3):
        connection.request("POST", RECOGNIZE_PATH, body=b"image=")
        response = connection.getresponse()
        assert json.load(response)["error_code"] == 110
        sockets.add(connection.sock)
    connection.close()

    assert len(sockets) == 1


def test_it_ends_although_a_client_keeps_its_connection_open() -> None:
    with CloudServer(Stub()) as server:
        port = int(server.url.rpartition(":")[2])
        client = socket.create_connection(("127.0.0.1", port))
        idle = open_backend(server.spec)
        idle.recognize(JPEG)
    client.close()

    http = HttpClient(server.url, sleep=lambda _seconds: None)
    with pytest.raises(BackendUnavailable):
        BaiduBackend(server.url, keys=lambda: ("k", "s"), http=http).recognize(JPEG)
    idle.close()


def test_a_model_that_fails_is_an_internal_error_and_the_server_goes_on() -> None:
    class Failing(Stub):
        calls = 0

        def answer(self, jpeg: bytes) -> tuple[Label, ...]:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("a bug")
            return super().answer(jpeg)

    with CloudServer(Failing()) as server:
        http = HttpClient(server.url, sleep=lambda _seconds: None)
        backend = BaiduBackend(server.url, keys=lambda: ("k", "s"), http=http)
        assert backend.recognize(JPEG).labels  # 282000 first, then the client's second attempt
        backend.close()


def test_a_client_that_hangs_up_does_not_disturb_the_server(
    server: CloudServer, capfd: pytest.CaptureFixture[str]
) -> None:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n...")

    assert requests.get(server.url, timeout=5).status_code == 404
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Length: 99999999", 413),
        ("Content-Length: -1", 411),
        ("Content-Length: x", 411),
        ("Transfer-Encoding: chunked", 411),
    ],
)
def test_a_body_of_no_sensible_length_is_refused(
    server: CloudServer, headers: str, status: int
) -> None:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"POST {TOKEN_PATH} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())
        answer = client.makefile("rb").read()  # to the end: the server hangs up

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


def test_nothing_is_printed_about_requests(
    server: CloudServer, capfd: pytest.CaptureFixture[str]
) -> None:
    backend = open_backend(server.spec)
    backend.recognize(JPEG)
    backend.close()

    assert capfd.readouterr() == ("", "")


def test_a_port_in_use_is_an_environment_error(server: CloudServer) -> None:
    port = int(server.url.rpartition(":")[2])

    with pytest.raises(EnvironmentMissing, match=f"Port {port} on 127.0.0.1 is in use"):
        CloudServer(Stub(), port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_a_usage_error(port: int) -> None:
    with pytest.raises(UsageError, match="There is no port"):
        CloudServer(Stub(), port)


# A child process that serves a stub through the real command, without weights.
CHILD = """
import sys
from edge_sdk.backends.base import Label
from model_store import cli
from training.cloud import command

class Stub:
    name, version = "stub", "stub@1"
    def answer(self, jpeg):
        return (Label("cat", 0.75),)

command.open_classifier = lambda name: Stub()
parser = cli.parser("training", "test")
command.add_parser(parser.add_subparsers())
sys.exit(cli.run(parser, ["cloud", *sys.argv[1:]]))
"""
COMMAND = (sys.executable, "-c", CHILD)


def test_a_process_serves_and_ends_with_the_block() -> None:
    with CloudProcess("stub", command=COMMAND) as cloud:
        child = cloud._child
        assert child is not None
        assert child.poll() is None
        backend = open_backend(cloud.spec)
        assert backend.recognize(JPEG).labels == (Label("cat", 0.75),)
        assert cloud.model == "stub@1"
        backend.close()

    assert child.returncode == 0


def test_a_process_ends_when_the_block_is_interrupted() -> None:
    children = []

    def work() -> None:
        with CloudProcess("stub", command=COMMAND) as cloud:
            children.append(cloud._child)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert [child and child.returncode for child in children] == [0]


def test_a_process_ends_when_its_starter_is_killed() -> None:
    program = (
        "import sys\n"
        "from training.cloud.process import CloudProcess\n"
        "cloud = CloudProcess('stub', command=(sys.executable, '-c', sys.argv[1]))\n"
        "cloud.__enter__()\n"
        "print(cloud.url, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, CHILD],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline().rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            starter.kill()
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""  # either way the orphan hangs up


@pytest.mark.parametrize(
    ("told", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_the_command_says_when_it_is_ready_and_obeys_signals(
    told: signal.Signals, code: int
) -> None:
    with subprocess.Popen(
        [*COMMAND, "--port", "0"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,  # its end means nothing: a service manager gives this one
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())
        assert requests.get(ready["url"], timeout=5).status_code == 404
        child.send_signal(told)
        assert child.wait(20) == code

    assert ready["ready"] is True
    assert ready["spec"] == f"baidu+{ready['url']}"
    assert ready["model"] == "stub@1"


def test_a_process_on_a_port_in_use_repeats_the_childs_sentence(server: CloudServer) -> None:
    port = int(server.url.rpartition(":")[2])

    with (
        pytest.raises(EnvironmentMissing, match=f"did not start: Port {port} .* is in use"),
        CloudProcess("stub", port, command=COMMAND),
    ):
        pass


def test_a_child_with_a_usage_error_is_a_usage_error() -> None:
    with (
        pytest.raises(UsageError, match="There is no port 70000"),
        CloudProcess("stub", 70000, command=COMMAND),
    ):
        pass


@pytest.mark.parametrize("code", ["raise SystemExit('no reason')", "print('hello')", "pass"])
def test_a_child_that_does_not_serve_is_an_environment_error(code: str) -> None:
    with (
        pytest.raises(EnvironmentMissing, match="did not start: "),
        CloudProcess("stub", command=(sys.executable, "-c", code)),
    ):
        pass


def test_a_stubborn_child_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_END_S", 0.1)
    stubborn = (
        "import signal, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        """print('{"ready": true, "url": "", "spec": "", "model": ""}', flush=True);"""
        "threading.Event().wait()"
    )
    with CloudProcess("stub", command=(sys.executable, "-c", stubborn)) as cloud:
        child = cloud._child

    assert child is not None
    assert child.returncode == -signal.SIGKILL


def test_the_real_command_serves_a_real_model() -> None:
    try:
        find("efficientnet-lite0")
    except EnvironmentMissing as missing:
        pytest.skip(str(missing))
    here = open_classifier("efficientnet-lite0")

    with CloudProcess("efficientnet-lite0") as cloud:
        backend = open_backend(cloud.spec)
        answer = backend.recognize(JPEG)
        backend.close()

    assert cloud.model == answer.model_version == here.version
    assert answer.labels == here.answer(JPEG)
