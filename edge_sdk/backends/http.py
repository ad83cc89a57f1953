"""The one HTTP layer: time limits, complete answers, and errors that never show a key.

Every service's client sends through :class:`HttpClient`, under the one retry policy of
``edge_sdk.backends.guard`` (labelling a picture twice does no harm, so POST is retried too).
Whatever goes wrong becomes one of ``edge_sdk.errors``. Dialects read the answer's content.
"""

from __future__ import annotations

import json
import logging
import random
import re
import ssl
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, ReadTimeoutError
from urllib3.util import Retry

from edge_sdk.backends.guard import Guard, HttpPolicy
from edge_sdk.backends.refusals import kind_of_status, refusal
from edge_sdk.backends.spec import is_loopback
from edge_sdk.errors import BackendProtocol, BackendUnavailable, ClosedError
from model_store.errors import BackendError

__all__ = ["MAX_ANSWER", "HttpClient", "HttpPolicy", "Reply", "accepted"]

T = TypeVar("T")

#: Largest answer that is read, in bytes; label lists have a few thousand.
MAX_ANSWER = 4 * 1024 * 1024

_CHUNK = 64 * 1024
_SECRETS = re.compile(
    r"(\b(?:access_token|client_id|client_secret|api_key|api_secret|key|token)=)[^&\s\"']+"
)


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete HTTP answer; header names compare without case."""

    host: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises:
            BackendProtocol: it is something else, such as a login page.
            BackendError: it is something else, and the status says why.
        """
        try:
            document = json.loads(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            if self.status != 200:
                raise self.error(said="not a JSON object")  # its text may repeat a key
            kind = self.headers.get("Content-Type", "no content type").partition(";")[0]
            raise BackendProtocol(
                f"{self.host} answered {kind} that is not a JSON object "
                f"({len(self.body)} bytes); is another server or a login page in between?"
            )
        return document

    def error(
        self,
        kind: type[BackendError] | None = None,
        code: str = "",
        said: object = "",
        secrets: tuple[str, ...] = (),
    ) -> BackendError:
        """Return what this answer is as an error.

        Args:
            kind: what it means; default is what its status means.
            code: the service's own code; default is the status.
            said: the service's own message; default is the body if it is short and plain text.
            secrets: what is masked in the message.
        """
        return refusal(
            kind or kind_of_status(self.status),
            self.host,
            code or f"HTTP {self.status}",
            said or self._plain_text(),
            secrets=secrets,
            retry_after_s=self._retry_after_s(),
        )

    def _plain_text(self) -> str:
        kind = self.headers.get("Content-Type", "")
        return self.body[:1000].decode(errors="replace") if kind.startswith("text/plain") else ""

    def _retry_after_s(self) -> float | None:
        asked = self.headers.get("Retry-After")
        try:
            return None if asked is None else Retry().parse_retry_after(asked)
        except InvalidHeader:
            return None  # a service's typing error is no reason to fail


def accepted(reply: Reply) -> Reply:
    """Return an answer with HTTP 200.

    Raises:
        BackendError: it has another status.
    """
    if reply.status != 200:
        raise reply.error()
    return reply


class HttpClient:
    """Sends to one service; safe to use from several threads, each has its own connections.

    Args:
        base_url: ``https://HOST`` or ``http://HOST:PORT``.
        policy: limits and retries.
        clock, sleep, jitter: monotonic seconds, the pause, and a random number in [0, 1).
    """

    def __init__(
        self,
        base_url: str,
        *,
        policy: HttpPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.host = urlsplit(base_url).netloc
        self._clock = clock
        self._guard = Guard(self.host, policy, clock=clock, sleep=sleep, jitter=jitter)
        self._own = threading.local()
        self._lock = threading.Lock()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()  # under _lock
        self._closed = False  # under _lock
        logging.getLogger("urllib3.connectionpool").addFilter(_hide_secrets)

    def __repr__(self) -> str:
        return f"HttpClient({self.base_url!r})"

    def post(
        self,
        path: str,
        read: Callable[[Reply], T],
        *,
        params: Mapping[str, str] | None = None,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Send one POST, again if that may help, and return what ``read`` makes of the answer.

        Args:
            path: starts with a slash.
            read: turns a complete answer of any status into a value, or raises ``BackendError``;
                those that are ``transient`` are worth another attempt. See :func:`accepted`.
            params: the query; may hold a token, which shows up in no message and no log line.
            data: the body.
            headers: such as the content type; the same holds for them.

        Raises:
            BackendUnavailable: no complete answer within the policy's limits.
            BackendProtocol: the answer is larger than ``MAX_ANSWER``.
            BackendError: what ``read`` raised last.
        """
        return self.send(
            requests.Request("POST", self.base_url + path, headers, params=params, data=data), read
        )

    def get(
        self, path: str, read: Callable[[Reply], T], *, headers: Mapping[str, str] | None = None
    ) -> T:
        """Send one GET; see :meth:`post`."""
        return self.send(requests.Request("GET", self.base_url + path, headers), read)

    def send(self, request: requests.Request, read: Callable[[Reply], T]) -> T:
        """Send one request; see :meth:`post`."""
        return self._guard.call(lambda deadline: read(self._attempt(request, deadline)))

    def close(self) -> None:
        """Close every thread's connections; a later ``post`` raises ``ClosedError``."""
        with self._lock:
            self._closed = True
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    def _attempt(self, request: requests.Request, deadline: float) -> Reply:
        policy = self._guard.policy
        left = max(deadline - self._clock(), 0.001)
        limits = (min(policy.connect_s, left), min(policy.read_s, left))
        try:
            return self._exchange(request, limits, deadline)
        except (requests.RequestException, HTTPError, OSError) as error:
            reason = _reason(error, limits)
            _let_go(error)
        # Not chained: the texts of requests and urllib3 hold the URL, hence the token.
        raise BackendUnavailable(f"{self.host} {reason}. Check the network and the service.")

    def _exchange(
        self, request: requests.Request, limits: tuple[float, float], deadline: float
    ) -> Reply:
        session = self._session()
        ready = session.prepare_request(request)
        settings = session.merge_environment_settings(ready.url, {}, True, None, None)
        # A redirect would carry the body and the token to a place that nobody named.
        with session.send(ready, timeout=limits, allow_redirects=False, **settings) as answer:
            body = self._read(answer, deadline)
            return Reply(self.host, answer.status_code, answer.headers, body)

    def _read(self, answer: requests.Response, deadline: float) -> bytes:
        """Read the body piece by piece, because a trickle never trips a time-out on silence."""
        body = bytearray()
        while piece := answer.raw.read1(_CHUNK, decode_content=True):
            body += piece
            if len(body) > MAX_ANSWER:
                raise BackendProtocol(
                    f"{self.host} answered more than {MAX_ANSWER} bytes; labels need far fewer."
                )
            # Not of a complete answer, however late: it is paid for.
            if self._clock() > deadline and answer.raw.length_remaining != 0:
                raise TimeoutError
        return bytes(body)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._own, "session", None)
        with self._lock:
            if self._closed:
                raise ClosedError(f"The client of {self.host} is closed; open another one.")
            if session is None:
                session = self._own.session = requests.Session()
                # Else requests would put a netrc entry in the place of our own authorisation.
                session.auth = _as_it_is
                # A proxy named in the environment is not the way to this very machine.
                session.trust_env = not is_loopback(self.host)
                self._sessions.add(session)
        return session


def _reason(error: Exception, limits: tuple[float, float]) -> str:
    """Return what went wrong, without the texts of other libraries."""
    if isinstance(error, requests.exceptions.SSLError):
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
            return "has no TLS certificate that this device trusts"
        return "does not speak TLS; a local cloud is written SCHEME+http://HOST:PORT"
    if isinstance(error, requests.exceptions.ProxyError):
        return "cannot be reached through the proxy that the environment names"
    if isinstance(error, requests.ConnectTimeout):
        return f"did not accept a connection within {limits[0]:.3g} s"
    if isinstance(error, requests.Timeout | ReadTimeoutError | TimeoutError):
        return f"did not send its whole answer in time ({limits[1]:.3g} s of silence allowed)"
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return f"cannot be reached ({cause.strerror.lower()})"
    if type(error) is OSError:  # requests' own word, before it connects
        return "is not asked: REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names certificates not there"
    if isinstance(
        error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError | HTTPError
    ):
        return "closed the connection before its answer was complete"
    return f"cannot be asked ({type(error).__name__})"


def _let_go(error: BaseException) -> None:
    """Empty the frames that the error came through; the connection stays open while one knows it.

    Some of urllib3's know the error, too: a ring, which only a collection would end.
    """
    for cause in _causes(error):
        traceback.clear_frames(cause.__traceback__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Mask keys and tokens in urllib3's debug lines, which repeat the whole URL."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _SECRETS.sub(r"\1***", value) if isinstance(value, str) else value
            for value in record.args
        )
    return True
