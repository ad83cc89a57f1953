"""Client of Google Cloud Vision's ``images:annotate``: labels, objects with boxes, or both.

The picture travels as base64 inside JSON; an API key or an OAuth token travels in a header. Every
feature is billed. A refusal is an HTTP error, or an ``error`` in place of the picture's answer
inside HTTP 200. Google does not name the model that answered; a local cloud does in a header.

    >>> from edge_sdk.backends.google import GoogleBackend
    >>> GoogleBackend("https://vision.googleapis.com", "objects", keys=lambda: ("key",))
    GoogleBackend('google://vision.googleapis.com/objects')
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edge_sdk.backends.baidu import VERSION_HEADER
from edge_sdk.backends.base import Box, Capabilities, Label, Recognition
from edge_sdk.backends.http import HttpClient, Reply
from edge_sdk.backends.keys import Keys, address, for_header, from_environment, keys_for
from edge_sdk.backends.limits import check_limits
from edge_sdk.backends.parsing import best_first, box, dialect, score, text
from edge_sdk.backends.prices import price
from edge_sdk.backends.refusals import kind_of_status
from edge_sdk.backends.spec import Spec, is_loopback
from edge_sdk.errors import (
    BackendAuth,
    BackendQuota,
    BackendRejected,
    BackendThrottled,
    BackendTooLarge,
    BackendUnavailable,
)
from model_store.errors import BackendError, UsageError

__all__ = [
    "ANNOTATE_PATH",
    "CAPABILITIES",
    "KEYS",
    "MAX_REQUEST",
    "MAX_RESULTS",
    "TOKEN",
    "GoogleBackend",
    "open_spec",
]

HOST = "vision.googleapis.com"
ANNOTATE_PATH = "/v1/images:annotate"

#: The API key.
KEYS = ("ADACOMPRESS_GOOGLE_API_KEY",)

#: An OAuth access token, used if there is no API key.
TOKEN = ("ADACOMPRESS_GOOGLE_TOKEN",)

#: Entries asked for per feature; what Google gives unasked.
MAX_RESULTS = 10

#: What a specification's path asks for.
_FEATURES = {
    "labels": ("LABEL_DETECTION",),
    "objects": ("OBJECT_LOCALIZATION",),
    "labels+objects": ("LABEL_DETECTION", "OBJECT_LOCALIZATION"),
}


def _envelope(features: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Return what of the request body comes before and after the picture."""
    asked = [{"type": name, "maxResults": MAX_RESULTS} for name in features]
    document = {"requests": [{"image": {"content": "|"}, "features": asked}]}
    before, _, after = json.dumps(document, separators=(",", ":")).encode().partition(b"|")
    return before, after


#: The documented limit of the JSON document in bytes. It binds before the 20 MB for the file do.
MAX_REQUEST = 10 * 1024 * 1024
_LARGEST_ENVELOPE = sum(map(len, _envelope(_FEATURES["labels+objects"])))
CAPABILITIES = Capabilities(
    max_bytes=(MAX_REQUEST - _LARGEST_ENVELOPE) // 4 * 3,
    min_side=1,
    max_side=65_535,  # none is documented; this one is JPEG's own
    max_pixels=75_000_000,
    formats=("JPEG", "PNG", "GIF", "BMP", "WEBP", "ICO", "TIFF"),
    encoding="base64",
    price_usd=price("google:LABEL_DETECTION"),
)

_JSON = {"Content-Type": "application/json"}

#: Canonical codes (google.rpc.Code), by the names that HTTP errors carry.
_KINDS: Mapping[str, type[BackendError]] = {
    "INVALID_ARGUMENT": BackendRejected,
    "RESOURCE_EXHAUSTED": BackendThrottled,
    **dict.fromkeys(("PERMISSION_DENIED", "UNAUTHENTICATED"), BackendAuth),
    **dict.fromkeys(("UNKNOWN", "DEADLINE_EXCEEDED"), BackendUnavailable),
    **dict.fromkeys(("INTERNAL", "UNAVAILABLE"), BackendUnavailable),
}

#: The same codes by the numbers that errors of single pictures carry.
_NUMBERS = {
    "2": "UNKNOWN",
    "3": "INVALID_ARGUMENT",
    "4": "DEADLINE_EXCEEDED",
    "7": "PERMISSION_DENIED",
    "8": "RESOURCE_EXHAUSTED",
    "13": "INTERNAL",
    "14": "UNAVAILABLE",
    "16": "UNAUTHENTICATED",
}

#: Where one code stands for several things, a part of the error tells which.
_TELLTALES = (
    ("INVALID_ARGUMENT", "API_KEY_", BackendAuth),  # the reason of a key that is not valid
    ("INVALID_ARGUMENT", "too large", BackendTooLarge),
    ("INVALID_ARGUMENT", "exceeds the limit", BackendTooLarge),
    ("RESOURCE_EXHAUSTED", "per day", BackendQuota),
)


def open_spec(spec: Spec) -> GoogleBackend:
    """Open ``google://``, ``google://HOST/objects`` or ``google+http://HOST:PORT``."""
    url = address(spec, HOST)
    features = spec.path or "labels"
    if os.environ.get(TOKEN[0]) and not os.environ.get(KEYS[0]):
        tokens = from_environment("Google", *TOKEN)
        return GoogleBackend(url, features, token=lambda: tokens()[0])
    return GoogleBackend(url, features, keys=keys_for(spec.host, "Google", *KEYS))


