"""Client of Azure AI Vision's ``imageanalysis:analyze``: tags, objects with boxes, or both.

The picture travels as it is, the key in a header. Every feature is billed. Answers name the model.
Microsoft retires the service in September 2028.

    >>> from edge_sdk.backends.azure import AzureBackend
    >>> AzureBackend("https://name.cognitiveservices.azure.com", keys=lambda: ("key",))
    AzureBackend('azure://name.cognitiveservices.azure.com')
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from edge_sdk.backends.baidu import VERSION_HEADER
from edge_sdk.backends.base import Box, Capabilities, Label, Recognition
from edge_sdk.backends.http import HttpClient, Reply
from edge_sdk.backends.keys import Keys, address, for_header, from_environment, keys_for
from edge_sdk.backends.limits import check_limits
from edge_sdk.backends.parsing import best_first, box, dialect, score, text
from edge_sdk.backends.prices import price
from edge_sdk.backends.refusals import kind_of_status
from edge_sdk.backends.spec import Spec, is_loopback
from edge_sdk.errors import BackendQuota, BackendRejected, BackendTooLarge
from model_store.errors import BackendError, UsageError

__all__ = [
    "ANALYZE_PATH",
    "API_VERSION",
    "CAPABILITIES",
    "KEYS",
    "KEY_HEADER",
    "REQUEST_ID_HEADER",
    "AzureBackend",
    "open_spec",
]

T = TypeVar("T")

ANALYZE_PATH = "/computervision/imageanalysis:analyze"
API_VERSION = "2023-10-01"
KEY_HEADER = "Ocp-Apim-Subscription-Key"
REQUEST_ID_HEADER = "apim-request-id"

#: The subscription key.
KEYS = ("ADACOMPRESS_AZURE_KEY",)

#: The variable of Microsoft's own examples, read if ``KEYS`` is not set.
_VENDORS_KEYS = ("VISION_KEY",)

CAPABILITIES = Capabilities(
    max_bytes=20 * 1024 * 1024,
    min_side=50,
    max_side=16_000,
    formats=("JPEG", "PNG", "GIF", "BMP", "WEBP", "ICO", "TIFF"),  # and MPO, to Pillow a JPEG
    encoding="raw",
    tells_version=True,
    price_usd=price("azure"),
)

#: What a specification's path asks for.
_FEATURES = {"tags": ("tags",), "objects": ("objects",), "tags+objects": ("tags", "objects")}

_OCTETS = {"Content-Type": "application/octet-stream"}

#: The inner code of a 400 says more than its status.
_KINDS: Mapping[str, type[BackendError]] = {
    "InvalidImageFormat": BackendRejected,
    "InvalidImageSize": BackendTooLarge,
}


def open_spec(spec: Spec) -> AzureBackend:
    """Open ``azure://NAME.cognitiveservices.azure.com``, perhaps with ``/objects``."""
    if not spec.host:
        raise UsageError(
            "An Azure backend is one's own resource and has no common host; write "
            "azure://NAME.cognitiveservices.azure.com, the endpoint that the resource shows."
        )
    names = KEYS
    if os.environ.get(_VENDORS_KEYS[0]) and not os.environ.get(KEYS[0]):
        names = _VENDORS_KEYS
    keys = keys_for(spec.host, "Azure", *names)
    return AzureBackend(address(spec, spec.host), spec.path or "tags", keys=keys)


