"""The worst failures of a policy, as pictures: the reference, what was sent, and both answers.

Nothing is bought: a picture whose answers are not in the ledger is not shown. Not here: how it
looks (``exhibits``).

    found = worst_failures(views, table, chosen, labeller.known, capabilities, metric="any_hit")
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.backends.base import Capabilities, Label
from edge_sdk.backends.limits import media_type
from edge_sdk.codec import Streams, encode
from edge_sdk.ladder import REFERENCE, Rung
from edge_sdk.parcel import Parcel
from edge_sdk.reading import load
from training.labels.prepare import prepare
from training.measure import baselines
from training.photos import View

if TYPE_CHECKING:
    from training.labels.table import AnswerTable

__all__ = ["MOST", "Failure", "Failures", "Known", "Shown", "worst_failures"]

#: (picture's key, rung) -> its answer, None if it was never bought.
Known = Callable[[str, Rung], tuple[Label, ...] | None]

#: Failures that are shown.
MOST = 6

#: Longest side of a shrunk picture, pixels, and what a shown file may have, bytes: six failures
#: then take half a megabyte of a page at most.
_SIDE = 360
_BYTES = 32_000

#: Labels of an answer that are shown; agreement looks at no more of the compressed answer's.
_LABELS = 5


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One upload.

    Attributes:
        size: of the file that was sent, bytes.
        width, height: of its picture, pixels; 0 of features, which are no picture.
        labels: of the answer, best first.
        picture: a file to look at, None of features.
        exact: it is the file that was sent; else it is a smaller copy.
    """

    size: int
    width: int
    height: int
    labels: Sequence[Label]
    picture: bytes | None
    exact: bool

    def as_dict(self, *, pictures: bool = True) -> dict[str, Any]:
        """Return the JSON form, the picture as a ``data:`` URI or left out."""
        shown = None
        if self.picture is not None and pictures:
            encoded = base64.b64encode(self.picture).decode("ascii")
            shown = f"data:{media_type(self.picture)};base64,{encoded}"
        return {
            "bytes": self.size,
            "width": self.width,
            "height": self.height,
            "labels": [{"name": label.name, "score": label.score} for label in self.labels],
            "picture": shown,
            "exact": self.exact,
        }


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A picture to which the service answered otherwise; ``photo`` is its file's name alone."""

    photo: str
    rung: str
    agreement: float
    reference: Shown
    sent: Shown

    def as_dict(self, *, pictures: bool = True) -> dict[str, Any]:
        """Return the JSON form, with or without its pictures."""
        return {
            "photo": self.photo,
            "rung": self.rung,
            "agreement": self.agreement,
            "reference": self.reference.as_dict(pictures=pictures),
            "sent": self.sent.as_dict(pictures=pictures),
        }


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How many of ``pictures`` got an answer that does not agree fully, and the worst of them."""

    pictures: int
    failed: int
    worst: Sequence[Failure]

    def as_dict(self, *, pictures: bool = True) -> dict[str, Any]:
        """Return the JSON form, with or without the pictures themselves."""
        return {
            "pictures": self.pictures,
            "failed": self.failed,
            "worst": [one.as_dict(pictures=pictures) for one in self.worst],
        }


def worst_failures(
    views: Sequence[View],
    table: AnswerTable,
    chosen: NDArray[np.int64],
    known: Known,
    capabilities: Capabilities,
    *,
    metric: str = "any_hit",
    min_score: float = 0.0,
    most: int = MOST,
    codec: Streams | None = None,
) -> Failures:
    """Find where a policy does worst: least agreement, then the surest reference; once a photo.

    Args:
        views: the pictures of ``table``, in its order.
        table: answers on pictures that the policy never saw.
        chosen: each picture's rung, (N,).
        known: the ledger's answers.
        capabilities: of the service; they decide what a rung comes to.
        metric: which agreement.
        min_score: labels below it do not count, and are not shown.
        most: failures shown.
        codec: of the ladder's rungs of features; what is sent of those is not shown.
    """
    agreement = baselines.chosen(table.agreement[metric], chosen)
    failed = np.flatnonzero(agreement < 1.0)
    order = failed[np.lexsort((-table.reference_score[failed], agreement[failed]))]
    worst: list[Failure] = []
    photos: set[str] = set()
    for row in map(int, order):
        if len(worst) == most:
            break
        view, rung = views[row], int(chosen[row])
        if view.photo in photos:
            continue
        photos.add(view.photo)
        prepared = prepare(view, table.ladder, capabilities, codec)
        parcels = prepared.reference, prepared.uploads[rung]
        answers = [known(prepared.key, parcel.rung) for parcel in parcels]
        reference, sent = (
            None if answer is None else _shown(parcel, answer, min_score)
            for parcel, answer in zip(parcels, answers, strict=True)
        )
        if reference and sent:
            worst.append(
                Failure(
                    photo=view.path.name,
                    rung=parcels[1].rung.name,
                    agreement=float(agreement[row]),
                    reference=reference,
                    sent=sent,
                )
            )
    return Failures(pictures=len(table.keys), failed=len(failed), worst=tuple(worst))


def _shown(parcel: Parcel, labels: Sequence[Label], min_score: float) -> Shown:
    file, pixels = parcel.jpeg, parcel.rung.has_pixels
    (width, height), exact = load(file).image.size if pixels else (0, 0), len(file) <= _BYTES
    picture = file if exact or not pixels else _shrunk(file)
    return Shown(
        size=len(file),
        width=width,
        height=height,
        labels=[label for label in labels if label.score >= min_score][:_LABELS],
        picture=picture if pixels else None,
        exact=exact,
    )


def _shrunk(jpeg: bytes) -> bytes:
    """Return a copy small enough for a page."""
    side, copy = _SIDE, _thumbnail(jpeg, _SIDE)
    while len(copy) > _BYTES:
        side = side * 3 // 4
        copy = _thumbnail(jpeg, side)
    return copy


def _thumbnail(jpeg: bytes, side: int) -> bytes:
    picture = load(jpeg).image
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encode(picture, REFERENCE)
