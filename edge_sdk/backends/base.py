"""What a cloud vision service looks like from here: one call, one answer, declared limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ["ENCODINGS", "Backend", "Box", "Capabilities", "Label", "Recognition"]

#: How a request carries the picture, cheapest first, with the factor that it costs in bytes.
ENCODINGS = {"raw": 1.0, "multipart": 1.0, "base64": 4 / 3, "form": 1.37}


class Box(NamedTuple):
    """Where in the picture a label was seen, in pixels from the left upper corner."""

    left: float
    top: float
    width: float
    height: float


class Label(NamedTuple):
    """One label of an answer; the score is normalised to [0, 1], a box is rarely given."""

    name: str
    score: float
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a service accepts; the ladder is cut to it before anything is uploaded.

    Attributes:
        max_bytes: largest file in bytes, after undoing the request's own encoding.
        min_side: shortest allowed side in pixels.
        max_side: longest allowed side in pixels.
        max_pixels: largest allowed area in pixels, or None.
        formats: accepted file formats, by Pillow's names; of them this product sends JPEG and
            WEBP.
        codecs: ids of the learned codecs whose feature streams it reads.
        encoding: how the request carries the file, a key of ``ENCODINGS``.
        boxes: answers may hold boxes.
        tells_version: answers name the model that gave them.
        price_usd: dollars that one call costs, or None where nobody knows.
    """

    max_bytes: int
    min_side: int
    max_side: int
    max_pixels: int | None = None
    formats: tuple[str, ...] = ("JPEG",)
    encoding: str = "raw"
    boxes: bool = False
    tells_version: bool = False
    price_usd: float | None = None
    codecs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recognition:
    """The service's answer to one upload.

    Attributes:
        labels: best first; empty is a valid answer. Boxes are in pixels of the picture of ``size``.
        wire_bytes: size of the request body that really left, encodings included.
        latency_s: seconds from sending to the parsed answer.
        model_version: what the service says about its model, or None.
        request_id: the service's own id of this request, or "".
        size: (width, height) in pixels of the uploaded picture, or None if nobody looked or it was
            no picture.
    """

    labels: tuple[Label, ...]
    wire_bytes: int
    latency_s: float = 0.0
    model_version: str | None = None
    request_id: str = ""
    size: tuple[int, int] | None = None

    def at(self, size: tuple[int, int], shown: Box | None = None) -> Recognition:
        """Return the same answer with its boxes in pixels of a picture of (width, height).

        An upload may have been scaled or cut out; what its caller knows are the original's pixels.

        Args:
            size: of the original.
            shown: the part of it that the upload shows, None for all. What reaches beyond the
                original is cut off the boxes.
        """
        if self.size is None or (self.size == size and shown is None):
            return self
        whole = Box(0.0, 0.0, *map(float, size))
        part = shown or whole
        across, down = part.width / self.size[0], part.height / self.size[1]
        labels = tuple(_scaled(label, across, down) for label in self.labels)
        if shown is not None:
            labels = tuple(_moved(label, shown, whole) for label in labels)
        return replace(self, labels=labels, size=size)


@runtime_checkable
class Backend(Protocol):
    """A black-box vision service. Implementations are safe to call from several threads."""

    #: Stable identity without keys, as in ``baidu://127.0.0.1:8000``; the ledger's key.
    name: str
    capabilities: Capabilities

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one file and return the labels.

        It is a JPEG file, or of another format or codec that ``capabilities`` names.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``.
        """

    def wire_size(self, jpeg: bytes) -> int:
        """Return the request body's size in bytes for this file, without sending it."""

    def close(self) -> None:
        """Release connections; calling it twice is fine."""


def _scaled(label: Label, across: float, down: float) -> Label:
    if label.box is None:
        return label
    left, top, width, height = label.box
    return label._replace(box=Box(left * across, top * down, width * across, height * down))


def _moved(label: Label, shown: Box, whole: Box) -> Label:
    """Move a box by where the shown part begins, and cut it to the whole picture."""
    if label.box is None:
        return label
    left, top = label.box.left + shown.left, label.box.top + shown.top
    right, bottom = left + label.box.width, top + label.box.height
    left, right = (min(max(one, 0.0), whole.width) for one in (left, right))
    top, bottom = (min(max(one, 0.0), whole.height) for one in (top, bottom))
    return label._replace(box=Box(left, top, right - left, bottom - top))