class AzureBackend:
    """The ``Backend`` of Azure AI Vision 4.0 and of services that speak its dialect.

    Args:
        base_url: ``https://HOST`` or ``http://HOST:PORT``.
        features: ``tags``, ``objects`` or ``tags+objects``, each billed.
        keys: asked for ``KEYS`` before every request; default is the environment.
        http: the transport; its policy decides about retries.
        clock: monotonic seconds, for the latency.
    """

    def __init__(
        self,
        base_url: str,
        features: str = "tags",
        *,
        keys: Keys | None = None,
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if features not in _FEATURES:
            raise UsageError(
                f"An Azure backend was asked for {features!r}; allowed are {', '.join(_FEATURES)}, "
                "as in azure://NAME.cognitiveservices.azure.com/objects."
            )
        self._http = http or HttpClient(base_url)
        path = "" if features == "tags" else f"/{features}"
        # Answers of other features are other answers, so the name tells them apart.
        self.name = f"azure://{self._http.host}{path}"
        self._features, self._clock = _FEATURES[features], clock
        self._keys = keys or from_environment("Azure", *KEYS)
        self.capabilities = replace(
            CAPABILITIES,
            boxes="objects" in self._features,
            price_usd=price(*("azure" for _ in self._features)),
        )

    def __repr__(self) -> str:
        return f"AzureBackend({self.name!r})"

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one JPEG file and return the labels, best first.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``, with Azure's code and message.
        """
        size = check_limits(jpeg, self.capabilities, self.name)
        started, key = self._clock(), self._key()

        def read(reply: Reply) -> tuple[dict[str, Any], str]:
            if reply.status != 200:
                raise _refusal(reply, key)
            return reply.json(), reply.headers.get(REQUEST_ID_HEADER, "")

        answer, request_id = self._post(read, jpeg, key)
        with dialect(self.name, "modelVersion, tagsResult and objectsResult"):
            labels, version = self._labels(answer), text(answer["modelVersion"])
        return Recognition(
            labels=labels,
            wire_bytes=len(jpeg),
            latency_s=self._clock() - started,
            model_version=version,
            request_id=request_id,
            size=size,
        )

    def wire_size(self, jpeg: bytes) -> int:
        """Return the request body's size in bytes: the file's own."""
        return len(jpeg)

    def model_version(self) -> str | None:
        """Return the model that a local cloud says it serves, without spending a call.

        Azure says it in its answers only, which cost money.

        Raises:
            BackendError: the local cloud cannot be reached.
        """
        if not is_loopback(self._http.host):
            return None
        # A request without a picture is refused, in the name of the model.
        return self._post(lambda reply: reply.headers.get(VERSION_HEADER), b"", self._key())

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def _post(self, read: Callable[[Reply], T], body: bytes, key: str) -> T:
        # As the vendor's client writes it: requests would escape the comma.
        path = f"{ANALYZE_PATH}?api-version={API_VERSION}&features={','.join(self._features)}"
        return self._http.post(path, read, data=body, headers=_OCTETS | {KEY_HEADER: key})

    def _key(self) -> str:
        (key,) = self._keys()
        return for_header(key, self.name)

    def _labels(self, answer: dict[str, Any]) -> tuple[Label, ...]:
        labels = []
        if "tags" in self._features:
            labels += [_label(tag) for tag in answer["tagsResult"]["values"]]
        if "objects" in self._features:
            for item in answer["objectsResult"]["values"]:
                labels.append(_label(item["tags"][0], _box(item["boundingBox"])))
        return best_first(labels)


def _label(tag: Mapping[str, Any], where: Box | None = None) -> Label:
    return Label(text(tag["name"]), score(tag["confidence"]), where)


def _box(told: Mapping[str, Any]) -> Box:
    return box(told["x"], told["y"], told["w"], told["h"])


def _refusal(reply: Reply, key: str) -> BackendError:
    try:
        document = reply.json()
    except BackendError:  # a gateway's page; its status says enough
        document = {}
    error = _document(document.get("error", document))  # a gateway may leave out the envelope
    inner = _document(error.get("innererror"))
    code = str(inner.get("code") or error.get("code") or "")
    said = str(inner.get("message") or error.get("message") or "")
    kind = _KINDS.get(code) or kind_of_status(reply.status)
    if reply.status == 403 and "quota" in said.lower():
        kind = BackendQuota
    return reply.error(kind, code, said, (key,))


def _document(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
