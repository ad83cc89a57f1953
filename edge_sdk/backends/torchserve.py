"""Client of TorchServe's inference API: people's own models, with a token or without.

The file itself is the request's body. What comes back is up to a model's handler; understood are
the forms of TorchServe's own image handlers (see ``FORMS``). TorchServe does not name the model
that answered, but may be asked for one version of it; a local cloud names it in the header
``X-Model-Version``.

    >>> from edge_sdk.backends.torchserve import TorchServeBackend
    >>> TorchServeBackend("https://models.example", "resnet-18", "1.0")
    TorchServeBackend('torchserve://models.example/resnet-18/1.0')
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from edge_sdk.backends.baidu import VERSION_HEADER
from edge_sdk.backends.base import Box, Capabilities, Label, Recognition
from edge_sdk.backends.http import HttpClient, Reply
from edge_sdk.backends.keys import Keys, address, for_header
from edge_sdk.backends.limits import check_upload, media_type
from edge_sdk.backends.parsing import best_first, box, dialect, score, text
from edge_sdk.backends.prices import price
from edge_sdk.backends.spec import Spec, is_loopback
from edge_sdk.errors import BackendAuth, BackendProtocol
from model_store.errors import BackendError, UsageError

__all__ = [
    "CAPABILITIES",
    "CODEC_VERSION",
    "FORMS",
    "PING_PATH",
    "PREDICTIONS_PATH",
    "TOKEN",
    "TorchServeBackend",
    "open_spec",
]

PREDICTIONS_PATH = "/predictions/"
PING_PATH = "/ping"

#: ``max_request_size`` is 6,553,500 bytes unless the server is told otherwise. Sides are limited by
#: the file format alone. TorchServe's own image handlers open whatever Pillow opens.
CAPABILITIES = Capabilities(
    max_bytes=6_553_500,
    min_side=1,
    max_side=65_535,
    formats=("JPEG", "PNG", "WEBP"),
    encoding="raw",
    boxes=True,
    price_usd=price("torchserve"),
)

#: Holds the inference token, if the server wants one.
TOKEN = "ADACOMPRESS_TORCHSERVE_TOKEN"

#: A model version of this and a codec's id reads that codec's feature streams, see
#: ``export.codec_archive``. TorchServe itself refuses who asks for it where it is not.
CODEC_VERSION = "codec-"

#: The answers that are understood.
FORMS = (
    "an ImageClassifier's {\"cat\": 0.9, ...}, an ObjectDetector's "
    '[{"cat": [left, top, right, bottom], "score": 0.9}, ...] or '
    '[{"label": "cat", "score": 0.9}, ...], each perhaps with a "box"'
)

_HOW = "write torchserve://HOST:PORT/MODEL or torchserve://HOST:PORT/MODEL/VERSION"
_CODEC = re.compile(CODEC_VERSION + "([0-9a-f]{16})")
_NAME = re.compile(r"[\w~-][\w.~-]*", re.ASCII)
_UNKNOWN = ("ModelNotFoundException", "ModelVersionNotFoundException")


def open_spec(spec: Spec) -> TorchServeBackend:
    """Open ``torchserve://HOST[:PORT]/MODEL[/VERSION]`` or the same with ``torchserve+http``.

    Plain HTTP to another machine is for servers without a token.
    """
    model, *version = spec.path.split("/")
    if not spec.host or len(version) > 1 or not all(map(_NAME.fullmatch, (model, *version))):
        raise UsageError(
            f"A TorchServe backend has the host {spec.host!r} and the path {spec.path!r}; {_HOW}."
        )
    url = address(spec, "", keys=bool(_token_from_environment()))
    return TorchServeBackend(url, model, *version)


class TorchServeBackend:
    """The ``Backend`` of one model on a TorchServe server.

    Args:
        base_url: ``https://HOST`` or ``http://HOST:PORT``.
        model: the name that it is registered with.
        version: asks for this one instead of the default one; ``codec-ID`` reads the feature
            streams of that codec.
        keys: asked for the token before every request, or for nothing; default is the environment.
        http: the transport; its policy decides about retries.
        clock: monotonic seconds, for the latency.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        version: str = "",
        *,
        keys: Keys | None = None,
        http: HttpClient | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http or HttpClient(base_url)
        self._path = "/".join(filter(None, (model, version)))
        self._version = version or None
        self.name = f"torchserve://{self._http.host}/{self._path}"
        codec = _CODEC.fullmatch(version)
        self.capabilities = replace(
            CAPABILITIES, tells_version=bool(version), codecs=codec.groups() if codec else ()
        )
        self._keys, self._clock = keys or _token_from_environment, clock

    def __repr__(self) -> str:
        return f"TorchServeBackend({self.name!r})"

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one file and return the labels, best first, a detector's with boxes.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``, with TorchServe's type and
                message.
        """
        size = check_upload(jpeg, self.capabilities, self.name)
        keys = self._token()
        started = self._clock()

        def read(reply: Reply) -> Reply:
            if reply.status != 200:
                raise self._refusal(reply, keys)
            return reply

        headers = {"Content-Type": media_type(jpeg), **_authorization(keys)}
        reply = self._http.post(PREDICTIONS_PATH + self._path, read, data=jpeg, headers=headers)
        return Recognition(
            labels=self._labels(reply),
            wire_bytes=len(jpeg),
            latency_s=self._clock() - started,
            model_version=reply.headers.get(VERSION_HEADER) or self._version,
            request_id=reply.headers.get("x-request-id", ""),
            size=size,
        )

    def wire_size(self, jpeg: bytes) -> int:
        """Return the request body's size in bytes: the file's."""
        return len(jpeg)

    def model_version(self) -> str | None:
        """Return the model that answers, if that can be known without spending a call.

        It is what a local cloud says, else the version that was asked for.

        Raises:
            BackendError: the local cloud does not answer.
        """
        if not is_loopback(self._http.host):
            return self._version
        keys = self._token()

        def read(reply: Reply) -> str | None:
            if reply.status != 200:
                raise self._refusal(reply, keys)
            return reply.headers.get(VERSION_HEADER) or self._version

        return self._http.get(PING_PATH, read, headers=_authorization(keys))

    def close(self) -> None:
        """Release the connections."""
        self._http.close()

    def _token(self) -> tuple[str, ...]:
        keys, url = self._keys(), self._http.base_url
        if keys and url.startswith("http://") and not is_loopback(self._http.host):
            raise UsageError(
                f"{self.name} would get its token unencrypted; use https, or no token at all."
            )
        return tuple(for_header(token, self.name) for token in keys)

    def _labels(self, reply: Reply) -> tuple[Label, ...]:
        with dialect(self.name, FORMS):
            return best_first(_read(json.loads(reply.body)))

    def _refusal(self, reply: Reply, keys: tuple[str, ...]) -> BackendError:
        answer = _object(reply.body)
        code, said = str(answer.get("type", "")), answer.get("message")
        # TorchServe refuses a token with the status of a bad request.
        kind = BackendAuth if code == "InvalidKeyException" else None
        error = reply.error(kind, code, said, secrets=keys)
        if code not in _UNKNOWN:
            return error
        return BackendProtocol(
            f"{self.name} is no model of that server ({error.said}). Check the model's name and "
            "version; the server's management API lists them.",
            code=code,
            said=error.said,
        )


def _token_from_environment() -> tuple[str, ...]:
    token = os.environ.get(TOKEN)
    return (token,) if token else ()


def _authorization(keys: tuple[str, ...]) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys[0]}"} if keys else {}


def _object(body: bytes) -> dict[str, Any]:
    """Return a JSON object, empty if the body is something else."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _read(answer: Any) -> Iterable[Label]:
    if isinstance(answer, dict):
        return [Label(text(name), score(share)) for name, share in answer.items()]
    if isinstance(answer, list):
        return [_item(each) for each in answer]
    raise TypeError(f"a {type(answer).__name__}")


def _item(item: dict[str, Any]) -> Label:
    if isinstance(item.get("label"), str):
        place = item.get("box")
        return Label(
            text(item["label"]), score(item["score"]), None if place is None else _box(place)
        )
    ((name, place),) = ((name, value) for name, value in item.items() if name != "score")
    return Label(text(name), score(item["score"]), _box(place))


def _box(corners: Any) -> Box:
    """Return a box of left, top, right and bottom; some handlers name them."""
    if isinstance(corners, dict):
        corners = [corners[name] for name in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = map(float, corners)
    return box(left, top, right - left, bottom - top)
