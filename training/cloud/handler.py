"""One client's HTTP/1.1: read requests, deliver answers whole, in drips, or not at all."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from training.cloud.dialects.base import Request, Response
from training.cloud.service import COUNTS_PATH, Delivery, Service

__all__ = ["MAX_BODY", "Handler", "Host", "is_reset"]

#: Largest request body in bytes: more than any vendor takes, so that dialects refuse as theirs do.
MAX_BODY = 32 * 1024 * 1024

#: Seconds between two pieces of a slow answer, at least.
_DRIP_S = 0.1

_LINGER = struct.Struct("ii")


class Host(Protocol):
    """What a handler needs of its server."""

    service: Service
    #: Pauses between the pieces of a slow answer.
    sleep: Callable[[float], object]
    #: Set when the server is about to end.
    stopping: threading.Event

    def busy(self, connection: socket.socket, *, now: bool) -> None:
        """Note that a connection begins or ends a request."""


def is_reset(connection: socket.socket) -> bool:
    """Tell whether closing this connection is to reset it."""
    linger, _ = _LINGER.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
    )
    return bool(linger)


class Handler(BaseHTTPRequestHandler):
    """Converses with one client until either hangs up."""

    server: Host  # type: ignore[assignment]  # all that is used of it
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        """Wait for a request and answer it; the connection is idle until its first line."""
        try:
            super().handle_one_request()
        finally:
            self.server.busy(self.connection, now=False)
        if self.server.stopping.is_set():
            self.close_connection = True

    def parse_request(self) -> bool:
        """Read the headers."""
        self.server.busy(self.connection, now=True)
        return super().parse_request()

    def handle_expect_100(self) -> bool:
        """Tell a client that waits with its body to go on."""
        if self._refusal() is None:  # else the refusal comes before the body is sent
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no HTTP."""
        self.close_connection = True
        self._send(Response({"error": HTTPStatus(code).phrase}, code), {})

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet: a request line holds keys and tokens."""

    def serve(self) -> None:
        """Answer one request, whose line and headers are read."""
        service, refusal = self.server.service, self._refusal()
        if refusal is not None:
            self.close_connection = True  # the unread body would be taken for the next request
            self._deliver(service.unreadable(self._request(b""), refusal))
            return
        length = int(self.headers.get("Content-Length", "0"))
        request = self._request(self.rfile.read(length))
        if len(request.body) < length:
            self._deliver(service.unreadable(request, None))
        elif request.path == COUNTS_PATH and request.method in ("GET", "HEAD"):
            self._send(Response(service.counts()), {})
        else:
            self._deliver(service.answer(request, self._here))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve  # noqa: N815

    def _refusal(self) -> Response | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            return Response({"error": "a Content-Length is required"}, 411)
        if len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
            return Response({"error": f"at most {MAX_BODY} bytes are read"}, 413)
        return None

    def _request(self, body: bytes) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            url = urlsplit(self.path)
        except ValueError:  # it names a host that is none
            return Request(self.command, self.path, {}, headers, body)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        return Request(self.command, url.path, query, headers, body)

    def _here(self) -> bool:
        """Tell without waiting whether the client is still connected, in both directions."""
        try:
            peeked = self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return peeked != b""

    def _deliver(self, delivery: Delivery) -> None:
        """Send an answer; the service bills and logs it right before the last bytes leave."""
        service, response = self.server.service, delivery.response
        if response is None:
            service.settle(delivery, self._here)
            self._reset()
        elif not delivery.seconds:
            if service.settle(delivery, self._here):
                self._send(response, service.headers(delivery))
            else:
                self.close_connection = True
        else:
            last = self._drip(response, service.headers(delivery), delivery.seconds)
            if service.settle(delivery, self._here if last else lambda: False):
                self.connection.sendall(last)
            else:
                self.close_connection = True

    def _drip(self, response: Response, headers: Mapping[str, str], seconds: float) -> bytes:
        """Send all but the last piece and return that, or nothing if somebody gave up."""
        body = response.body
        size = math.ceil(len(body) * _DRIP_S / seconds)
        *early, last = [body[start : start + size] for start in range(0, len(body), size)]
        with contextlib.suppress(OSError):  # the client went away
            self.connection.sendall(self._head(response, len(body), headers))
            for piece in early:
                self.connection.sendall(piece)
                self.server.sleep(seconds / (len(early) + 1))
                if self.server.stopping.is_set() or not self._here():
                    return b""
            return last
        return b""

    def _send(self, response: Response, headers: Mapping[str, str]) -> None:
        body = response.body
        message = self._head(response, len(body), headers)
        # One call, so that a short answer is one segment.
        self.connection.sendall(message if self.command == "HEAD" else message + body)

    def _head(self, response: Response, length: int, headers: Mapping[str, str]) -> bytes:
        fields = {
            "Server": "local-cloud",
            "Date": self.date_time_string(),
            "Content-Type": response.content_type,
            "Content-Length": str(length),
            **headers,
        }
        if self.close_connection or self.server.stopping.is_set():
            fields["Connection"] = "close"
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(1, 0))
