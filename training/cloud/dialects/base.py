"""What every dialect reads and returns.

A dialect is a vendor's HTTP interface from the service's side, as a pure function: no sockets, no
model, no clock of its own. The server asks it for the picture of a request, has a model look at it,
and gives it the labels to put into words.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from PIL import Image

from edge_sdk.backends.base import Capabilities, Label
from edge_sdk.backends.limits import fits

__all__ = ["Answer", "Dialect", "Fault", "ImageFault", "Request", "Response", "Rules", "inspect"]

_THIRTY_DAYS_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        method: upper case.
        path: without the query, percent-decoding undone by nobody.
        query: decoded values.
        headers: names in lower case.
        body: as it came.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response.

    Attributes:
        content: a JSON document, or bytes with their own content type.
        status: of HTTP.
        headers: besides type and length.
        content_type: what the content is.
        kind: what the request log calls a response without a model: ``refused``, or ``token`` or
            ``health`` for what was asked for and is free.
    """

    content: Mapping[str, Any] | list[Any] | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    kind: str = "refused"

    @property
    def body(self) -> bytes:
        """The bytes that are sent."""
        if isinstance(self.content, bytes):
            return self.content
        return json.dumps(self.content, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said about a picture.

    Attributes:
        labels: best first; boxes in pixels.
        size: the picture's (width, height) in pixels.
        model: the version of the model that answered.
        request_id: 32 hexadecimal digits.
        seconds: that it took.
        codecs: ids of the feature codecs that the model reads.
    """

    labels: tuple[Label, ...]
    size: tuple[int, int]
    model: str
    request_id: str
    seconds: float = 0.0
    codecs: tuple[str, ...] = ()


class Fault(Enum):
    """What a dialect can be told to refuse a good request with."""

    THROTTLED = "throttled"  # the vendor's answer to too many requests
    UNAVAILABLE = "unavailable"  # the vendor's own failure
    TOKEN = "token"  # the key or token is not valid
    IMAGE = "image"  # this picture cannot be processed, inside HTTP 200 where the vendor does so


class ImageFault(Enum):
    """What is wrong with an uploaded file, before any model looks at it."""

    EMPTY = "empty"
    FORMAT = "format"
    TOO_MANY_BYTES = "too many bytes"
    SIDES = "sides"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a server treats keys.

    Attributes:
        secret: signs the tokens; a token of another secret is invalid.
        keys: dialect -> its accepted keys; a dialect that is not there accepts any non-empty ones.
        token_life_s: seconds that a token is valid.
    """

    secret: bytes
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    token_life_s: int = _THIRTY_DAYS_S

    def __repr__(self) -> str:
        return f"Rules(token_life_s={self.token_life_s})"


class Dialect(Protocol):
    """One vendor's interface. Instances are made with ``Rules`` and hold nothing else."""

    #: The scheme of ``edge_sdk.backends`` that speaks it.
    name: str
    #: Clients fetch tokens, and again when one has expired. A key is good or it is not: a client
    #: whose key is refused stops, as it should.
    tokens: bool
    #: Feature streams are taken too.
    streams: bool

    def spec(self, url: str) -> str:
        """Return what ``open_backend`` takes for a server at ``http://HOST:PORT``."""

    def mine(self, request: Request) -> bool:
        """Tell by method, path and headers whether this request is of the dialect."""

    def picture(self, request: Request, now: float, request_id: str) -> bytes | Response:
        """Return the uploaded file, checked by :func:`inspect`, or the response without a model.

        Such a response is a token, or the vendor's refusal of the keys, parameters or picture.
        ``now`` is in seconds since the epoch.
        """

    def respond(self, request: Request, answer: Answer) -> Response:
        """Return the vendor's response that tells ``answer``."""

    def refuse(self, fault: Fault, request_id: str) -> Response:
        """Return the vendor's response to a good request that fails so."""


def inspect(data: bytes, capabilities: Capabilities) -> ImageFault | None:
    """Return what is wrong with an uploaded file by a vendor's limits; reads the header only."""
    if not data:
        return ImageFault.EMPTY
    if len(data) > capabilities.max_bytes:
        return ImageFault.TOO_MANY_BYTES
    try:
        with warnings.catch_warnings():
            # The limit on the sides follows at once.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=capabilities.formats) as picture:
                return None if fits(picture.size, capabilities) else ImageFault.SIDES
    except Image.DecompressionBombError:
        return ImageFault.SIDES
    except (OSError, SyntaxError, ValueError):
        return ImageFault.FORMAT
