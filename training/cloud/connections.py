"""The local cloud's sockets: HTTP/1.1 on loopback, a thread per connection.

Requests are read here and answers written; what they say is ``training.cloud.service``'s affair.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from model_store.errors import EnvironmentMissing, UsageError
from training.cloud.dialects.base import Request, Response
from training.cloud.service import COUNTS_PATH, Delivery, Service

__all__ = ["HOST", "MAX_BODY", "Connections"]

HOST = "127.0.0.1"

#: Largest request body in bytes: more than any vendor takes, so that dialects refuse as theirs do.
MAX_BODY = 32 * 1024 * 1024

#: Seconds between two pieces of a slow answer, at least.
_DRIP_S = 0.1

#: Seconds that stopping waits for the requests under way, and then for each thread.
_GRACE_S = 4.0

_LINGER = struct.Struct("ii")

_log = logging.getLogger(__name__)


class Connections:
    """Listens from construction to leaving the ``with`` block; accepts once it serves.

    Args:
        port: of the loopback interface; 0 takes a free one.

    Raises:
        UsageError: there is no such port.
        EnvironmentMissing: it cannot be had.
    """

    def __init__(self, port: int) -> None:
        self._listener = _listen(port)
        self._accepting: threading.Thread | None = None
        #: Set when stopping begins; whoever sleeps on it wakes up then.
        self.stopping = self._listener.stopping

    @property
    def url(self) -> str:
        """The address, such as ``http://127.0.0.1:8000``."""
        return f"http://{HOST}:{self._listener.server_port}"

    def serve(self, service: Service, sleep: Callable[[float], object]) -> None:
        """Accept connections from now on; ``sleep`` pauses between the pieces of a slow answer."""
        self._listener.service, self._listener.sleep = service, sleep
        self._accepting = threading.Thread(
            target=self._listener.serve_forever, args=(0.05,), name="local-cloud", daemon=True
        )
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopping.set()
        if self._accepting is not None:
            self._listener.shutdown()
            self._accepting.join()
        self._listener.server_close()
        self._listener.finish()


def _listen(port: int) -> _Listener:
    try:
        return _Listener(port)
    except OverflowError:
        raise UsageError(
            f"There is no port {port}; allowed are 0 (any free one) to 65535."
        ) from None
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error})"
        raise EnvironmentMissing(
            f"Port {port} on {HOST} {reason}; choose another, or 0 for any free one."
        ) from error


class _Listener(HTTPServer):
    request_queue_size = 128
    service: Service
    sleep: Callable[[float], object]

    def __init__(self, port: int) -> None:
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._busy: dict[socket.socket, bool] = {}  # connection -> in a request; under _changed
        self._threads: list[threading.Thread] = []  # under _changed
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the base class's look-up of a host name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._converse,
            args=(request, client_address),
            name="local-cloud-connection",
            daemon=True,
        )
        with self._changed:
            self._busy[request] = False
            thread.start()
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]

    def busy(self, connection: socket.socket, *, now: bool) -> None:
        """Note that a connection begins or ends a request."""
        with self._changed:
            self._busy[connection] = now
            self._changed.notify_all()

    def finish(self) -> None:
        """Let requests under way come to their end, but not for ever; then hang up."""
        with self._changed:
            self._hang_up(idle=True)
            self._changed.wait_for(lambda: not any(self._busy.values()), _GRACE_S)
            self._hang_up(idle=False)
            left = [*self._threads]
        for thread in left:
            thread.join(_GRACE_S)

    def shutdown_request(self, request: Any) -> None:
        linger, _ = _LINGER.unpack(
            request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
        )
        if linger:  # a reset: an orderly end must not come first
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def _hang_up(self, *, idle: bool) -> None:
        """Shut connections down: those without a request, or all. The lock is held."""
        for connection, busy in self._busy.items():
            if not (idle and busy):
                with contextlib.suppress(OSError):  # the client has hung up already
                    connection.shutdown(socket.SHUT_RDWR)

    def _converse(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:  # the client went away
            _log.debug("event=connection_lost", exc_info=True)
        except Exception:  # must not end the server; there is nobody above to tell
            _log.exception("event=connection_failed")
        finally:
            with self._changed:
                del self._busy[request]
                self._changed.notify_all()
            self.shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    server: _Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        finally:
            self.server.busy(self.connection, now=False)
        if self.server.stopping.is_set():
            self.close_connection = True

    def parse_request(self) -> bool:
        self.server.busy(self.connection, now=True)
        return super().parse_request()

    def handle_expect_100(self) -> bool:
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
        """Tell whether the client is still connected, without waiting."""
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
