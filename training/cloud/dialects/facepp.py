"""Face++'s dialect from the service's side: a form with both keys and the file, errors by name.

What is not there is refused with a reason: pictures by address.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from edge_sdk.backends.facepp import CAPABILITIES, RECOGNIZE_PATH
from training.cloud.dialects.base import (
    Answer,
    Fault,
    ImageFault,
    Request,
    Response,
    Rules,
    inspect,
)
from training.cloud.dialects.multipart import multipart

__all__ = ["MAX_ENTITY", "Facepp"]

#: Beyond a file of the largest size with its keys, the body is refused before it is read.
MAX_ENTITY = CAPABILITIES.max_bytes + 4096

_KEYS = ("api_key", "api_secret")
_STATUS = {
    "AUTHENTICATION_ERROR": 401,
    "CONCURRENCY_LIMIT_EXCEEDED": 403,
    "INTERNAL_ERROR": 500,
}
_FAULTS = {
    Fault.THROTTLED: "CONCURRENCY_LIMIT_EXCEEDED",
    Fault.UNAVAILABLE: "INTERNAL_ERROR",
    Fault.TOKEN: "AUTHENTICATION_ERROR",
    Fault.IMAGE: "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_file",
}
_IMAGE_FAULTS = {
    ImageFault.EMPTY: "IMAGE_ERROR_UNSUPPORTED_FORMAT",
    ImageFault.FORMAT: "IMAGE_ERROR_UNSUPPORTED_FORMAT",
    ImageFault.TOO_MANY_BYTES: "IMAGE_FILE_TOO_LARGE",
    ImageFault.SIDES: "INVALID_IMAGE_SIZE",
}


class _Refused(Exception):
    def __init__(self, said: str) -> None:
        self.said = said


class Facepp:
    """``imagepp/beta/detectsceneandobject``."""

    name, tokens, streams = "facepp", False, False

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def spec(self, url: str) -> str:
        """Return ``facepp+http://HOST:PORT``."""
        return f"facepp+{url}"

    def mine(self, request: Request) -> bool:
        """Tell by method and path."""
        return request.method == "POST" and request.path == RECOGNIZE_PATH

    def picture(self, request: Request, now: float, request_id: str) -> bytes | Response:
        """Return the file, or a refusal of the body, the keys or the picture."""
        if len(request.body) > MAX_ENTITY:
            return Response(b"Request Entity Too Large", 413, content_type="text/plain")
        fields = _fields(request)
        try:
            self._check_keys(fields)
            return _image(fields)
        except _Refused as refused:
            return _error(refused.said, request_id)

    def respond(self, request: Request, answer: Answer) -> Response:
        """Return every name once under ``objects``; our models know no scenes."""
        best: dict[str, float] = {}
        for label in answer.labels:  # best first
            best.setdefault(label.name, label.score)
        return Response(
            {
                "time_used": round(1000 * answer.seconds),
                "request_id": _identity(answer.request_id),
                "image_id": base64.b64encode(bytes.fromhex(answer.request_id)).decode(),
                "objects": [
                    {"value": name, "confidence": 100.0 * score} for name, score in best.items()
                ],
                "scenes": [],
            }
        )

    def refuse(self, fault: Fault, request_id: str) -> Response:
        """Return the error document with its status."""
        return _error(_FAULTS[fault], request_id)

    def _check_keys(self, fields: Mapping[str, bytes]) -> None:
        missing = [name for name in _KEYS if not fields.get(name)]
        if missing:
            raise _Refused(f"MISSING_ARGUMENTS: {', '.join(missing)}")
        for name, wanted in zip(_KEYS, self._rules.keys.get(self.name, ()), strict=False):
            if not hmac.compare_digest(fields[name], wanted.encode()):
                raise _Refused("AUTHENTICATION_ERROR")


def _fields(request: Request) -> dict[str, bytes]:
    """Return the fields of either kind of form; a file comes in the first kind alone."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("application/x-www-form-urlencoded"):
        return multipart(kind, request.body)
    try:
        pairs = parse_qsl(request.body.decode("ascii"), max_num_fields=20)
    except ValueError:  # not ASCII, or too many fields
        return {}
    return {name: value.encode() for name, value in pairs}


def _image(fields: Mapping[str, bytes]) -> bytes:
    """Return the picture; where several ways are taken, a file goes first, an address last."""
    if "image_file" in fields:
        name, data = "image_file", fields["image_file"]
    elif "image_base64" in fields:
        name = "image_base64"
        try:
            data = base64.b64decode(fields[name], validate=True)
        except binascii.Error:
            raise _Refused(f"{_IMAGE_FAULTS[ImageFault.FORMAT]}: {name}") from None
    elif "image_url" in fields:
        raise _Refused("INVALID_IMAGE_URL: this local cloud fetches nothing")
    else:
        raise _Refused("MISSING_ARGUMENTS: image_url, image_file, image_base64")
    wrong = inspect(data, CAPABILITIES)
    if wrong is not None:
        raise _Refused(f"{_IMAGE_FAULTS[wrong]}: {name}")
    return data


def _error(said: str, request_id: str) -> Response:
    document: dict[str, Any] = {
        "time_used": 0,
        "error_message": said,
        "request_id": _identity(request_id),
    }
    return Response(document, _STATUS.get(said, 400))


def _identity(request_id: str) -> str:
    return str(uuid.UUID(hex=request_id))
