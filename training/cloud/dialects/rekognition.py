"""Amazon Rekognition's dialect from the service's side: JSON 1.1, signed, ``DetectLabels`` alone.

What is not there is refused with a reason: pictures in a bucket, other operations. A request must
be signed with an accepted key's name; the signature itself is not computed again.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from edge_sdk.backends.base import Box, Label
from edge_sdk.backends.rekognition import CAPABILITIES
from training.cloud.dialects.base import (
    Answer,
    Fault,
    ImageFault,
    Request,
    Response,
    Rules,
    inspect,
)

__all__ = ["Rekognition"]

_SERVICE, _OPERATION = "RekognitionService.", "DetectLabels"
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/.*\bSignature=\w+")

#: The service's defaults and bounds.
_MIN_CONFIDENCE, _MAX_LABELS = 55.0, 1000

_FAULTS = {
    Fault.THROTTLED: (500, "ThrottlingException", "Rate exceeded"),
    Fault.UNAVAILABLE: (500, "InternalServerError", "Internal server error"),
    Fault.TOKEN: (
        400,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    ),
    Fault.IMAGE: (400, "InvalidImageFormatException", "Request has invalid image format"),
}
_IMAGE_FAULTS = {
    ImageFault.EMPTY: ("InvalidParameterException", "Request has no image bytes"),
    ImageFault.FORMAT: ("InvalidImageFormatException", "Request has invalid image format"),
    ImageFault.TOO_MANY_BYTES: (
        "ImageTooLargeException",
        f"Image size is more than {CAPABILITIES.max_bytes} bytes",
    ),
    ImageFault.SIDES: (
        "InvalidParameterException",
        f"Image sides are not {CAPABILITIES.min_side} to {CAPABILITIES.max_side} pixels",
    ),
}


class _Refused(Exception):
    def __init__(self, kind: str, said: str) -> None:
        self.kind, self.said = kind, said


class Rekognition:
    """``RekognitionService.DetectLabels``."""

    name, tokens, streams = "rekognition", False, False

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def spec(self, url: str) -> str:
        """Return ``rekognition+http://HOST:PORT``."""
        return f"rekognition+{url}"

    def mine(self, request: Request) -> bool:
        """Tell by the header that names the service: every operation has the same path."""
        return request.method == "POST" and request.headers.get("x-amz-target", "").startswith(
            _SERVICE
        )

    def picture(self, request: Request, now: float, request_id: str) -> bytes | Response:
        """Return the picture, or a refusal of the key, a parameter or the picture."""
        try:
            self._check_key(request.headers.get("authorization", ""))
            if request.headers["x-amz-target"] != _SERVICE + _OPERATION:
                said = f"This local cloud knows {_OPERATION} alone"
                raise _Refused("UnknownOperationException", said)
            wanted = _document(request.body)
            _limits(wanted)
            return _content(wanted)
        except _Refused as refused:
            return _error(400, refused.kind, refused.said, request_id)

    def respond(self, request: Request, answer: Answer) -> Response:
        """Return ``Labels[]``, each name once, with the places of its instances."""
        most, least = _limits(_document(request.body))
        named: dict[str, list[Label]] = {}
        for label in answer.labels:  # best first
            if 100.0 * label.score >= least:
                named.setdefault(label.name, []).append(label)
        found = [_label(same, answer.size) for same in list(named.values())[:most]]
        return _response({"LabelModelVersion": answer.model, "Labels": found}, answer.request_id)

    def refuse(self, fault: Fault, request_id: str) -> Response:
        """Return the exception."""
        return _error(*_FAULTS[fault], request_id)

    def _check_key(self, authorization: str) -> None:
        if not authorization:
            raise _Refused("MissingAuthenticationTokenException", "Missing Authentication Token")
        signed = _SIGNED.match(authorization)
        if signed is None:
            raise _Refused("IncompleteSignatureException", "Authorization is not of Signature V4")
        accepted = self._rules.keys.get(self.name)
        if accepted and not hmac.compare_digest(signed[1].encode(), accepted[0].encode()):
            _, kind, said = _FAULTS[Fault.TOKEN]
            raise _Refused(kind, said)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _Refused("SerializationException", "The body is not a JSON object")
    return document


def _limits(wanted: Mapping[str, Any]) -> tuple[int, float]:
    """Return how many labels at most and how sure at least."""
    most = wanted.get("MaxLabels", _MAX_LABELS)
    least = wanted.get("MinConfidence", _MIN_CONFIDENCE)
    if type(most) is not int or most < 0:
        raise _Refused("InvalidParameterException", "MaxLabels is not a number from 0")
    if type(least) not in (int, float) or not 0 <= least <= 100:
        raise _Refused("InvalidParameterException", "MinConfidence is not a number from 0 to 100")
    return most, least


def _content(wanted: Mapping[str, Any]) -> bytes:
    """Return the picture, checked."""
    image = wanted.get("Image")
    if not isinstance(image, dict) or not isinstance(image.get("Bytes", ""), str):
        raise _Refused("InvalidParameterException", "Request has no Image.Bytes")
    if "S3Object" in image:
        raise _Refused("InvalidS3ObjectException", "This local cloud reads Image.Bytes alone")
    try:
        data = base64.b64decode(image.get("Bytes", ""), validate=True)
    except (binascii.Error, ValueError):
        raise _Refused("SerializationException", "Image.Bytes is not base64") from None
    wrong = inspect(data, CAPABILITIES)
    if wrong is not None:
        raise _Refused(*_IMAGE_FAULTS[wrong])
    return data


def _label(same: list[Label], size: tuple[int, int]) -> dict[str, Any]:
    """Return one entry for labels of one name, the best first."""
    return {
        "Name": same[0].name,
        "Confidence": 100.0 * same[0].score,
        "Instances": [
            {"BoundingBox": _shares(label.box, size), "Confidence": 100.0 * label.score}
            for label in same
            if label.box is not None
        ],
        "Parents": [],
        "Aliases": [],
        "Categories": [],
    }


def _shares(box: Box, size: tuple[int, int]) -> dict[str, float]:
    width, height = size
    return {
        "Width": box.width / width,
        "Height": box.height / height,
        "Left": box.left / width,
        "Top": box.top / height,
    }


def _error(status: int, kind: str, said: str, request_id: str) -> Response:
    document = {"__type": kind, "Code": kind, "Logref": _identity(request_id), "Message": said}
    return _response(document, request_id, status)


def _response(document: dict[str, Any], request_id: str, status: int = 200) -> Response:
    headers = {"x-amzn-RequestId": _identity(request_id)}
    return Response(document, status, headers, "application/x-amz-json-1.1")


def _identity(request_id: str) -> str:
    return str(uuid.UUID(hex=request_id))
