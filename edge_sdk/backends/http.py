"""The one HTTP layer: time limits, retries with jitter, and errors that never show a key.

Every service's client posts through :class:`HttpClient`. It retries what trying again may cure
(labelling a picture twice does no harm, so POST is retried too) within one deadline for the whole
call, and turns whatever goes wrong into ``edge_sdk.errors``. Dialects read the answer's content.

The retries are a loop of our own and not urllib3's, because one count and one deadline must also
cover answers cut off half-way and refusals inside an HTTP 200, which urllib3 never sees.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, ReadTimeoutError
from urllib3.util import Retry

from edge_sdk.backends.spec import is_loopback
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendRejected,
    BackendThrottled,
    BackendUnavailable,
    ClosedError,
)
from model_store.errors import BackendError, UsageError

__all__ = ["MAX_ANSWER", "RETRIED", "HttpClient", "HttpPolicy", "Reply"]

#: HTTP statuses that trying again may cure.
RETRIED = frozenset({408, 429, 500, 502, 503, 504})

#: Largest answer that is read, in bytes; label lists have a few thousand.
MAX_ANSWER = 4 * 1024 * 1024

_AUTH, _REJECTED = frozenset({401, 403, 407}), frozenset({400, 411, 412, 413, 415, 422})
_CHUNK = 64 * 1024
_SECRETS = re.compile(
    r"(\b(?:access_token|client_id|client_secret|api_key|api_secret|key)=)[^&\s\"']+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """How long and how often to try.

    Attributes:
        connect_s: seconds to get a connection.
        read_s: seconds of silence while waiting for the answer.
        deadline_s: seconds for one call with all its attempts and pauses.
        attempts: requests sent at most.
        backoff_s: the n-th pause is random up to ``backoff_s * 2**n`` (full jitter), n from 0.
        backoff_cap_s: longest such pause.
        retry_after_cap_s: longest pause that a service may ask for with ``Retry-After``.
    """

    connect_s: float = 3.0
    read_s: float = 10.0
    deadline_s: float = 90.0
    attempts: int = 3
    backoff_s: float = 0.5
    backoff_cap_s: float = 20.0
    retry_after_cap_s: float = 60.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.connect_s, self.read_s, self.deadline_s) <= 0:
            raise UsageError(
                f"An HTTP policy has {self.attempts} attempts and the limits {self.connect_s}, "
                f"{self.read_s} and {self.deadline_s} s; allowed are at least 1 attempt and limits "
                "above 0 s."
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
                raise self.error()
            kind = self.headers.get("Content-Type", "no content type").partition(";")[0]
            raise BackendProtocol(
                f"{self.host} answered {kind} that is not a JSON object "
                f"({len(self.body)} bytes); is another server or a login page in between?"
            )
        return document

    def error(self) -> BackendError:
        """Return the error that this status stands for when the body says nothing better."""
        what = f"{self.host} answered HTTP {self.status}"
        if self.status == 429:
            return BackendThrottled(f"{what}: too many requests. Send fewer, or try again later.")
        if self.status in RETRIED or self.status >= 500:
            return BackendUnavailable(f"{what}: it failed on its side. Try again later.")
        if self.status in _AUTH:
            return BackendAuth(f"{what}: it does not accept the keys. Check them and their rights.")
        if self.status in _REJECTED:
            return BackendRejected(f"{what}: it refuses this upload.")
        return BackendProtocol(f"{what}; this is not the service that was meant. Check its host.")


class HttpClient:
    """Posts to one service; safe to use from several threads, each has its own connections.

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
        self._policy = policy or HttpPolicy()
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
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
        *,
        params: Mapping[str, str] | None = None,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        again: Callable[[Reply], bool] = lambda _reply: False,
    ) -> Reply:
        """Send one request, again if that may help, and return the complete answer.

        Args:
            path: starts with a slash.
            params: the query; may hold a token, which shows up in no message and no log line.
            data: the body.
            headers: such as the content type.
            again: tells of an answer with another status than ``RETRIED`` that it is worth another
                attempt. The last such answer is returned, not raised.

        Raises:
            BackendUnavailable: no complete answer within the policy's limits.
            BackendThrottled: HTTP 429 to the last attempt.
            BackendProtocol: the answer is larger than ``MAX_ANSWER``.
        """
        request = requests.Request("POST", self.base_url + path, headers, data=data, params=params)
        deadline = self._clock() + self._policy.deadline_s
        attempt = 0
        while True:
            outcome = self._attempt(request, deadline)
            if isinstance(outcome, Reply) and outcome.status not in RETRIED and not again(outcome):
                return outcome
            pause = self._pause(attempt, outcome)
            attempt += 1
            if attempt >= self._policy.attempts or self._clock() + pause >= deadline:
                return self._give_up(outcome, attempt)
            self._sleep(pause)

    def close(self) -> None:
        """Close every thread's connections; a later ``post`` raises ``ClosedError``."""
        with self._lock:
            self._closed = True
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    def _attempt(self, request: requests.Request, deadline: float) -> Reply | BackendUnavailable:
        session = self._session()
        left = max(deadline - self._clock(), 0.001)
        limits = (min(self._policy.connect_s, left), min(self._policy.read_s, left))
        try:
            ready = session.prepare_request(request)
            # A redirect would carry the body and the token to a place that nobody named.
            settings = session.merge_environment_settings(ready.url, {}, True, None, None)
            with session.send(ready, timeout=limits, allow_redirects=False, **settings) as answer:
                body = self._read(answer, deadline)
                return Reply(self.host, answer.status_code, answer.headers, body)
        except (requests.RequestException, HTTPError, OSError) as error:
            # Not chained: the texts of requests and urllib3 hold the URL, hence the token.
            return BackendUnavailable(f"{self.host} {_reason(error, limits)}")

    def _read(self, answer: requests.Response, deadline: float) -> bytes:
        """Read the body piece by piece, because a trickle never trips a time-out on silence."""
        body = bytearray()
        while piece := answer.raw.read1(_CHUNK, decode_content=True):
            body += piece
            if len(body) > MAX_ANSWER:
                raise BackendProtocol(
                    f"{self.host} answered more than {MAX_ANSWER} bytes; labels need far fewer."
                )
            if self._clock() > deadline:
                raise TimeoutError
        return bytes(body)

    def _pause(self, attempt: int, outcome: Reply | BackendUnavailable) -> float:
        policy = self._policy
        if isinstance(outcome, Reply) and (asked := outcome.headers.get("Retry-After")):
            try:
                return min(Retry().parse_retry_after(asked), policy.retry_after_cap_s)
            except InvalidHeader:
                pass  # a service's typing error is no reason to fail
        return self._jitter() * min(policy.backoff_s * 2.0**attempt, policy.backoff_cap_s)

    def _give_up(self, outcome: Reply | BackendUnavailable, attempts: int) -> Reply:
        if isinstance(outcome, Reply):
            if outcome.status in RETRIED:
                raise outcome.error()
            return outcome
        tried = "1 attempt was" if attempts == 1 else f"{attempts} attempts were"
        raise BackendUnavailable(
            f"{outcome}; {tried} made. Check the network and the service, then try again."
        ) from None

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._own, "session", None)
        with self._lock:
            if self._closed:
                raise ClosedError(f"The client of {self.host} is closed; open another one.")
            if session is None:
                session = self._own.session = requests.Session()
                # A proxy named in the environment is not the way to this very machine.
                session.trust_env = not is_loopback(self.host)
                self._sessions.add(session)
        return session


def _reason(error: Exception, limits: tuple[float, float]) -> str:
    """Return what went wrong, without the texts of other libraries."""
    if isinstance(error, requests.exceptions.SSLError):
        return "has no TLS certificate that this device trusts"
    if isinstance(error, requests.exceptions.ProxyError):
        return "cannot be reached through the proxy that the environment names"
    if isinstance(error, requests.ConnectTimeout):
        return f"did not accept a connection within {limits[0]:.3g} s"
    if isinstance(error, requests.Timeout | ReadTimeoutError | TimeoutError):
        return f"did not send its whole answer in time ({limits[1]:.3g} s of silence allowed)"
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return f"cannot be reached ({cause.strerror.lower()})"
    if isinstance(
        error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError | HTTPError
    ):
        return "closed the connection before its answer was complete"
    return f"cannot be asked ({type(error).__name__})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Mask keys and tokens in urllib3's debug lines, which repeat the whole URL."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            _SECRETS.sub(r"\1***", value) if isinstance(value, str) else value
            for value in record.args
        )
    return True
