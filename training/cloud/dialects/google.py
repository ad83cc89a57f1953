"""Google Cloud Vision's dialect from the service's side: ``images:annotate`` for one picture.

What is not there is refused with a reason: pictures by address, other features than labels and
objects, more than one picture in a request. Keys are optional, as the vendor's own client knows an
anonymous way, unless the server names the accepted ones.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

from edge_sdk.backends.base import Box
from edge_sdk.backends.google import ANNOTATE_PATH, CAPABILITIES, MAX_REQUEST, MAX_RESULTS
from training.cloud.dialects.base import (
    Answer,
    Fault,
    ImageFault,
    Request,
    Response,
    Rules,
    inspect,
)

__all__ = ["Google"]

_LABELS, _OBJECTS = "LABEL_DETECTION", "OBJECT_LOCALIZATION"

#: Clients write a feature's name, or its number in the protocol buffer.
_FEATURES: Mapping[str | int, str] = {
    _LABELS: _LABELS,
    4: _LABELS,
    _OBJECTS: _OBJECTS,
    19: _OBJECTS,
}

_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
_FAULTS = {
    Fault.THROTTLED: ("RESOURCE_EXHAUSTED", "Quota exceeded for requests per minute."),
    Fault.UNAVAILABLE: ("UNAVAILABLE", "The service is currently unavailable."),
    Fault.TOKEN: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
}
_BAD_IMAGE = "Bad image data."
_IMAGE_FAULTS = {
    ImageFault.EMPTY: "Request must specify image and features.",
    ImageFault.FORMAT: _BAD_IMAGE,
    ImageFault.TOO_MANY_BYTES: "Image too large.",
    ImageFault.SIDES: "Image too large. Please limit to 75 megapixels.",
}


class _Refused(Exception):
    def __init__(self, response: Response) -> None:
        self.response = response


class Google:
    """``v1/images:annotate``."""

    name, tokens, streams = "google", False, False

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def spec(self, url: str) -> str:
        """Return ``google+http://HOST:PORT``."""
        return f"google+{url}"

    def mine(self, request: Request) -> bool:
        """Tell by method and path."""
        return request.method == "POST" and request.path == ANNOTATE_PATH

    def picture(self, request: Request, now: float, request_id: str) -> bytes | Response:
        """Return the one picture, or a refusal: of the request, or of the picture in HTTP 200."""
        try:
            self._check_key(request)
            if len(request.body) > MAX_REQUEST:
                raise _invalid(f"Request payload size exceeds the limit: {MAX_REQUEST} bytes.")
            wanted = _only(request.body)
            if not _limits(wanted):
                return _bad_picture(_IMAGE_FAULTS[ImageFault.EMPTY])
            data = _content(wanted)
        except _Refused as refused:
            return refused.response
        wrong = inspect(data, CAPABILITIES)
        return data if wrong is None else _bad_picture(_IMAGE_FAULTS[wrong])

    def respond(self, request: Request, answer: Answer) -> Response:
        """Return the lists that were asked for; an empty one is left out, as zeros are."""
        limits = _limits(_only(request.body))
        found = {
            "labelAnnotations": _labels(answer)[: limits.get(_LABELS, 0)],
            "localizedObjectAnnotations": _objects(answer)[: limits.get(_OBJECTS, 0)],
        }
        return Response({"responses": [{name: items for name, items in found.items() if items}]})

    def refuse(self, fault: Fault, request_id: str) -> Response:
        """Return the error document, or the error of the picture inside HTTP 200."""
        return _bad_picture(_BAD_IMAGE) if fault is Fault.IMAGE else _error(*_FAULTS[fault])

    def _check_key(self, request: Request) -> None:
        accepted = self._rules.keys.get(self.name)
        if accepted is None:
            return
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        if not (token or key):
            raise _Refused(
                _error("PERMISSION_DENIED", "Method doesn't allow unregistered callers.")
            )
        if any(_same(token or key, one) for one in accepted):
            return
        if token:
            raise _Refused(_error(*_FAULTS[Fault.TOKEN]))
        raise _invalid("API key not valid. Please pass a valid API key.", "API_KEY_INVALID")


def _only(body: bytes) -> dict[str, Any]:
    """Return the request for the one picture."""
    try:
        wanted = json.loads(body)["requests"]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise _invalid("Invalid JSON payload received.") from None
    if not isinstance(wanted, list) or len(wanted) != 1 or not isinstance(wanted[0], dict):
        raise _invalid("Only requests with exactly one image are annotated here.")
    return wanted[0]


def _limits(wanted: Mapping[str, Any]) -> dict[str, int]:
    """Return feature -> entries asked for."""
    limits = {}
    try:
        for feature in wanted.get("features", ()):
            name = _FEATURES.get(feature.get("type"))
            if name is None:
                raise _invalid(f"Only the features {_LABELS} and {_OBJECTS} are offered here.")
            limits[name] = max(int(feature.get("maxResults", 0)), 0) or MAX_RESULTS
    except (ValueError, OverflowError, TypeError, AttributeError):
        raise _invalid("Invalid value at 'requests[0].features'.") from None
    return limits


def _content(wanted: Mapping[str, Any]) -> bytes:
    """Return the picture; both alphabets of base64 are allowed, and no padding."""
    image = wanted.get("image", {})
    if not isinstance(image, dict) or ("source" in image and not image.get("content")):
        raise _invalid("Only image.content is read here; nothing is fetched.")
    try:
        text = image.get("content", "").rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, AttributeError):
        raise _invalid("Invalid value at 'requests[0].image.content': no base64.") from None


def _labels(answer: Answer) -> list[dict[str, Any]]:
    best: dict[str, float] = {}
    for label in answer.labels:  # best first
        best.setdefault(label.name, label.score)
    return [
        {"description": name, "score": score, "topicality": score} for name, score in best.items()
    ]


def _objects(answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "name": label.name,
            "score": label.score,
            "boundingPoly": {"normalizedVertices": _vertices(label.box, answer.size)},
        }
        for label in answer.labels
        if label.box is not None
    ]


def _vertices(box: Box, size: tuple[int, int]) -> list[dict[str, float]]:
    """Return the corners clockwise from the left upper one; a coordinate of 0 is left out."""
    left, right = box.left / size[0], (box.left + box.width) / size[0]
    top, bottom = box.top / size[1], (box.top + box.height) / size[1]
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return [{axis: at for axis, at in zip("xy", corner, strict=True) if at} for corner in corners]


def _invalid(message: str, reason: str | None = None) -> _Refused:
    return _Refused(_error("INVALID_ARGUMENT", message, reason))


def _error(status: str, message: str, reason: str | None = None) -> Response:
    error: dict[str, Any] = {"code": _STATUS[status], "message": message, "status": status}
    if reason is not None:
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        error["details"] = [{"@type": kind, "reason": reason, "domain": "googleapis.com"}]
    return Response({"error": error}, _STATUS[status])


def _bad_picture(message: str) -> Response:
    return Response({"responses": [{"error": {"code": 3, "message": message}}]})


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
