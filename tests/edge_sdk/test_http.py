"""The HTTP layer against real sockets on loopback; pauses and time are faked."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from edge_sdk.backends.http import MAX_ANSWER, HttpClient, HttpPolicy, Reply, accepted
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
    ClosedError,
)
from model_store.errors import BackendError, UsageError

TOKEN = "t0p-s3cret"


class Time:
    """A clock that only its own sleep advances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


Open = Callable[..., HttpClient]


@pytest.fixture
def client(time: Time) -> Iterator[Open]:
    opened = []

    def build(url: str, **limits: Any) -> HttpClient:
        policy = HttpPolicy(**{"read_s": 5.0, **limits})
        made = HttpClient(
            url, policy=policy, clock=time.clock, sleep=time.sleep, jitter=lambda: 0.5
        )
        opened.append(made)
        return made

    yield build
    for made in opened:
        made.close()


@contextmanager
def raw_server(*replies: bytes) -> Iterator[str]:
    """Answer one connection after the other with these bytes, then close it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for reply in replies:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(timeout=10)


def answers(server: HTTPServer, *responses: Response) -> None:
    for response in responses:
        server.expect_ordered_request("/x").respond_with_response(response)


def counted(server: HTTPServer, **response: Any) -> list[Request]:
    """Answer every request alike and list the requests."""
    seen: list[Request] = []

    def handle(request: Request) -> Response:
        seen.append(request)
        return Response(**response)

    server.expect_request("/x").respond_with_handler(handle)
    return seen


def test_a_post_carries_query_headers_and_body(httpserver: HTTPServer, client: Open) -> None:
    httpserver.expect_request(
        "/x", method="POST", query_string={"a": "1"}, data=b"body", headers={"X-Y": "z"}
    ).respond_with_json({"ok": True}, headers={"X-Model-Version": "7"})

    reply = client(httpserver.url_for("")).post(
        "/x", accepted, params={"a": "1"}, data=b"body", headers={"X-Y": "z"}
    )

    assert reply.json() == {"ok": True}
    assert reply.headers["x-model-version"] == "7"


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_statuses_that_may_pass_are_tried_again(
    httpserver: HTTPServer, client: Open, time: Time, status: int
) -> None:
    answers(httpserver, Response(status=status), Response(status=status), Response(b"{}"))

    assert client(httpserver.url_for("")).post("/x", accepted).status == 200
    assert time.pauses == [0.25, 0.5]  # jitter 0.5 of 0.5 s, then of 1 s


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 413])
def test_other_statuses_are_read_at_once(
    httpserver: HTTPServer, client: Open, time: Time, status: int
) -> None:
    seen = counted(httpserver, response=b"{}", status=status, headers={"Location": "/x"})

    assert client(httpserver.url_for("")).post("/x", lambda reply: reply.status) == status
    assert time.pauses == []
    assert len(seen) == 1


@pytest.mark.parametrize(("status", "kind"), [(429, BackendThrottled), (503, BackendUnavailable)])
def test_after_the_last_attempt_the_status_is_raised(
    httpserver: HTTPServer, client: Open, status: int, kind: type[BackendError]
) -> None:
    seen = counted(httpserver, response="busy", status=status)

    with pytest.raises(kind, match=f"localhost:{httpserver.port} refused with HTTP {status}"):
        client(httpserver.url_for("")).post("/x", accepted)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("asked", "pauses"),
    [
        ("7", [7.0]),
        ("86400", [60.0]),
        # A throttled client halves its pace: after one request in the last second, the next may
        # leave two seconds later.
        ("0", [0.0, 2.0]),
        ("soon", [0.25, 1.75]),
        (formatdate(0, usegmt=True), [0.0, 2.0]),
    ],
)
def test_retry_after_is_honoured_up_to_a_minute(
    httpserver: HTTPServer, client: Open, time: Time, asked: str, pauses: list[float]
) -> None:
    answers(httpserver, Response(status=429, headers={"Retry-After": asked}), Response(b"{}"))

    client(httpserver.url_for("")).post("/x", accepted)

    assert time.pauses == pauses


def test_a_pause_beyond_the_deadline_is_not_begun(
    httpserver: HTTPServer, client: Open, time: Time
) -> None:
    answers(httpserver, Response(status=429, headers={"Retry-After": "60"}))

    with pytest.raises(BackendThrottled):
        client(httpserver.url_for(""), deadline_s=30.0).post("/x", accepted)
    assert time.pauses == []


def test_pauses_grow_to_the_cap_and_no_further(
    httpserver: HTTPServer, client: Open, time: Time
) -> None:
    httpserver.expect_request("/x").respond_with_data("", status=500)

    with pytest.raises(BackendUnavailable):
        client(httpserver.url_for(""), attempts=8, deadline_s=1e6).post("/x", accepted)
    assert time.pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0]


def test_what_the_reader_finds_transient_inside_a_200_is_tried_again(
    httpserver: HTTPServer, client: Open
) -> None:
    answers(httpserver, Response(b"busy"), Response(b"busy"), Response(b"fine"))

    def read(reply: Reply) -> bytes:
        if reply.body == b"busy":
            raise BackendUnavailable("busy")
        return reply.body

    assert client(httpserver.url_for("")).post("/x", read) == b"fine"


def test_a_get_is_sent_the_same_way(httpserver: HTTPServer, client: Open) -> None:
    httpserver.expect_request("/x", method="GET", headers={"A": "b"}).respond_with_data(b"{}")

    assert client(httpserver.url_for("")).get("/x", accepted, headers={"A": "b"}).body == b"{}"


def test_a_redirect_is_an_answer_and_not_followed(httpserver: HTTPServer, client: Open) -> None:
    seen = counted(httpserver, response=b"", status=307, headers={"Location": "/elsewhere"})
    elsewhere: list[Request] = []
    httpserver.expect_request("/elsewhere").respond_with_handler(
        lambda request: elsewhere.append(request) or Response(b"{}")  # type: ignore[func-returns-value]
    )

    with pytest.raises(BackendProtocol, match="HTTP 307"):
        client(httpserver.url_for("")).post("/x", accepted, headers={"Authorization": TOKEN})
    assert len(seen) == 1
    assert elsewhere == []


def test_a_connection_closed_without_answer_is_tried_again(client: Open) -> None:
    fine = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with raw_server(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", fine) as url:
        assert client(url).post("/x", accepted).body == b"{}"


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_an_incomplete_answer_is_unavailable_with_one_sentence(client: Open, reply: bytes) -> None:
    with raw_server(reply) as url, pytest.raises(BackendUnavailable) as caught:
        client(url, attempts=1).post("/x", accepted, params={"access_token": TOKEN})

    assert str(caught.value).startswith("127.0.0.1:")
    error: BaseException | None = caught.value
    while error is not None:  # the texts of requests and urllib3 hold the URL, hence the token
        assert isinstance(error, BackendError)
        assert TOKEN not in str(error)
        error = error.__cause__ or error.__context__


def test_a_refused_connection_names_the_host_and_the_reason(client: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(BackendUnavailable) as caught:
        client(f"http://127.0.0.1:{port}").post("/x", accepted, params={"access_token": TOKEN})

    assert f"127.0.0.1:{port} cannot be reached (connection refused)." in str(caught.value)
    assert "3 attempts were made" in str(caught.value)


def test_a_server_without_tls_is_told_from_one_that_is_not_trusted(
    httpserver: HTTPServer, client: Open
) -> None:
    with pytest.raises(BackendUnavailable, match=r"does not speak TLS; .*SCHEME\+http"):
        client(f"https://127.0.0.1:{httpserver.port}", attempts=1).post("/x", accepted)


def test_a_silent_service_runs_into_the_read_limit(httpserver: HTTPServer, client: Open) -> None:
    done = threading.Event()

    def wait(_request: Request) -> Response:
        done.wait(10)
        return Response(b"{}")

    httpserver.expect_request("/x").respond_with_handler(wait)
    try:
        with pytest.raises(BackendUnavailable, match=r"in time \(0.05 s of silence allowed\)"):
            client(httpserver.url_for(""), attempts=1, read_s=0.05).post("/x", accepted)
    finally:
        done.set()


def test_a_trickle_of_bytes_runs_into_the_deadline(
    httpserver: HTTPServer, client: Open, time: Time
) -> None:
    stop = threading.Event()

    def trickle() -> Iterator[bytes]:
        for _ in range(1000):
            if stop.is_set():
                return
            time.now += 1.0
            yield b" "

    httpserver.expect_request("/x").respond_with_response(Response(trickle()))
    with pytest.raises(BackendUnavailable, match="did not send its whole answer in time"):
        client(httpserver.url_for("")).post("/x", accepted)
    stop.set()


def test_a_whole_answer_is_kept_although_it_comes_late(
    httpserver: HTTPServer, client: Open, time: Time
) -> None:
    def late(_request: Request) -> Response:
        time.now += 1000.0
        return Response(b"{}")

    httpserver.expect_request("/x").respond_with_handler(late)

    assert client(httpserver.url_for("")).post("/x", accepted).body == b"{}"


def test_an_endless_answer_is_cut(httpserver: HTTPServer, client: Open) -> None:
    httpserver.expect_request("/x").respond_with_data(bytes(MAX_ANSWER + 1))

    with pytest.raises(BackendProtocol, match="more than"):
        client(httpserver.url_for("")).post("/x", accepted)


def test_connections_are_kept_per_thread(client: Open) -> None:
    connections: list[int] = []
    fine = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connections.append(0)
                with connection:
                    while connection.recv(65536):
                        connections[-1] += 1
                        connection.sendall(fine)

        server = threading.Thread(target=serve)
        server.start()
        made = client(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def three_posts() -> None:
            for _ in range(3):
                made.post("/x", accepted)

        for _ in range(2):
            thread = threading.Thread(target=three_posts)
            thread.start()
            thread.join()
        made.close()
        server.join(timeout=10)

    assert connections == [3, 3]


def test_closing_closes_every_connection_also_after_failures(client: Open) -> None:
    ends: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.close()  # without an answer
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                ends.append(connection.recv(1))

        server = threading.Thread(target=serve)
        server.start()
        made = client(f"http://127.0.0.1:{listener.getsockname()[1]}", attempts=1)
        gc.disable()  # what only a collection closes stays open long
        try:
            with pytest.raises(BackendUnavailable):
                made.post("/x", accepted)
            made.post("/x", accepted)
            made.close()
            server.join(timeout=20)
        finally:
            gc.enable()

    assert ends == [b""]


def test_a_closed_client_says_so(client: Open) -> None:
    made = client("http://127.0.0.1:1")
    made.close()
    made.close()

    with pytest.raises(ClosedError, match=r"127\.0\.0\.1:1 is closed"):
        made.post("/x", accepted)


def test_no_log_line_holds_a_token(
    httpserver: HTTPServer, client: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers(httpserver, Response(status=500), Response(b"{}"))

    client(httpserver.url_for("")).post(
        "/x", accepted, params={"access_token": TOKEN, "client_secret": TOKEN, "api_key": TOKEN}
    )

    lines = [record.getMessage() for record in caplog.records if record.name.startswith("urllib3")]
    assert any("access_token=***&client_secret=***&api_key=***" in line for line in lines)
    assert not any(TOKEN in line for line in lines)


def test_a_proxy_of_the_environment_is_not_used_on_loopback(
    httpserver: HTTPServer, client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    answers(httpserver, Response(b"{}"))

    assert client(httpserver.url_for("")).post("/x", accepted).status == 200


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"[1]", b"", b"\xff", b"null"])
def test_an_answer_that_is_no_json_object_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(BackendProtocol, match="h answered text/html that is not a JSON object"):
        Reply("h", 200, {"Content-Type": "text/html; charset=utf-8"}, body).json()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, BackendProtocol),
        (400, BackendRejected),
        (401, BackendAuth),
        (403, BackendAuth),
        (404, BackendProtocol),
        (413, BackendTooLarge),
        (429, BackendThrottled),
        (501, BackendUnavailable),
        (503, BackendUnavailable),
    ],
)
def test_a_status_without_json_becomes_its_error(status: int, kind: type[BackendError]) -> None:
    with pytest.raises(kind, match=f"HTTP {status}"):
        Reply("h", status, {}, b"<html>").json()


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"read_s": 0.0}, {"deadline_s": -1.0}])
def test_a_policy_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="HTTP policy"):
        HttpPolicy(**wrong)