class GoogleBackend:
    """The ``Backend`` of Google Cloud Vision and of services that speak its dialect.

    Args:
        base_url: ``https://HOST`` or ``http://HOST:PORT``.
        features: ``labels``, ``objects`` or ``labels+objects``, each billed.
        keys: asked for ``KEYS`` before every request; default is the environment.
        token: asked for an OAuth access token instead, and again if one is refused.
        http: the transport; its policy decides about retries.
        clock: monotonic seconds, for the latency.
    """

    def __init__(
        self,
        base_url: str,
        features: str = "labels",
        *,
        keys: Keys | None = None,
        token: Callable[[], str] | None = None,
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if features not in _FEATURES:
            raise UsageError(
                f"A Google backend was asked for {features!r}; allowed are {', '.join(_FEATURES)}, "
                "as in google://vision.googleapis.com/objects."
            )
        self._http = http or HttpClient(base_url)
        path = "" if features == "labels" else f"/{features}"
        # Answers of other features are other answers, so the name tells them apart.
        self.name = f"google://{self._http.host}{path}"
        self._keys, self._token = keys or from_environment("Google", *KEYS), token
        self._envelope, self._clock = _envelope(_FEATURES[features]), clock
        self.capabilities = replace(
            CAPABILITIES,
            boxes="objects" in features,
            price_usd=price(*(f"google:{name}" for name in _FEATURES[features])),
        )

    def __repr__(self) -> str:
        return f"GoogleBackend({self.name!r})"

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one JPEG file and return the labels, best first.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``, with Google's code and message.
        """
        size = check_limits(jpeg, self.capabilities, self.name)
        started = self._clock()
        body = base64.b64encode(jpeg).join(self._envelope)
        answer, version = self._upload(body)
        return Recognition(
            labels=self._labels(answer, size),
            wire_bytes=len(body),
            latency_s=self._clock() - started,
            model_version=version,
            size=size,
        )

    def wire_size(self, jpeg: bytes) -> int:
        """Return the request body's size in bytes: base64 and the JSON around it."""
        return sum(map(len, self._envelope)) + -(-len(jpeg) // 3) * 4

    def model_version(self) -> str | None:
        """Return the model that a local cloud says it serves, without spending a call.

        Google itself never says, so it is not asked.

        Raises:
            BackendError: the local cloud cannot be reached.
        """
        if not is_loopback(self._http.host):
            return None
        headers = _JSON | self._credential()
        # A request without pictures is refused, in the name of the model.
        return self._http.post(ANNOTATE_PATH, _version, data=b'{"requests":[]}', headers=headers)

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def _upload(self, body: bytes) -> tuple[dict[str, Any], str | None]:
        """Return the picture's answer, which is no refusal, and the model if it was told."""
        credential = self._credential()
        try:
            return self._post(body, credential)
        except BackendAuth:
            fresh = self._credential()
            if fresh == credential:
                raise
            return self._post(body, fresh)

    def _post(self, body: bytes, credential: dict[str, str]) -> tuple[dict[str, Any], str | None]:
        secrets = tuple(value.removeprefix("Bearer ") for value in credential.values())

        def read(reply: Reply) -> tuple[dict[str, Any], str | None]:
            if reply.status != 200:
                raise _refusal(reply, _parsed(reply).get("error"), secrets)
            with dialect(self.name, "responses[] with one entry"):
                (answer,) = reply.json()["responses"]
                error = answer.get("error")
            if error:
                raise _refusal(reply, error, secrets)
            return answer, _version(reply)

        return self._http.post(ANNOTATE_PATH, read, data=body, headers=_JSON | credential)

    def _credential(self) -> dict[str, str]:
        """Return the header that tells who asks; the API key is not for the URL."""
        secret = for_header(self._token() if self._token else self._keys()[0], self.name)
        return {"Authorization": f"Bearer {secret}"} if self._token else {"X-Goog-Api-Key": secret}

    def _labels(self, answer: dict[str, Any], size: tuple[int, int]) -> tuple[Label, ...]:
        """Return both lists as one; JSON made from protocol buffers leaves out what is 0 or []."""
        with dialect(self.name, "labelAnnotations[] and localizedObjectAnnotations[]"):
            labels = [
                Label(text(item["description"]), score(item.get("score", 0.0)))
                for item in answer.get("labelAnnotations", ())
            ]
            objects = [
                Label(text(item["name"]), score(item.get("score", 0.0)), _box(item, size))
                for item in answer.get("localizedObjectAnnotations", ())
            ]
            return best_first(labels + objects)


def _version(reply: Reply) -> str | None:
    return reply.headers.get(VERSION_HEADER)


def _box(item: dict[str, Any], size: tuple[int, int]) -> Box:
    """Return the smallest box around a polygon that is given in shares of the sides."""
    vertices = item["boundingPoly"]["normalizedVertices"]
    across = [vertex.get("x", 0.0) * size[0] for vertex in vertices]
    down = [vertex.get("y", 0.0) * size[1] for vertex in vertices]
    left, top = min(across), min(down)
    return box(left, top, max(across) - left, max(down) - top)


def _parsed(reply: Reply) -> dict[str, Any]:
    """Return a refusal's document; that of a gateway may be none, its status says enough."""
    try:
        return reply.json()
    except BackendError:
        return {}


def _refusal(reply: Reply, error: object, secrets: tuple[str, ...]) -> BackendError:
    told = error if isinstance(error, dict) else {}
    code = str(told.get("status") or _NUMBERS.get(str(told.get("code")), ""))
    kind = _KINDS.get(code) or kind_of_status(reply.status)
    for name, part, better in _TELLTALES:
        if name == code and part in str(told):
            kind = better
            break
    return reply.error(kind, code, told.get("message"), secrets)
