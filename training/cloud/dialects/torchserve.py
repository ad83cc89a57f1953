"""TorchServe's dialect from the service's side: ``/predictions/MODEL``, as its own handlers answer.

The model is served under its architecture's name and under ``default``. A detector answers as
TorchServe's ObjectDetector does, any other model as its ImageClassifier.
"""

from __future__ import annotations

import hmac
import uuid
from typing import Any

from edge_sdk.backends.base import Label
from edge_sdk.backends.torchserve import (
    CAPABILITIES,
    CODEC_VERSION,
    PING_PATH,
    PREDICTIONS_PATH,
)
from edge_sdk.featurecodec import is_stream
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

__all__ = ["DEFAULT", "TorchServe"]

#: Names whatever model is served.
DEFAULT = "default"

_NO_WORKER = (
    "has no worker to serve inference request. Please use scale workers API to add workers."
)
_FAULTS = {
    # TorchServe has no rate limit; this is what a full queue says.
    Fault.THROTTLED: (503, "ServiceUnavailableException", f'Model "{DEFAULT}" {_NO_WORKER}'),
    Fault.UNAVAILABLE: (503, "InternalServerException", "Prediction failed"),
    Fault.TOKEN: (
        400,
        "InvalidKeyException",
        "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
    ),
    Fault.IMAGE: (400, "InternalServerException", "The handler cannot read the picture"),
}


class TorchServe:
    """The inference API: ``/predictions`` and ``/ping``."""

    name, tokens, streams = "torchserve", False, True

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def spec(self, url: str) -> str:
        """Return ``torchserve+http://HOST:PORT/default``."""
        return f"torchserve+{url}/{DEFAULT}"

    def mine(self, request: Request) -> bool:
        """Tell by the path; TorchServe takes predictions by any method that has a body."""
        if request.path == PING_PATH:
            return request.method == "GET"
        return request.method in ("POST", "PUT") and request.path.startswith(PREDICTIONS_PATH)

    def picture(self, request: Request, now: float, request_id: str) -> bytes | Response:
        """Return the body or the form's file, a sign of health, or a refusal."""
        if not self._knows(request.headers.get("authorization", "")):
            return self.refuse(Fault.TOKEN, request_id)
        if request.path == PING_PATH:
            return Response({"status": "Healthy"}, headers=_identity(request_id), kind="health")
        data = _file(request)
        # Whether the model reads streams, and this one, is for it to say.
        stream = is_stream(data) and len(data) <= CAPABILITIES.max_bytes
        wrong = None if stream else inspect(data, CAPABILITIES)
        if wrong is ImageFault.TOO_MANY_BYTES:
            return Response(b"", 413)
        return data if wrong is None else self.refuse(Fault.IMAGE, request_id)

    def respond(self, request: Request, answer: Answer) -> Response:
        """Return what the model's handler would, or that there is no such model."""
        model, _, version = request.path.removeprefix(PREDICTIONS_PATH).partition("/")
        name, _, served = answer.model.partition("@")
        if model not in (DEFAULT, name):
            said = f"Model not found: {model}"
            return _error(404, "ModelNotFoundException", said, answer.request_id)
        codecs = {CODEC_VERSION + codec for codec in answer.codecs}
        if version not in {"", served, answer.model, *codecs}:
            said = f"Model version: {version} does not exist for model: {model}"
            return _error(404, "ModelVersionNotFoundException", said, answer.request_id)
        return Response(_handled(answer.labels), headers=_identity(answer.request_id))

    def refuse(self, fault: Fault, request_id: str) -> Response:
        """Return the error document with its status."""
        return _error(*_FAULTS[fault], request_id)

    def _knows(self, authorization: str) -> bool:
        accepted = self._rules.keys.get(self.name)
        if accepted is None:
            return True
        given = authorization.encode()
        return any(hmac.compare_digest(given, f"Bearer {token}".encode()) for token in accepted)


def _file(request: Request) -> bytes:
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/"):
        return request.body
    fields = multipart(kind, request.body)
    return fields.get("data") or fields.get("body") or b""


def _handled(labels: tuple[Label, ...]) -> dict[str, Any] | list[Any]:
    """Return what a handler makes of the labels; a detector may find nothing, a classifier not."""
    if all(label.box for label in labels):
        return [{label.name: _corners(label), "score": label.score} for label in labels]
    best: dict[str, float] = {}
    for label in labels:  # best first
        best.setdefault(label.name, label.score)
    return best


def _corners(label: Label) -> list[float]:
    left, top, width, height = label.box or (0.0, 0.0, 0.0, 0.0)
    return [left, top, left + width, top + height]


def _error(status: int, kind: str, said: str, request_id: str) -> Response:
    return Response({"code": status, "type": kind, "message": said}, status, _identity(request_id))


def _identity(request_id: str) -> dict[str, str]:
    return {"x-request-id": str(uuid.UUID(hex=request_id))}
