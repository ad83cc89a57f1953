"""The local cloud: a real HTTP server on loopback that speaks a vendor's dialect over a model.

    with CloudServer(open_classifier("efficientnet-lite0")) as server:
        backend = open_backend(server.spec)

It listens on loopback only and serves from threads of this process; ``training.cloud.process`` runs
it in a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from edge_sdk.backends.baidu import VERSION_HEADER
from model_store.errors import EnvironmentMissing, UsageError
from training.cloud.dialects import baidu
from training.cloud.dialects.base import Request, Response
from training.cloud.models import Model

__all__ = ["HOST", "CloudServer"]

HOST = "127.0.0.1"

#: Largest request body in bytes: the dialects' 4 MB of base64 with every sign escaped.
_MAX_BODY = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


class CloudServer:
    """Serves ``model`` from entering the ``with`` block to leaving it.

    Args:
        model: answers the uploads.
        port: of the loopback interface; 0 takes a free one.
        keys: the one accepted pair of keys, or None for any non-empty pair.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        model: Model,
        port: int = 0,
        *,
        keys: tuple[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        rules = baidu.Rules(secret=secrets.token_bytes(32), keys=keys)
        self.model = model
        self._server = _listen(
            port, lambda request: baidu.respond(request, model, rules, clock()), model.version
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="local-cloud", daemon=True
        )

    @property
    def url(self) -> str:
        """The server's address, such as ``http://127.0.0.1:8000``."""
        return f"http://{HOST}:{self._server.server_port}"

    @property
    def spec(self) -> str:
        """What ``open_backend`` and ``--backend`` take."""
        return f"baidu+{self.url}"

    def __enter__(self) -> CloudServer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _listen(port: int, respond: Callable[[Request], Response], version: str) -> _Server:
    try:
        return _Server((HOST, port), respond, version)
    except OverflowError:
        raise UsageError(
            f"There is no port {port}; allowed are 0 (any free one) to 65535."
        ) from None
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error})"
        raise EnvironmentMissing(
            f"Port {port} on {HOST} {reason}; choose another, or 0 for any free one."
        ) from error


class _Server(ThreadingHTTPServer):
    """Joins its threads when closed, after hanging up on clients that keep connections open."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], respond: Callable[[Request], Response], version: str
    ) -> None:
        self.respond, self.version = respond, version
        self._open: set[socket.socket] = set()  # under _lock
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without the base class's look-up of a host name, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.socket.getsockname()[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("event=connection_lost", exc_info=True)

    def server_close(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client has hung up already
                    connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet: a request line holds keys and tokens."""

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            self._refuse(411, "a Content-Length is required")
        elif int(length) > _MAX_BODY:
            self._refuse(413, f"at most {_MAX_BODY} bytes are read")
        else:
            self._send(self._respond(self.rfile.read(int(length))))

    def _respond(self, body: bytes) -> Response:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            return self.server.respond(Request(self.command, url.path, query, body))
        except Exception:  # a request must not end the server, and its client wants an answer
            _log.exception("event=request_failed path=%s", url.path)
            return Response({"error_code": 282000, "error_msg": "internal error"})

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True  # the unread body would be taken for the next request
        self._send(Response({"error_msg": why}, status))

    def _send(self, response: Response) -> None:
        body = json.dumps(response.document).encode()
        self.send_response(response.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(VERSION_HEADER, self.server.version)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
