"""Azure AI Vision's dialect from the service's side: ``imageanalysis:analyze`` of octets.

What is not there is refused with a reason: pictures by address, other features than tags and
objects.
"""

from __future__ import annotations

import hmac
import uuid
from typing import Any

from edge_sdk.backends.azure import ANALYZE_PATH, CAPABILITIES, KEY_HEADER, REQUEST_ID_HEADER
from edge_sdk.backends.base import Box
from training.cloud.dialects.base import (
    Answer,
    Fault,
    ImageFault,
    Request,
    Response,
    Rules,
    inspect,
)

__all__ = ["Azure"]

_FEATURES = {"tags", "objects"}
_FAULTS = {
    Fault.THROTTLED: (429, "429", "Rate limit is exceeded. Try again in 1 seconds."),
    Fault.UNAVAILABLE: (503, "ServiceUnavailable", "The service is temporarily unavailable."),
    Fault.TOKEN: (401, "401", "Access denied due to invalid subscription key."),
}
_IMAGE_FAULTS = {
    ImageFault.EMPTY: ("InvalidImageFormat", "The input data is empty."),
    ImageFault.FORMAT: ("InvalidImageFormat", "The input data is not a valid image."),
    ImageFault.TOO_MANY_BYTES: (
        "InvalidImageSize",
        f"The image is larger than {CAPABILITIES.max_bytes} bytes.",
    ),
    ImageFault.SIDES: (
        "InvalidImageSize",
        f"The sides are to have {CAPABILITIES.min_side} to {CAPABILITIES.max_side} pixels.",
    ),
}


class Azure:
    """``computervision/imageanalysis:analyze``, version 4.0."""

    name, tokens, streams = "azure", False, False

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def spec(self, url: str) -> str:
        """Return ``azure+http://HOST:PORT``."""
        return f"azure+{url}"

    def mine(self, request: Request) -> bool:
        """Tell by method and path."""
        return request.method == "POST" and request.path == ANALYZE_PATH

    def picture(self, request: Request, now: float, request_id: str) -> bytes | Response:
        """Return the body, or a refusal of the key, the query or the picture."""
        if not self._knows(request.headers.get(KEY_HEADER.lower(), "")):
            return self.refuse(Fault.TOKEN, request_id)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/octet-stream":
            said = "Only application/octet-stream is read here; nothing is fetched."
            return _error(415, "UnsupportedMediaType", said, request_id)
        if not request.query.get("api-version"):
            return _invalid("BadArgument", "The query has no api-version.", request_id)
        if not _features(request) or not _features(request) <= _FEATURES:
            said = "Only the features tags and objects are offered here."
            return _invalid("NotSupportedVisualFeature", said, request_id)
        wrong = inspect(request.body, CAPABILITIES)
        return request.body if wrong is None else _invalid(*_IMAGE_FAULTS[wrong], request_id)

    def respond(self, request: Request, answer: Answer) -> Response:
        """Return the model's version, the picture's size, and the results that were asked for."""
        width, height = answer.size
        document: dict[str, Any] = {
            "modelVersion": answer.model,
            "metadata": {"width": width, "height": height},
        }
        if "tags" in _features(request):
            document["tagsResult"] = {"values": _tags(answer)}
        if "objects" in _features(request):
            document["objectsResult"] = {"values": _objects(answer)}
        return Response(document, headers=_identity(answer.request_id))

    def refuse(self, fault: Fault, request_id: str) -> Response:
        """Return the error document; a picture that cannot be processed is a 400 here, too."""
        if fault is Fault.IMAGE:
            return _invalid(*_IMAGE_FAULTS[ImageFault.FORMAT], request_id)
        refused = _error(*_FAULTS[fault], request_id)
        wait = {"Retry-After": "1"} if fault is Fault.THROTTLED else {}
        return Response(refused.content, refused.status, {**refused.headers, **wait})

    def _knows(self, key: str) -> bool:
        return bool(key) and any(
            hmac.compare_digest(key.encode(), one.encode())
            for one in self._rules.keys.get(self.name, (key,))
        )


def _features(request: Request) -> set[str]:
    return {name.lower() for name in request.query.get("features", "").split(",") if name}


def _tags(answer: Answer) -> list[dict[str, Any]]:
    best: dict[str, float] = {}
    for label in answer.labels:  # best first
        best.setdefault(label.name, label.score)
    return [{"name": name, "confidence": score} for name, score in best.items()]


def _objects(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "boundingBox": _whole_pixels(label.box),
            "tags": [{"name": label.name, "confidence": label.score}],
        }
        for label in answer.labels
        if label.box is not None
    ]


def _whole_pixels(box: Box) -> dict[str, int]:
    left, top = round(box.left), round(box.top)
    right, bottom = round(box.left + box.width), round(box.top + box.height)
    return {"x": left, "y": top, "w": right - left, "h": bottom - top}


def _invalid(inner: str, said: str, request_id: str) -> Response:
    return _error(400, "InvalidRequest", said, request_id, {"code": inner, "message": said})


def _error(
    status: int, code: str, said: str, request_id: str, inner: dict[str, str] | None = None
) -> Response:
    error: dict[str, Any] = {"code": code, "message": said}
    if inner is not None:
        error["innererror"] = inner
    return Response({"error": error}, status, _identity(request_id))


def _identity(request_id: str) -> dict[str, str]:
    return {REQUEST_ID_HEADER: str(uuid.UUID(hex=request_id))}
