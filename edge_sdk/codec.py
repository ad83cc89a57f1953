r"""Encode a rung: one of the two modules where Pillow touches a file, with ``edge_sdk.reading``.

>>> from PIL import Image
>>> from edge_sdk.codec import encode
>>> from edge_sdk.ladder import REFERENCE
>>> encode(Image.new("RGB", (64, 48)), REFERENCE)[:2]
b'\xff\xd8'
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.backends.base import Box
from edge_sdk.errors import ImageError
from edge_sdk.rung import FEATURES, WEBP, Rung
from edge_sdk.scratch import saved
from edge_sdk.view import View
from model_store.errors import UsageError

__all__ = [
    "Scales",
    "Streams",
    "encode",
    "framed",
    "scaled_size",
    "shown",
    "upload_size",
]

#: Effort of the WebP encoder, 0 to 6. On 56 photos 5 took 4 % fewer bytes than 4 for a tenth more
#: time; 6 took another 4 %, for two thirds more time than 5.
_WEBP_METHOD = 5
_SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


class Streams(Protocol):
    """A learned codec, see ``edge_sdk.featurecodec.FeatureCodec``."""

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits."""

    def integers(self, image: Image.Image) -> NDArray[np.int8]:
        """Return an RGB picture's quantised features at every rate, (R, C, H, W)."""

    def encode(self, integers: NDArray[np.int8], rate: int) -> bytes:
        """Return the stream of one rate."""


class Scales:
    """One RGB picture at several scales and views, each made once and kept with the object.

    Resizing costs several times what encoding does, and a ladder has many rungs of few scales.

    Args:
        image: the picture, which must not change.
        codec: encodes the rungs of features, if there are any; its engine runs once a picture.
    """

    def __init__(self, image: Image.Image, codec: Streams | None = None) -> None:
        self._made = {1.0: image}
        self._views: dict[View, Scales] = {}
        self._codec = codec
        self._integers: NDArray[np.int8] | None = None

    def at(self, scale: float) -> Image.Image:
        """Return the picture scaled down, never below one pixel a side.

        From half the size on, whole boxes of pixels are averaged first, and the filter is Hamming's
        of two pixels: at equal bytes services answer as after Lanczos's of six, which takes two to
        six times as long.
        """
        if scale not in self._made:
            image = self._made[1.0]
            size = scaled_size(image.size, scale)
            self._made[scale] = image.resize(size, Image.Resampling.HAMMING, reducing_gap=1.0)
        return self._made[scale]

    def seen(self, view: View | None) -> Scales:
        """Return the scales of what a service's own preparation makes of the picture.

        That is a square of ``view.resized`` pixels, so that the same preparation leaves its middle
        as it is. What it cuts off is made of the last rows and columns that it keeps: in trials
        that took an eighth fewer bytes than the picture's own margin, for the same answers.
        """
        if view is None:
            return self
        if view not in self._views:
            self._views[view] = Scales(framed(self._made[1.0], view))
        return self._views[view]

    def stream(self, rung: Rung) -> bytes:
        """Return the stream of a rung of features.

        Raises:
            UsageError: its codec is not at hand.
        """
        if self._codec is None or self._codec.id != rung.codec or rung.rate is None:
            there = "none" if self._codec is None else self._codec.id
            raise UsageError(
                f"The rung {rung.name} needs the codec {rung.codec}; there is {there}. Use the "
                "agent that brings it, or leave out its rungs."
            )
        if self._integers is None:
            self._integers = self._codec.integers(self._made[1.0])
        return self._codec.encode(self._integers, rung.rate)


def encode(picture: Image.Image | Scales, rung: Rung) -> bytes:
    """Encode an RGB picture as the file, JPEG, WebP or features, that ``rung`` describes.

    Metadata is not written: it costs bytes and tells the service more than the picture.

    Args:
        picture: give the same ``Scales`` for several rungs, and each scale is made once. Two
            threads need an image each: Pillow notes on it how it is to be saved.
        rung: the encoder setting.

    Raises:
        ImageError: the format cannot hold the image (a side over 65,500 pixels in JPEG, 16,383 in
            WebP).
        UsageError: the rung's codec is not at hand.
    """
    scales = picture if isinstance(picture, Scales) else Scales(picture)
    if rung.format == FEATURES:
        return scales.stream(rung)
    image = scales.seen(rung.view).at(rung.scale)
    if rung.format == WEBP:
        return _save_webp(image, rung.quality)
    with contextlib.suppress(OSError, ValueError):
        return _save(image, rung, rung.entropy)
    # Pillow codes optimised and progressive files into one buffer of a guessed size, which noise
    # at a high quality outgrows. Plain coding has no such limit and decodes to the same pixels.
    try:
        return _save(image, rung, "plain")
    except (OSError, ValueError) as error:
        raise ImageError(
            f"A picture of {image.width}x{image.height} pixels cannot be encoded as JPEG "
            f"({error}); sides of 1 to 65500 are allowed."
        ) from error


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return (width, height) in pixels after scaling, each at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def upload_size(size: tuple[int, int], rung: Rung) -> tuple[int, int]:
    """Return (width, height) in pixels of what ``rung`` makes of a picture of ``size``."""
    view = rung.view
    return scaled_size(size if view is None else (view.resized, view.resized), rung.scale)


def shown(size: tuple[int, int], rung: Rung) -> Box | None:
    """Return the part of a picture of ``size`` that a rung's upload shows, None for all of it."""
    return None if rung.view is None else Box(*rung.view.place(size))


def framed(image: Image.Image, view: View) -> Image.Image:
    """Return what a rung of ``view`` shows of an RGB picture, see :meth:`Scales.seen`."""
    before = (view.resized - view.side) // 2
    around = (before, view.resized - view.side - before)
    return Image.fromarray(np.pad(view.pixels(image), (around, around, (0, 0)), mode="edge"))


def _save_webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, "WEBP", quality=quality, method=_WEBP_METHOD, exif=b"", icc_profile=b"")
    except (OSError, ValueError) as error:
        raise ImageError(
            f"A picture of {image.width}x{image.height} pixels cannot be encoded as WebP "
            f"({error}); sides of 1 to 16383 are allowed."
        ) from error
    return buffer.getvalue()


def _save(image: Image.Image, rung: Rung, entropy: str) -> bytes:
    # Pillow takes tables in raster order, and would scale them once more if it knew the quality.
    tables = rung.scaled_tables
    steps: dict[str, Any] = {"quality": rung.quality} if tables is None else {"qtables": tables}
    options = {
        **steps,
        "subsampling": _SUBSAMPLING[rung.subsampling],
        "optimize": entropy == "optimized",
        "progressive": entropy == "progressive",
        "comment": b"",  # otherwise Pillow writes the source file's
    }
    return saved(lambda file: image.save(file, "JPEG", **options))
