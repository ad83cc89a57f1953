"""Client of Face++'s scene and object recognition, ``imagepp/beta/detectsceneandobject``.

The file travels as it is, as one part of a multipart form; both keys are parts of the same form.
Answers name objects and scenes, without places and without the model that found them. A service
that speaks this dialect elsewhere, as the local cloud of ``training`` does, may name its model in
the header ``X-Model-Version``.

    >>> from edge_sdk.backends.facepp import FaceppBackend
    >>> FaceppBackend("https://api-us.faceplusplus.com", keys=lambda: ("key", "secret"))
    FaceppBackend('facepp://api-us.faceplusplus.com')
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from urllib3 import encode_multipart_formdata

from edge_sdk.backends.baidu import VERSION_HEADER
from edge_sdk.backends.base import Capabilities, Label, Recognition
from edge_sdk.backends.http import HttpClient, Reply
from edge_sdk.backends.keys import Keys, address, from_environment, keys_for
from edge_sdk.backends.limits import check_limits
from edge_sdk.backends.parsing import best_first, dialect, score, text
from edge_sdk.backends.prices import price
from edge_sdk.backends.spec import Spec
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

__all__ = ["CAPABILITIES", "KEYS", "RECOGNIZE_PATH", "FaceppBackend", "open_spec"]

HOST = "api-us.faceplusplus.com"  # accounts of the other site are at api-cn.faceplusplus.com
RECOGNIZE_PATH = "/imagepp/beta/detectsceneandobject"

CAPABILITIES = Capabilities(
    max_bytes=2 * 1024 * 1024,
    min_side=48,
    max_side=4096,
    formats=("JPEG", "PNG"),
    encoding="multipart",
    price_usd=price("facepp"),
)

#: The API key and the API secret.
KEYS = ("ADACOMPRESS_FACEPP_API_KEY", "ADACOMPRESS_FACEPP_API_SECRET")

#: What an ``error_message`` begins with; a colon and the reason may follow.
_CODE = re.compile(r"[A-Z_]+")
_ERRORS: dict[str, type[BackendError]] = {
    "CONCURRENCY_LIMIT_EXCEEDED": BackendThrottled,
    **dict.fromkeys(
        ("AUTHENTICATION_ERROR", "AUTHORIZATION_ERROR", "INSUFFICIENT_PERMISSION"), BackendAuth
    ),
    **dict.fromkeys(
        (
            "BAD_ARGUMENTS",
            "COEXISTENCE_ARGUMENTS",
            "IMAGE_ERROR_UNSUPPORTED_FORMAT",
            "INVALID_IMAGE_SIZE",
            "INVALID_IMAGE_URL",
            "MISSING_ARGUMENTS",
        ),
        BackendRejected,
    ),
    "IMAGE_FILE_TOO_LARGE": BackendTooLarge,
    "API_NOT_FOUND": BackendProtocol,
    **dict.fromkeys(("IMAGE_DOWNLOAD_TIMEOUT", "INTERNAL_ERROR"), BackendUnavailable),
}

#: The one reason of an ``AUTHORIZATION_ERROR`` that money cures.
_NO_MONEY = "insufficient account balance"


def open_spec(spec: Spec) -> FaceppBackend:
    """Open ``facepp://`` (the public host), ``facepp://HOST`` or ``facepp+http://HOST:PORT``."""
    if spec.path:
        raise UsageError(f"A Face++ backend has no path, seen {spec.path!r}; write facepp://HOST.")
    return FaceppBackend(address(spec, HOST), keys=keys_for(spec.host, "Face++", *KEYS))


class FaceppBackend:
    """The ``Backend`` of Face++ and of services that speak its dialect.

    Args:
        base_url: ``https://HOST`` or ``http://HOST:PORT``.
        keys: asked for ``KEYS`` for every upload; default is the environment.
        http: the transport; its policy decides about retries.
        clock: monotonic seconds, for the latency.
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
        self.name = f"facepp://{self._http.host}"
        self._keys, self._clock = keys or from_environment("Face++", *KEYS), clock

    def __repr__(self) -> str:
        return f"FaceppBackend({self.name!r})"

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one JPEG file and return objects and scenes together, best first.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``, with Face++'s code and message.
        """
        size = check_limits(jpeg, self.capabilities, self.name)
        keys = self._both_keys()
        started = self._clock()
        body, headers = _form(keys, jpeg)

        def read(reply: Reply) -> tuple[dict[str, Any], str | None]:
            answer = reply.json()
            if answer.get("error_message"):
                raise _refusal(reply, str(answer["error_message"]), keys)
            if reply.status != 200:
                raise reply.error(secrets=keys)
            return answer, reply.headers.get(VERSION_HEADER)

        answer, version = self._http.post(RECOGNIZE_PATH, read, data=body, headers=headers)
        return Recognition(
            labels=self._labels(answer),
            wire_bytes=len(body),
            latency_s=self._clock() - started,
            model_version=version,
            request_id=str(answer.get("request_id", "")),
            size=size,
        )

    def wire_size(self, jpeg: bytes) -> int:
        """Return the request body's size in bytes: the form with the file and both keys in it.

        Raises:
            BackendAuth: there are no keys, whose length counts.
        """
        return len(_form(self._both_keys(), jpeg)[0])

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def _both_keys(self) -> tuple[str, ...]:
        keys = self._keys()
        if not all(keys):
            raise BackendAuth(f"A key for {self.name} is empty; give the API key and secret.")
        return keys

    def _labels(self, answer: dict[str, Any]) -> tuple[Label, ...]:
        with dialect(self.name, "objects[] and scenes[] with value and confidence"):
            found = [*answer["objects"], *answer["scenes"]]
            return best_first(
                Label(text(item["value"]), score(item["confidence"], 100.0)) for item in found
            )


def _form(keys: tuple[str, ...], jpeg: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body and its headers.

    The boundary is random, so that no file can contain it; its length is fixed, hence the body's.
    """
    key, secret = keys
    fields: dict[str, str | tuple[str, bytes, str]] = {
        "api_key": key,
        "api_secret": secret,
        "image_file": ("image.jpg", jpeg, "image/jpeg"),
    }
    body, kind = encode_multipart_formdata(fields, boundary=secrets.token_hex(16))
    return body, {"Content-Type": kind}


def _refusal(reply: Reply, said: str, keys: tuple[str, ...]) -> BackendError:
    named = _CODE.match(said)
    code = named[0] if named else ""
    kind = _ERRORS.get(code)
    if kind is BackendAuth and _NO_MONEY in said.lower():
        kind = BackendQuota
    return reply.error(kind, code, said, secrets=keys)
