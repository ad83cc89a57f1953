"""Baidu's dialect from the service's side: tokens for keys, labels for tokens, errors as HTTP 200.

Tokens are signed with the server's secret and carry their own expiry, so that nothing is stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from PIL import Image

from edge_sdk.backends.baidu import CAPABILITIES, MAX_BASE64, RECOGNIZE_PATH, TOKEN_PATH
from edge_sdk.backends.base import Label
from edge_sdk.errors import ImageError
from training.cloud.dialects.base import Request, Response
from training.cloud.models import Model

__all__ = ["Rules", "respond"]

_FORMATS = ("JPEG", "PNG", "BMP")
_THIRTY_DAYS_S = 30 * 24 * 3600

#: The code for a path that the service does not have.
_NO_SUCH_METHOD = 3
_MESSAGES = {
    _NO_SUCH_METHOD: "Unsupported openapi method",
    110: "Access token invalid or no longer valid",
    111: "Access token expired",
    216200: "empty image",
    216201: "image format error",
    216202: "image size error",
    216203: "image base64 error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a server hands out tokens.

    Attributes:
        secret: signs the tokens; a token of another secret is invalid.
        keys: the one accepted pair (API key, secret key), or None for any non-empty pair.
        token_life_s: seconds that a token is valid.
    """

    secret: bytes
    keys: tuple[str, str] | None = None
    token_life_s: int = _THIRTY_DAYS_S

    def __repr__(self) -> str:
        return f"Rules(token_life_s={self.token_life_s})"


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


def respond(request: Request, model: Model, rules: Rules, now: float) -> Response:
    """Answer one request at the wall-clock time ``now`` (seconds since the epoch)."""
    if request.path == TOKEN_PATH:
        return _token_response({**_form(request.body), **request.query}, rules, now)
    log_id = int(now * 1e6)
    if request.path != RECOGNIZE_PATH or request.method != "POST":
        return Response(_refusal(_NO_SUCH_METHOD, log_id), 404)
    try:
        _check_token(request.query.get("access_token", ""), rules, now)
        labels = model.answer(_image(_form(request.body)))
    except _Refused as refused:
        return Response(_refusal(refused.code, log_id))
    except ImageError:
        return Response(_refusal(216201, log_id))
    return Response(_result(labels, log_id))


def _token_response(given: Mapping[str, str], rules: Rules, now: float) -> Response:
    if given.get("grant_type") != "client_credentials":
        return _oauth_error(400, "unsupported_grant_type", "only client_credentials is supported")
    key, secret = given.get("client_id", ""), given.get("client_secret", "")
    wanted_key, wanted_secret = rules.keys or (key, secret)
    if not key or not _same(key, wanted_key):
        return _oauth_error(401, "invalid_client", "unknown client id")
    if not secret or not _same(secret, wanted_secret):
        return _oauth_error(401, "invalid_client", "Client authentication failed")
    expires = str(int(now) + rules.token_life_s)
    return Response(
        {
            "access_token": f"24.{expires}.{_signature(expires, rules)}",
            "expires_in": rules.token_life_s,
            "scope": "public brain_all_scope",
        }
    )


def _oauth_error(status: int, error: str, description: str) -> Response:
    return Response({"error": error, "error_description": description}, status)


def _check_token(token: str, rules: Rules, now: float) -> None:
    _, _, rest = token.partition(".")
    expires, _, signature = rest.partition(".")
    if not expires.isdecimal() or not _same(signature, _signature(expires, rules)):
        raise _Refused(110)
    if now >= int(expires):
        raise _Refused(111)


def _signature(expires: str, rules: Rules) -> str:
    return hmac.new(rules.secret, expires.encode(), hashlib.sha256).hexdigest()


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _form(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20))
    except ValueError:  # not ASCII, or too many fields: no field of ours is in there
        return {}


def _image(form: Mapping[str, str]) -> bytes:
    text = form.get("image", "")
    if not text:
        raise _Refused(216200)
    if len(text) > MAX_BASE64:
        raise _Refused(216202)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _Refused(216203) from None
    width, height = _size(data)
    if min(width, height) < CAPABILITIES.min_side or max(width, height) > CAPABILITIES.max_side:
        raise _Refused(216202)
    return data


def _size(data: bytes) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            # The limit on the sides follows at once.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                return picture.size
    except Image.DecompressionBombError:
        raise _Refused(216202) from None
    except (OSError, SyntaxError, ValueError):
        raise _Refused(216201) from None


def _refusal(code: int, log_id: int) -> dict[str, Any]:
    return {"error_code": code, "error_msg": _MESSAGES[code], "log_id": log_id}


def _result(labels: tuple[Label, ...], log_id: int) -> dict[str, Any]:
    found = [{"keyword": name, "score": score, "root": "ImageNet"} for name, score in labels]
    return {"log_id": log_id, "result_num": len(found), "result": found}
