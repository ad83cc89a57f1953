"""Baidu's dialect from the service's side: tokens for keys, labels for tokens, errors as HTTP 200.

Tokens are signed with the server's secret and carry their own expiry, so that nothing is stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from edge_sdk.backends.baidu import CAPABILITIES, MAX_BASE64, RECOGNIZE_PATH, TOKEN_PATH
from training.cloud.dialects.base import (
    Answer,
    Fault,
    ImageFault,
    Request,
    Response,
    Rules,
    inspect,
)

__all__ = ["Baidu"]

_MESSAGES = {
    18: "Open api qps request limit reached",
    110: "Access token invalid or no longer valid",
    111: "Access token expired",
    216200: "empty image",
    216201: "image format error",
    216202: "image size error",
    216203: "image base64 error",
    282000: "internal error",
}
# Not 216630, "recognize error": its picture is answered, with no label, and clients keep that.
_FAULTS = {Fault.THROTTLED: 18, Fault.UNAVAILABLE: 282000, Fault.TOKEN: 111, Fault.IMAGE: 216201}
_IMAGE_FAULTS = {
    ImageFault.EMPTY: 216200,
    ImageFault.FORMAT: 216201,
    ImageFault.TOO_MANY_BYTES: 216202,
    ImageFault.SIDES: 216202,
}


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class Baidu:
    """``advanced_general`` version 2."""

    name, tokens, streams = "baidu", True, False

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def spec(self, url: str) -> str:
        """Return ``baidu+http://HOST:PORT``."""
        return f"baidu+{url}"

    def mine(self, request: Request) -> bool:
        """Tell by the path."""
        if request.path == TOKEN_PATH:
            return True
        return request.path == RECOGNIZE_PATH and request.method == "POST"

    def picture(self, request: Request, now: float, request_id: str) -> bytes | Response:
        """Return the file behind ``image=``, or a token, or a refusal inside HTTP 200."""
        if request.path == TOKEN_PATH:
            return self._token({**_form(request.body), **request.query}, now)
        try:
            self._check_token(request.query.get("access_token", ""), now)
            return _image(_form(request.body))
        except _Refused as refused:
            return _refusal(refused.code, request_id)

    def respond(self, request: Request, answer: Answer) -> Response:
        """Return ``result[]`` with keyword, score and root."""
        found = [
            {"keyword": label.name, "score": label.score, "root": "object"}
            for label in answer.labels
        ]
        log_id = _log_id(answer.request_id)
        return Response({"log_id": log_id, "result_num": len(found), "result": found})

    def refuse(self, fault: Fault, request_id: str) -> Response:
        """Return the error code inside HTTP 200."""
        return _refusal(_FAULTS[fault], request_id)

    def _token(self, given: Mapping[str, str], now: float) -> Response:
        if given.get("grant_type") != "client_credentials":
            return _oauth_error(
                400, "unsupported_grant_type", "only client_credentials is supported"
            )
        key, secret = given.get("client_id", ""), given.get("client_secret", "")
        wanted_key, wanted_secret = self._rules.keys.get(self.name, (key, secret))
        if not key or not _same(key, wanted_key):
            return _oauth_error(401, "invalid_client", "unknown client id")
        if not secret or not _same(secret, wanted_secret):
            return _oauth_error(401, "invalid_client", "Client authentication failed")
        expires = str(int(now) + self._rules.token_life_s)
        return Response(
            {
                "access_token": f"24.{expires}.{self._signature(expires)}",
                "expires_in": self._rules.token_life_s,
                "scope": "public brain_all_scope",
            },
            kind="token",
        )

    def _check_token(self, token: str, now: float) -> None:
        _, _, rest = token.partition(".")
        expires, _, signature = rest.partition(".")
        if not expires.isdecimal() or not _same(signature, self._signature(expires)):
            raise _Refused(110)
        if now >= int(expires):
            raise _Refused(111)

    def _signature(self, expires: str) -> str:
        return hmac.new(self._rules.secret, expires.encode(), hashlib.sha256).hexdigest()


def _oauth_error(status: int, error: str, description: str) -> Response:
    return Response({"error": error, "error_description": description}, status)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20))
    except ValueError:  # not ASCII, or too many fields: no field of ours is in there
        return {}


def _image(form: Mapping[str, str]) -> bytes:
    text = form.get("image", "")
    if len(text) > MAX_BASE64:
        raise _Refused(216202)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _Refused(216203) from None
    wrong = inspect(data, CAPABILITIES)
    if wrong is not None:
        raise _Refused(_IMAGE_FAULTS[wrong])
    return data


def _refusal(code: int, request_id: str) -> Response:
    document: dict[str, Any] = {"error_code": code, "error_msg": _MESSAGES[code]}
    return Response({**document, "log_id": _log_id(request_id)})


def _log_id(request_id: str) -> int:
    return int(request_id[:15], 16)
