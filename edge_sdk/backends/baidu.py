"""Client of Baidu's general object and scene recognition, ``advanced_general`` version 2.

Keys buy a token, the token travels in the query, the picture as url-encoded base64 in the body.
Refusals arrive as HTTP 200 with an ``error_code``. A service that speaks this dialect elsewhere, as
the local cloud of ``training`` does, may name its model in the header ``X-Model-Version``.

    >>> from edge_sdk.backends.baidu import BaiduBackend
    >>> BaiduBackend("https://aip.baidubce.com", keys=lambda: ("key", "secret"))
    BaiduBackend('baidu://aip.baidubce.com')
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.backends.http import HttpClient, Reply
from edge_sdk.backends.limits import check_limits
from edge_sdk.backends.spec import Spec, is_loopback
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendRejected,
    BackendThrottled,
    BackendUnavailable,
)
from model_store.errors import BackendError, UsageError

__all__ = [
    "CAPABILITIES",
    "MAX_BASE64",
    "RECOGNIZE_PATH",
    "TOKEN_PATH",
    "VERSION_HEADER",
    "BaiduBackend",
    "Keys",
    "keys_from_environment",
    "open_spec",
]

HOST = "aip.baidubce.com"
TOKEN_PATH = "/oauth/2.0/token"
RECOGNIZE_PATH = "/rest/2.0/image-classify/v2/advanced_general"
VERSION_HEADER = "X-Model-Version"

#: The documented limit: the base64 text is shorter than 4 MB. Three bytes become four characters.
MAX_BASE64 = 4 * 1024 * 1024 - 1
CAPABILITIES = Capabilities(max_bytes=MAX_BASE64 // 4 * 3, min_side=15, max_side=4096)

#: () -> (API key, secret key).
Keys = Callable[[], tuple[str, str]]

#: A token is replaced this long before it expires, so that none expires on its way.
_EARLY_S = 300.0

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_TOKEN_CODES = frozenset({100, 110, 111})
_RETRIED_CODES = frozenset({1, 2, 18, 282000})
_NO_ANSWER_CODES = frozenset({216630, 216634})
_ERRORS: dict[int, type[BackendError]] = {
    **dict.fromkeys((1, 2, 282000), BackendUnavailable),
    **dict.fromkeys((4, 17, 18, 19), BackendThrottled),
    **dict.fromkeys((6, 13, 14, 15, *_TOKEN_CODES), BackendAuth),
    **dict.fromkeys((216100, 216101, 216102, 216103), BackendRejected),
    **dict.fromkeys((216200, 216201, 216202, 216203), BackendRejected),
}


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires: float  # on the client's clock
    model_version: str | None


def keys_from_environment() -> tuple[str, str]:
    """Return ``ADACOMPRESS_BAIDU_API_KEY`` and ``ADACOMPRESS_BAIDU_SECRET_KEY``.

    Raises:
        BackendAuth: one of them is not set.
    """
    names = ("ADACOMPRESS_BAIDU_API_KEY", "ADACOMPRESS_BAIDU_SECRET_KEY")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise BackendAuth(f"There are no keys for Baidu: set {' and '.join(missing)}.")
    return os.environ[names[0]], os.environ[names[1]]


def open_spec(spec: Spec) -> BaiduBackend:
    """Open ``baidu://`` (the public host), ``baidu://HOST`` or ``baidu+http://HOST:PORT``.

    On loopback a pair of placeholders stands in for missing keys: a local cloud takes any pair.
    """
    if spec.path:
        raise UsageError(f"A Baidu backend has no path, seen {spec.path!r}; write baidu://HOST.")
    host = spec.host or HOST
    local = is_loopback(host) and "ADACOMPRESS_BAIDU_API_KEY" not in os.environ
    keys = (lambda: ("local", "local")) if local else keys_from_environment
    return BaiduBackend(f"{spec.transport}://{host}", keys=keys)


class BaiduBackend:
    """The ``Backend`` of Baidu and of services that speak its dialect.

    Args:
        base_url: ``https://HOST`` or ``http://HOST:PORT``.
        keys: asked for the keys whenever a token must be bought; nothing keeps them.
        http: the transport; its policy decides about retries.
        clock: monotonic seconds, for the token's life and the latency.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        base_url: str,
        *,
        keys: Keys = keys_from_environment,
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http or HttpClient(base_url)
        self.name = f"baidu://{self._http.host}"
        self._keys, self._clock = keys, clock
        self._lock = threading.Lock()
        self._token: _Token | None = None  # under _lock

    def __repr__(self) -> str:
        return f"BaiduBackend({self.name!r})"

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one JPEG file and return the labels, best first.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``, with Baidu's code and message.
        """
        check_limits(jpeg, self.capabilities, self.name)
        started, body = self._clock(), _form(jpeg)
        token = self._valid_token()
        reply = self._upload(body, token)
        if _error_code(reply.json()) in _TOKEN_CODES:
            token = self._valid_token(instead_of=token)
            reply = self._upload(body, token)
        answer = reply.json()
        return Recognition(
            labels=self._labels(reply, answer, token),
            wire_bytes=len(body),
            latency_s=self._clock() - started,
            model_version=reply.headers.get(VERSION_HEADER),
            request_id=str(answer.get("log_id", "")),
        )

    def wire_size(self, jpeg: bytes) -> int:
        """Return the request body's size in bytes: url-encoded base64 and the field's name."""
        return len(_form(jpeg))

    def model_version(self) -> str | None:
        """Return the model that a local cloud says it serves, without spending a call.

        Baidu itself never says, so it is not asked.

        Raises:
            BackendError: the local cloud gives no token.
        """
        return self._valid_token().model_version if is_loopback(self._http.host) else None

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def _upload(self, body: bytes, token: _Token) -> Reply:
        query = {"access_token": token.text}
        return self._http.post(
            RECOGNIZE_PATH, params=query, data=body, headers=_FORM, again=_worth_another_attempt
        )

    def _labels(self, reply: Reply, answer: dict[str, Any], token: _Token) -> tuple[Label, ...]:
        code = _error_code(answer)
        if code in _NO_ANSWER_CODES:
            return ()
        if code:
            raise self._refusal(code, answer, token)
        if reply.status != 200:
            raise reply.error()
        try:
            labels = [
                Label(_text(item["keyword"]), _score(item["score"])) for item in answer["result"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise BackendProtocol(
                f"{self.name} answered a label list of another form ({type(error).__name__}: "
                f"{str(error)[:80]}); expected result[] with keyword and score."
            ) from error
        return tuple(sorted(labels, key=lambda label: -label.score))

    def _refusal(self, code: int, answer: dict[str, Any], token: _Token) -> BackendError:
        said = str(answer.get("error_msg", "no message")).replace(token.text, "***")[:200]
        kind = _ERRORS.get(code, BackendProtocol)
        return kind(f"{self.name} refused with error {code} ({said}). {_ADVICE[kind]}")

    def _valid_token(self, instead_of: _Token | None = None) -> _Token:
        """Return a token that is not about to expire and is not ``instead_of``, which failed."""
        with self._lock:  # held while asking: other threads need the same token
            token = self._token
            if token is None or token is instead_of or self._clock() >= token.expires:
                token = self._token = self._fetch_token()
            return token

    def _fetch_token(self) -> _Token:
        key, secret = self._keys()
        if not key or not secret:
            raise BackendAuth(f"A key for {self.name} is empty; give the API key and secret key.")
        query = {"grant_type": "client_credentials", "client_id": key, "client_secret": secret}
        asked = self._clock()
        reply = self._http.post(TOKEN_PATH, params=query, headers=_FORM)
        answer = reply.json()
        text, life = answer.get("access_token"), answer.get("expires_in", 0)
        if not isinstance(text, str) or not text or not isinstance(life, int | float):
            raise self._no_token(reply, answer, key, secret)
        # A life shorter than the margin still serves the call that it was bought for.
        expires = asked + max(life - _EARLY_S, life / 2)
        return _Token(text, expires, reply.headers.get(VERSION_HEADER))

    def _no_token(
        self, reply: Reply, answer: dict[str, Any], key: str, secret: str
    ) -> BackendError:
        said = str(answer.get("error_description") or answer.get("error") or "no reason given")
        said = said.replace(secret, "***").replace(key, "***")[:200]
        if "error" in answer or reply.status in (400, 401, 403):
            return BackendAuth(f"{self.name} gives no token for these keys ({said}). Check both.")
        return BackendProtocol(f"{self.name} answered a token request with something else.")


_ADVICE: dict[type[BackendError], str] = {
    BackendUnavailable: "Try again later.",
    BackendThrottled: "Send fewer pictures, or raise the account's limit.",
    BackendAuth: "Check the keys and what the account may use.",
    BackendRejected: "Sending this picture again will not help.",
    BackendProtocol: "This client does not know that code.",
}


def _form(jpeg: bytes) -> bytes:
    """Return the request body; of the base64 alphabet only these three signs need escapes."""
    text = base64.b64encode(jpeg)
    return b"image=" + text.replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D")


def _worth_another_attempt(reply: Reply) -> bool:
    try:
        return _error_code(reply.json()) in _RETRIED_CODES
    except BackendProtocol:
        return False  # the caller reads the same body and says what is wrong with it


def _error_code(answer: dict[str, Any]) -> int:
    """Return Baidu's error code, 0 for none, -1 for one that is no number."""
    try:
        return int(answer.get("error_code", 0))
    except (TypeError, ValueError):
        return -1


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a keyword is not a text")
    return value


def _score(value: Any) -> float:
    score = float(value)
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"the score {score} is not in [0, 1]")
    return score
