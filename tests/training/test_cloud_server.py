"""The local cloud over real sockets: what clients get, what is billed, how it ends."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import logging
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_sdk import codec
from edge_sdk.backends import open_backend
from edge_sdk.backends.baidu import RECOGNIZE_PATH, TOKEN_PATH, VERSION_HEADER, BaiduBackend
from edge_sdk.backends.base import Box, Label
from edge_sdk.backends.http import HttpClient, HttpPolicy
from edge_sdk.errors import BackendAuth, BackendUnavailable, ImageError
from edge_sdk.ladder import REFERENCE
from model_store.errors import EnvironmentMissing, UsageError
from training.cloud.dialects import DIALECTS
from training.cloud.dialects.base import Rules
from training.cloud.handler import MAX_BODY
from training.cloud.server import CloudServer
from training.cloud.settings import Settings

JPEG = codec.encode(Image.effect_noise((96, 80), 80).convert("RGB"), REFERENCE)
SHA256 = hashlib.sha256(JPEG).hexdigest()
LABELS = (Label("cat", 0.75), Label("dog", 0.25))

#: The shortest way to an answer: TorchServe's, a file as the body.
PREDICT = "/predictions/default"
PATIENCE_S = 20.0


class Stub:
    name, boxes = "stub", False

    def __init__(self, version: str = "stub@1", labels: tuple[Label, ...] = LABELS) -> None:
        self.version, self.labels = version, labels
        self.looked = 0

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        (labels,) = self.answer_many([jpeg])
        assert not isinstance(labels, ImageError)
        return labels

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        self.looked += len(jpegs)
        return [self.labels] * len(jpegs)


class Gate:
    """A pause that ends when the test says so."""

    def __init__(self) -> None:
        self.inside, self.open = threading.Semaphore(0), threading.Event()
        self.asked: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.inside.release()
        assert self.open.wait(PATIENCE_S)


@pytest.fixture
def server() -> Iterator[CloudServer]:
    with CloudServer(Stub()) as running:
        yield running


def port_of(server: CloudServer) -> int:
    return int(server.url.rpartition(":")[2])


def dial(server: CloudServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(server)), timeout=PATIENCE_S)


def post(server: CloudServer, body: bytes = JPEG, path: str = PREDICT) -> requests.Response:
    return requests.post(server.url + path, data=body, timeout=PATIENCE_S)


def upload(body: bytes = JPEG) -> bytes:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


def once(server: CloudServer) -> HttpClient:
    """A transport that tries once, so that a fault reaches the test."""
    return HttpClient(server.url, policy=HttpPolicy(attempts=1))


# What clients get.


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_sdks_client_gets_the_models_answer_in_every_dialect(
    server: CloudServer, dialect: str
) -> None:
    with contextlib.closing(open_backend(server.spec_of(dialect))) as backend:
        answer = backend.recognize(JPEG)

    names = [label.name for label in answer.labels]
    assert names[0] == "cat"
    assert answer.labels[0].score == pytest.approx(0.75)
    assert answer.model_version == "stub@1"
    assert server.counts()["billed"] == 1


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_are_pixels_of_the_upright_picture(turned: bool) -> None:
    boxed = Stub(labels=(Label("cat", 0.75, Box(20, 10, 60, 40)),))
    jpeg = JPEG
    if turned:  # as a phone writes it: a lying picture and a note to turn it
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = Image.effect_noise((96, 80), 80).convert("RGB")
        path = codec.encode(picture, REFERENCE)
        jpeg = path[:2] + _app1(exif.tobytes()) + path[2:]
    with CloudServer(boxed, dialects=["google"]) as server:
        document = {
            "requests": [
                {
                    "image": {"content": _base64(jpeg)},
                    "features": [{"type": "OBJECT_LOCALIZATION"}],
                }
            ]
        }
        answer = requests.post(server.url + "/v1/images:annotate", json=document, timeout=5).json()

    (found,) = answer["responses"][0]["localizedObjectAnnotations"]
    corner = found["boundingPoly"]["normalizedVertices"][2]
    width, height = (80, 96) if turned else (96, 80)
    assert corner["x"] == pytest.approx(80 / width)
    assert corner["y"] == pytest.approx(50 / height)


def _app1(exif: bytes) -> bytes:
    content = exif if exif.startswith(b"Exif") else b"Exif\x00\x00" + exif
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_the_model_is_known_before_the_first_upload(server: CloudServer) -> None:
    with contextlib.closing(BaiduBackend(server.url, keys=lambda: ("any", "pair"))) as backend:
        assert backend.model_version() == "stub@1"
    assert server.counts() == {"requests": 1, "billed": 0, "token": 1}


def test_a_server_with_keys_refuses_others() -> None:
    rules = Rules(secret=b"x", keys={"baidu": ("key", "secret")})
    with CloudServer(Stub(), rules=rules) as server:
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
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(server).json(), range(40)))

    assert answers == [{"cat": 0.75, "dog": 0.25}] * 40
    assert server.counts() == {"requests": 40, "billed": 40, "answer": 40}


def test_an_unknown_path_is_told_what_is_served(server: CloudServer) -> None:
    answer = requests.get(server.url + "/nowhere?key=secret", timeout=5)

    assert answer.status_code == 404
    assert answer.json()["served"] == server.specs
    assert "GET /nowhere" in answer.json()["error"]
    assert "secret" not in answer.text


def test_only_the_named_dialects_are_spoken() -> None:
    with CloudServer(Stub(), dialects=["torchserve", "azure"]) as server:
        assert list(server.specs) == ["torchserve", "azure"]
        assert server.spec == server.spec_of("torchserve")
        assert post(server).status_code == 200
        assert post(server, b"", TOKEN_PATH).status_code == 404


def test_an_unknown_dialect_is_named_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"no dialect 'rekogniton'.*Did you mean 'rekognition'"):
        CloudServer(Stub(), dialects=["rekogniton"])
    with pytest.raises(UsageError, match="No dialect is named"):
        CloudServer(Stub(), dialects=[])


def test_the_counters_can_be_asked_and_do_not_count_themselves(server: CloudServer) -> None:
    post(server)
    for _ in range(2):
        told = requests.get(server.url + "/_cloud/counts", timeout=5)
        assert told.json() == {"requests": 1, "billed": 1, "answer": 1}


def test_a_head_request_gets_a_head(server: CloudServer) -> None:
    with dial(server) as client:
        client.sendall(b"HEAD /_cloud/counts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = client.makefile("rb").read()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: %d" % len(b'{"requests":0,"billed":0}') in head
    assert body == b""


# HTTP.


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


def test_a_client_that_asks_before_its_body_is_told_to_go_on(server: CloudServer) -> None:
    head, body = upload().split(b"\r\n\r\n", 1)
    with dial(server) as client:
        client.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        answers = client.makefile("rb")
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answers.readline() == b"\r\n"
        client.sendall(body)
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
        answers.close()


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server: CloudServer) -> None:
    asked = f"Content-Length: {MAX_BODY + 1}\r\nExpect: 100-continue"
    with dial(server) as client:
        client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n{asked}\r\n\r\n".encode())
        answer = client.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (f"Content-Length: {MAX_BODY + 1}", 413),
        (f"Content-Length: {'9' * 5000}", 413),
        ("Content-Length: -1", 411),
        ("Content-Length: x", 411),
        ("Transfer-Encoding: chunked", 411),
    ],
)
def test_a_body_of_no_sensible_length_is_refused(
    server: CloudServer, headers: str, status: int
) -> None:
    with dial(server) as client:
        client.sendall(f"POST {TOKEN_PATH} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode())
        answer = client.makefile("rb").read()  # to the end: the server hangs up

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert VERSION_HEADER.encode() in answer
    assert server.counts() == {"requests": 1, "billed": 0, "refused": 1}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"BREW /pot HTTP/1.1\r\n\r\n", 501),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET http://[bad/ HTTP/1.1\r\nConnection: close\r\n\r\n", 404),
    ],
)
def test_what_is_no_http_is_refused_in_json(server: CloudServer, sent: bytes, status: int) -> None:
    with dial(server) as client:
        client.sendall(sent)
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")

    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert json.loads(body)["error"]


@pytest.fixture(scope="module")
def steady() -> Iterator[CloudServer]:
    """One server for all examples."""
    with CloudServer(Stub()) as running:
        yield running


@settings(max_examples=40)
@given(sent=st.binary(max_size=300))
def test_no_bytes_end_the_server(steady: CloudServer, sent: bytes) -> None:
    with dial(steady) as client, contextlib.suppress(ConnectionError):
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        client.recv(1000)

    assert requests.get(steady.url + "/_cloud/counts", timeout=5).ok


def test_a_model_that_fails_is_the_vendors_own_failure_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Stub):
        def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
            if not self.looked:
                self.looked += 1
                raise RuntimeError("a bug")
            return super().answer_many(jpegs)

    with caplog.at_level(logging.CRITICAL), CloudServer(Failing()) as server:
        http = HttpClient(server.url, sleep=lambda _seconds: None)
        backend = BaiduBackend(server.url, keys=lambda: ("k", "s"), http=http)
        assert backend.recognize(JPEG).labels  # 282000 first, then the client's second attempt
        backend.close()
        assert server.counts() == {
            "requests": 3,
            "billed": 1,
            "answer": 1,
            "failed": 1,
            "token": 1,
        }


def test_a_picture_that_breaks_while_it_is_decoded_is_refused_in_the_vendors_way() -> None:
    class Broken(Stub):
        def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
            return [ImageError("broken") for _ in jpegs]

    with CloudServer(Broken()) as server:
        assert post(server).status_code == 400
        assert server.counts() == {"requests": 1, "billed": 0, "refused": 1}


def test_nothing_is_printed_about_requests(
    server: CloudServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with dial(server) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n...")
    with contextlib.closing(open_backend(server.spec)) as backend:
        backend.recognize(JPEG)

    assert capfd.readouterr() == ("", "")


# The log and the bill.


def test_every_request_is_one_line_without_keys(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    clock = iter(range(100, 200))
    with CloudServer(Stub(), log=log, clock=lambda: next(clock)) as server:
        backend = BaiduBackend(server.url, keys=lambda: ("a-key", "a-secret"))
        answer = backend.recognize(JPEG)
        backend.close()
        requests.get(server.url + "/other?key=a-key", timeout=5)

    token, picture, nowhere = lines(log)
    assert (token["n"], token["dialect"], token["what"], token["billed"]) == (
        1,
        "baidu",
        "token",
        False,
    )
    assert picture["what"] == "answer"
    assert picture["billed"] is True
    assert picture["picture"] == SHA256
    assert picture["bytes"] == answer.wire_bytes
    assert picture["model"] == "stub@1"
    assert answer.request_id == str(int(picture["request_id"][:15], 16))
    assert picture["milliseconds"] >= 0
    assert (nowhere["dialect"], nowhere["what"], nowhere["status"]) == (None, "not_found", 404)
    for secret in ("a-key", "a-secret", "access_token", "cat"):
        assert secret not in log.read_text("utf-8")


def test_request_ids_are_the_same_in_every_run_with_the_same_seed(tmp_path: Path) -> None:
    ids = []
    for run, seed in enumerate((1, 1, 2)):
        log = tmp_path / f"{run}.jsonl"
        with CloudServer(Stub(), log=log, settings=Settings(seed=seed)) as server:
            for _ in range(2):
                post(server)
        ids.append([line["request_id"] for line in lines(log)])

    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[0])) == 2


def test_a_client_that_left_while_it_waited_is_not_billed_and_the_model_not_asked(
    tmp_path: Path,
) -> None:
    gate, model, log = Gate(), Stub(), tmp_path / "log.jsonl"
    behaviour = Settings(latency_s=0.5)
    with CloudServer(model, log=log, settings=behaviour, sleep=gate.sleep) as server:
        with dial(server) as client:
            client.sendall(upload())
            gate.inside.acquire()
        gate.open.set()

    (line,) = lines(log)
    assert gate.asked == [0.5]
    assert (line["what"], line["billed"], line["status"]) == ("abandoned", False, None)
    assert line["picture"] == SHA256
    assert model.looked == 0


def test_a_client_that_left_while_the_model_looked_is_not_billed() -> None:
    looking, go = threading.Event(), threading.Event()

    class Slow(Stub):
        def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
            looking.set()
            assert go.wait(PATIENCE_S)
            return super().answer_many(jpegs)

    with CloudServer(Slow()) as server:
        with dial(server) as client:
            client.sendall(upload())
            assert looking.wait(PATIENCE_S)
        go.set()

    assert server.counts() == {"requests": 1, "billed": 0, "abandoned": 1}


def test_half_a_request_is_abandoned() -> None:
    with CloudServer(Stub()) as server, dial(server) as client:
        client.sendall(upload()[:-10])
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""

    assert server.counts() == {"requests": 1, "billed": 0, "abandoned": 1}


def test_a_log_that_cannot_be_written_is_said_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match="request log"):
        CloudServer(Stub(), log=tmp_path).__enter__()


# Trouble.


def test_a_delay_holds_the_answer_back() -> None:
    gate = Gate()
    gate.open.set()
    behaviour = Settings(latency_s=0.5, jitter_s=0.1, seed=3)
    with CloudServer(Stub(), settings=behaviour, sleep=gate.sleep) as server:
        for _ in range(3):
            assert post(server).ok

    assert all(0.4 <= seconds <= 0.6 for seconds in gate.asked)
    assert len(set(gate.asked)) == 3


def test_uploads_over_the_limit_are_throttled_dialect_by_dialect() -> None:
    with CloudServer(Stub(), settings=Settings(qps=2), timer=lambda: 0.0) as server:
        assert [post(server).status_code for _ in range(4)] == [200, 200, 503, 503]
        with contextlib.closing(open_backend(server.spec_of("baidu"))) as backend:
            assert backend.recognize(JPEG).labels
        assert server.counts() == {
            "requests": 6,
            "billed": 3,
            "answer": 3,
            "throttled": 2,
            "token": 1,
        }


def failing(fault: str, **more: Any) -> CloudServer:
    return CloudServer(Stub(), settings=Settings(faults={fault: 1.0}, **more))


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("5xx", 503, "InternalServerException"),
        ("throttle", 503, "ServiceUnavailableException"),
        ("image", 400, "InternalServerException"),
    ],
)
def test_a_fault_is_said_in_the_vendors_way_and_not_billed(
    fault: str, status: int, kind: str
) -> None:
    with failing(fault) as server:
        answer = post(server)

        assert (answer.status_code, answer.json()["type"]) == (status, kind)
        assert answer.headers[VERSION_HEADER] == "stub@1"
        assert server.counts() == {"requests": 1, "billed": 0, f"fault:{fault}": 1}


def test_a_token_that_expires_too_early_is_replaced() -> None:
    with (
        failing("token") as server,
        contextlib.closing(open_backend(server.spec_of("baidu"))) as backend,
    ):
        assert backend.recognize(JPEG).labels
        counts = server.counts()

    assert counts == {"requests": 4, "billed": 1, "answer": 1, "fault:token": 1, "token": 2}


def test_where_there_are_no_tokens_none_expires() -> None:
    behaviour = Settings(faults={"token": 0.5, "5xx": 0.5})
    with CloudServer(Stub(), settings=behaviour) as server:
        assert {post(server).json()["type"] for _ in range(12)} == {"InternalServerException"}

    assert server.counts() == {"requests": 12, "billed": 0, "fault:5xx": 12}


def test_a_fault_that_nobody_served_can_have_is_refused() -> None:
    behaviour = Settings(faults={"token": 1.0})
    with pytest.raises(UsageError, match="azure, facepp has no tokens that expire"):
        CloudServer(Stub(), dialects=["azure", "facepp"], settings=behaviour)


def test_a_reset_is_a_reset() -> None:
    with failing("reset") as server, dial(server) as client:
        client.sendall(upload())
        with pytest.raises(ConnectionResetError):
            client.recv(100)

    assert server.counts() == {"requests": 1, "billed": 0, "fault:reset": 1}


def test_half_of_the_json_comes_as_if_it_were_all() -> None:
    with failing("malformed") as server:
        answer = post(server)

    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with pytest.raises(ValueError, match="line 1"):
        answer.json()
    assert server.counts() == {"requests": 1, "billed": 0, "fault:malformed": 1}


def test_a_slow_answer_is_whole_in_the_end_and_then_billed() -> None:
    gate = Gate()
    gate.open.set()
    behaviour = Settings(faults={"slow": 1.0}, slow_s=2.0)
    with CloudServer(Stub(), settings=behaviour, sleep=gate.sleep) as server:
        assert post(server).json() == {"cat": 0.75, "dog": 0.25}

    assert len(gate.asked) > 5
    assert sum(gate.asked) == pytest.approx(2.0, rel=0.2)
    assert server.counts() == {"requests": 1, "billed": 1, "fault:slow": 1}


def test_who_loses_patience_with_a_slow_answer_is_not_billed() -> None:
    gate = Gate()
    behaviour = Settings(faults={"slow": 1.0})
    with CloudServer(Stub(), settings=behaviour, sleep=gate.sleep) as server:
        with dial(server) as client:
            client.sendall(upload())
            gate.inside.acquire()
        gate.open.set()

    assert server.counts() == {"requests": 1, "billed": 0, "fault:slow": 1}


def test_the_same_uploads_fail_in_every_run_and_others_with_another_seed() -> None:
    pictures = [
        codec.encode(Image.effect_noise((32, 32), 10 * n).convert("RGB"), REFERENCE)
        for n in range(1, 13)
    ]
    runs = []
    for seed in (1, 1, 2):
        behaviour = Settings(seed=seed, faults={"5xx": 0.5})
        with CloudServer(Stub(), settings=behaviour) as server, ThreadPoolExecutor(4) as pool:
            runs.append(list(pool.map(lambda one: post(server, one).ok, pictures)))

    assert runs[0] == runs[1] != runs[2]
    assert {True, False} == set(runs[0])


def test_a_retry_is_another_draw() -> None:
    with CloudServer(Stub(), settings=Settings(faults={"5xx": 0.5})) as server:
        assert {post(server).ok for _ in range(12)} == {True, False}


def test_another_model_answers_after_so_many_bills_and_says_so() -> None:
    lion = Stub("stub@2", (Label("lion", 1.0),))
    with CloudServer(Stub(), settings=Settings(swap_after=2), swap_to=lion) as server:
        assert post(server, b"no picture").headers[VERSION_HEADER] == "stub@1"
        answers = [post(server) for _ in range(3)]
        assert server.model.version == "stub@2"
        assert requests.get(server.url, timeout=5).headers[VERSION_HEADER] == "stub@2"

    assert [answer.headers[VERSION_HEADER] for answer in answers] == ["stub@1", "stub@1", "stub@2"]
    assert answers[1].json() == {"cat": 0.75, "dog": 0.25}
    assert answers[2].json() == {"lion": 1.0}


def test_a_silent_server_names_its_model_only_where_the_vendor_does() -> None:
    behaviour = Settings(silent=True)
    versions = {}
    with CloudServer(Stub(), settings=behaviour) as server:
        assert VERSION_HEADER not in requests.get(server.url, timeout=5).headers
        for dialect in ("baidu", "rekognition", "azure"):
            with contextlib.closing(open_backend(server.spec_of(dialect))) as backend:
                versions[dialect] = backend.recognize(JPEG).model_version

    assert versions == {"baidu": None, "rekognition": "stub@1", "azure": "stub@1"}


def test_renamed_labels_are_another_version() -> None:
    with CloudServer(Stub(), settings=Settings(rename_labels=True)) as server:
        answer = post(server)

    assert answer.json() == {"cat (renamed)": 0.75, "dog (renamed)": 0.25}
    assert answer.headers[VERSION_HEADER] == "stub@1+renamed"


# How it begins and ends.


def test_a_port_in_use_is_an_environment_error(server: CloudServer) -> None:
    port = port_of(server)

    with (
        pytest.raises(EnvironmentMissing, match=f"Port {port} on 127.0.0.1 is in use"),
        CloudServer(Stub(), port),
    ):
        pass


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_a_usage_error(port: int) -> None:
    with pytest.raises(UsageError, match="There is no port"), CloudServer(Stub(), port):
        pass


def test_it_ends_although_a_client_keeps_its_connection_open() -> None:
    with CloudServer(Stub()) as server:
        client = dial(server)
        idle = open_backend(server.spec)
        idle.recognize(JPEG)
    client.close()

    http = HttpClient(server.url, sleep=lambda _seconds: None)
    with pytest.raises(BackendUnavailable):
        BaiduBackend(server.url, keys=lambda: ("k", "s"), http=http).recognize(JPEG)
    idle.close()


def test_a_request_under_way_is_finished_before_the_end() -> None:
    looking, go = threading.Event(), threading.Event()

    class Slow(Stub):
        def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
            looking.set()
            assert go.wait(PATIENCE_S)
            return super().answer_many(jpegs)

    server = CloudServer(Slow())
    with ThreadPoolExecutor(2) as pool:
        server.__enter__()
        answer = pool.submit(post, server)
        assert looking.wait(PATIENCE_S)
        ending = pool.submit(server.__exit__, None, None, None)
        with contextlib.suppress(ConnectionError):
            while True:  # until nothing is accepted any more
                dial(server).close()
        go.set()
        ending.result(PATIENCE_S)

        assert answer.result(PATIENCE_S).json() == {"cat": 0.75, "dog": 0.25}
        assert answer.result().headers["Connection"] == "close"
    assert server.counts()["billed"] == 1


def test_delays_and_slow_answers_do_not_hold_up_the_end() -> None:
    behaviour = Settings(faults={"slow": 1.0}, slow_s=3600.0)
    with CloudServer(Stub(), settings=behaviour) as server, dial(server) as slow:
        slow.sendall(upload())
        answer = slow.makefile("rb")
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        server.__exit__(None, None, None)
        rest = answer.read()
        answer.close()

    assert b"0.25" not in rest
    assert server.counts() == {"requests": 1, "billed": 0, "fault:slow": 1}


def test_a_delayed_answer_comes_at_once_when_the_server_ends() -> None:
    came = threading.Event()

    def clock() -> float:  # asked when a request is complete
        came.set()
        return 0.0

    delayed = CloudServer(Stub(), settings=Settings(latency_s=3600.0), clock=clock)
    with delayed as server, dial(server) as client:
        client.sendall(upload())
        assert came.wait(PATIENCE_S)
        server.__exit__(None, None, None)
        answer = client.makefile("rb").read()

    assert answer.endswith(b'{"cat":0.75,"dog":0.25}')


def test_nothing_is_left_running() -> None:
    before = set(threading.enumerate())
    with CloudServer(Stub()) as server, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: post(server), range(8)))
        idle = dial(server)
    left = set(threading.enumerate()) - before
    idle.close()

    assert not [thread.name for thread in left if thread.name.startswith("local-cloud")]
