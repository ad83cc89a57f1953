"""The local cloud's sockets: a port on loopback, a thread per connection, an orderly end.

What is said on a connection is ``training.cloud.handler``'s affair.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Callable
from http.server import HTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self

from model_store.errors import EnvironmentMissing, UsageError
from training.cloud.handler import Handler, is_reset
from training.cloud.service import Service

__all__ = ["HOST", "Connections"]

HOST = "127.0.0.1"

#: Seconds that stopping waits for the requests under way, and then for each thread.
_GRACE_S = 4.0

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
        super().__init__((HOST, port), Handler)

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
        if is_reset(request):  # an orderly end must not come first
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
