"""The handler inside a codec's TorchServe archive: a feature stream or a picture in, scores out.

``export.codec_archive`` copies this file into the archive, with ``edge_sdk`` and ``model_store``
beside it. TorchServe calls :func:`handle`, once with None to load the models, then with batches of
requests. The answer is that of TorchServe's own ImageClassifier, so any client of it will do:

    curl http://127.0.0.1:8080/predictions/lite0 -T stream.af     # {"tabby": 0.62, ...}
    curl http://127.0.0.1:8080/predictions/lite0 -T photo.jpg     # what the whole classifier says

With ``-H "X-AdaCompress-View: 1"`` it is ``{"scores": {...}, "picture": "..."}``, the picture
a PNG in base64 of what the stream tells.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from edge_sdk.backends.base import Label
from edge_sdk.errors import ImageError
from edge_sdk.featurecodec import Artefact, is_stream
from edge_sdk.featurecodec.tail import CLASSIFIER, Tail, Whole
from edge_sdk.reading import load

__all__ = ["HEADER", "handle"]

#: A request's header that asks for the picture that a stream tells of.
HEADER = "X-AdaCompress-View"

Answer = tuple[Label, ...] | ImageError


@dataclass(frozen=True)
class _Models:
    tail: Tail
    whole: Whole | None


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[dict[str, Any]]:
    """Answer a batch of requests.

    Args:
        data: one mapping a request: the file as ``data`` or ``body``. With a field ``view`` of 1,
            or such a header, the answer to a stream holds its picture. None loads the models.
        context: TorchServe's: the folder that the archive was unpacked to, headers, states.
    """
    models = _models(Path(str(context.system_properties["model_dir"])))
    rows = data or []
    answers = _answers(models, [_file(row) for row in rows])
    return [
        _told(models, row, answer, context, place)
        for place, (row, answer) in enumerate(zip(rows, answers, strict=True))
    ]


def _answers(models: _Models, files: list[bytes]) -> list[Answer]:
    streams = iter(models.tail.answer_many([one for one in files if is_stream(one)]))
    return [next(streams) if is_stream(one) else _whole(models, one) for one in files]


def _whole(models: _Models, file: bytes) -> Answer:
    if models.whole is None:
        return ImageError(
            "This service reads feature streams only: its archive was made without the whole "
            "classifier, so it cannot answer a picture."
        )
    try:
        picture = load(file).image
    except ImageError as error:
        return error
    return models.whole.answer(models.whole.view.pixels(picture))


def _told(
    models: _Models, row: Mapping[str, Any], answer: Answer, context: Any, place: int
) -> dict[str, Any]:
    if isinstance(answer, ImageError):
        context.set_response_status(400, "not a picture", place)
        # The form of TorchServe's own errors.
        return {"code": 400, "type": type(answer).__name__, "message": str(answer)}
    scores = {label.name: label.score for label in answer}
    if not _wants_picture(row, context.get_all_request_header(place)):
        return scores
    file = _file(row)
    if not (is_stream(file) and models.tail.shows):
        return {"scores": scores}
    buffer = io.BytesIO()
    Image.fromarray(models.tail.show(file)).save(buffer, "PNG")
    return {"scores": scores, "picture": base64.b64encode(buffer.getvalue()).decode()}


def _file(row: Mapping[str, Any]) -> bytes:
    file = row.get("data") or row.get("body") or b""
    return bytes(file) if isinstance(file, bytes | bytearray) else b""


def _wants_picture(row: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    named = {name.lower(): value for name, value in headers.items()}
    asked = row.get("view") or named.get(HEADER.lower()) or "0"
    return (bytes(asked) if isinstance(asked, bytes | bytearray) else asked) not in ("0", b"0")


@functools.cache  # one folder a worker process
def _models(folder: Path) -> _Models:
    whole = None
    if (folder / CLASSIFIER).is_file():
        view = Artefact.open(folder).view
        whole = Whole((folder / CLASSIFIER).read_bytes(), view)
    return _Models(Tail.open(folder), whole)
