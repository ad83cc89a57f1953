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
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.backends.http import HttpClient, Reply
from edge_sdk.backends.keys import Keys, address, from_environment, keys_for
from edge_sdk.backends.limits import check_limits
from edge_sdk.backends.parsing import best_first, dialect, score, text
from edge_sdk.backends.prices import price
from edge_sdk.backends.refusals import refusal
from edge_sdk.backends.spec import Spec, is_loopback
from edge_sdk.errors import (
    BackendAuth,
    BackendProtocol,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
)
from model_store.errors import BackendError, UsageError

__all__ = [
    "CAPABILITIES",
    "KEYS",
    "MAX_BASE64",
    "RECOGNIZE_PATH",
    "TOKEN_PATH",
    "VERSION_HEADER",
    "BaiduBackend",
    "open_spec",
]

HOST = "aip.baidubce.com"
TOKEN_PATH = "/oauth/2.0/token"
RECOGNIZE_PATH = "/rest/2.0/image-classify/v2/advanced_general"
VERSION_HEADER = "X-Model-Version"

#: The documented limit: the base64 text is shorter than 4 MB. Three bytes become four characters.
MAX_BASE64 = 4 * 1024 * 1024 - 1
CAPABILITIES = Capabilities(
    max_bytes=MAX_BASE64 // 4 * 3,
    min_side=15,
    max_side=4096,
    formats=("JPEG", "PNG", "BMP"),
    encoding="form",
    price_usd=price("baidu"),
)

#: The API key and the secret key.
KEYS = ("ADACOMPRESS_BAIDU_API_KEY", "ADACOMPRESS_BAIDU_SECRET_KEY")

#: A token is replaced this long before it expires, so that none expires on its way.
_EARLY_S = 300.0

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_TOKEN_CODES = frozenset({"100", "110", "111"})
_NO_ANSWER_CODES = frozenset({216630, 216634})
_ERRORS: dict[int, type[BackendError]] = {
    **dict.fromkeys((1, 2, 282000), BackendUnavailable),
    18: BackendThrottled,
    **dict.fromkeys((4, 17, 19), BackendQuota),
    **dict.fromkeys((6, 13, 14, 15, 100, 110, 111), BackendAuth),
    **dict.fromkeys((216100, 216101, 216102, 216103), BackendRejected),
    **dict.fromkeys((216200, 216201, 216203), BackendRejected),
    216202: BackendTooLarge,
}


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires: float  # on the client's clock
    model_version: str | None


def open_spec(spec: Spec) -> BaiduBackend:
    """Open ``baidu://`` (the public host), ``baidu://HOST`` or ``baidu+http://HOST:PORT``."""
    if spec.path:
        raise UsageError(f"A Baidu backend has no path, seen {spec.path!r}; write baidu://HOST.")
    return BaiduBackend(address(spec, HOST), keys=keys_for(spec.host, "Baidu", *KEYS))


class BaiduBackend:
    """The ``Backend`` of Baidu and of services that speak its dialect.

    Args:
        base_url: ``https://HOST`` or ``http://HOST:PORT``.
        keys: asked for ``KEYS`` whenever a token must be bought; default is the environment.
        http: the transport; its policy decides about retries.
        clock: monotonic seconds, for the token's life and the latency.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        base_url: str,
        *,
        keys: Keys | None = None,
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http or HttpClient(base_url)
        self.name = f"baidu://{self._http.host}"
        self._keys, self._clock = keys or from_environment("Baidu", *KEYS), clock
        self._lock = threading.Lock()
        self._token: _Token | None = None  # under _lock

    def __repr__(self) -> str:
        return f"BaiduBackend({self.name!r})"

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one JPEG file and return the labels, best first.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``, with Baidu's code and message.
        """
        size = check_limits(jpeg, self.capabilities, self.name)
        started, body = self._clock(), _form(jpeg)
        token = self._valid_token()
        try:
            answer, version = self._upload(body, token)
        except BackendAuth as error:
            if error.code not in _TOKEN_CODES:
                raise
            token = self._valid_token(instead_of=token)
            answer, version = self._upload(body, token)
        return Recognition(
            labels=self._labels(answer),
            wire_bytes=len(body),
            latency_s=self._clock() - started,
            model_version=version,
            request_id=str(answer.get("log_id", "")),
            size=size,
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

    def _upload(self, body: bytes, token: _Token) -> tuple[dict[str, Any], str | None]:
        """Return the answer, which is no refusal, and the model's version if it was told."""

        def read(reply: Reply) -> tuple[dict[str, Any], str | None]:
            answer = reply.json()
            code = _error_code(answer)
            if code and code not in _NO_ANSWER_CODES:
                raise self._refusal(code, answer, token)
            if not code and reply.status != 200:
                raise reply.error(secrets=(token.text,))
            return answer, reply.headers.get(VERSION_HEADER)

        query = {"access_token": token.text}
        return self._http.post(RECOGNIZE_PATH, read, params=query, data=body, headers=_FORM)

    def _labels(self, answer: dict[str, Any]) -> tuple[Label, ...]:
        if _error_code(answer) in _NO_ANSWER_CODES:
            return ()
        with dialect(self.name, "result[] with keyword and score"):
            return best_first(
                Label(text(item["keyword"]), score(item["score"])) for item in answer["result"]
            )

    def _refusal(self, code: int, answer: dict[str, Any], token: _Token) -> BackendError:
        kind = _ERRORS.get(code, BackendProtocol)
        said = answer.get("error_msg")
        return refusal(kind, self.name, str(code), said, secrets=(token.text,))

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
        asked = self._clock()

        def read(reply: Reply) -> _Token:
            answer = reply.json()
            token, life = answer.get("access_token"), answer.get("expires_in", 0)
            if not isinstance(token, str) or not token or not isinstance(life, int | float):
                raise self._no_token(reply, answer, (secret, key))
            # A life shorter than the margin still serves the call that it was bought for.
            expires = asked + max(life - _EARLY_S, life / 2)
            return _Token(token, expires, reply.headers.get(VERSION_HEADER))

        query = {"grant_type": "client_credentials", "client_id": key, "client_secret": secret}
        return self._http.post(TOKEN_PATH, read, params=query, headers=_FORM)

    def _no_token(
        self, reply: Reply, answer: dict[str, Any], keys: tuple[str, str]
    ) -> BackendError:
        if reply.status == 429 or reply.status >= 500:
            return reply.error(secrets=keys)
        if "error" in answer or reply.status in (400, 401, 403):
            said = answer.get("error_description") or answer.get("error")
            return refusal(
                BackendAuth, self.name, str(answer.get("error", reply.status)), said, secrets=keys
            )
        return BackendProtocol(f"{self.name} answered a token request with something else.")


def _form(jpeg: bytes) -> bytes:
    """Return the request body; of the base64 alphabet only these three signs need escapes."""
    text = base64.b64encode(jpeg)
    return b"image=" + text.replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D")


def _error_code(answer: dict[str, Any]) -> int:
    """Return Baidu's error code, 0 for none, -1 for one that is no number."""
    try:
        return int(answer.get("error_code", 0))
    except (TypeError, ValueError):
        return -1
