"""Check a file against a service's declared limits, before a byte is sent or a call is paid.

A *stream* is what a learned codec makes of a picture (``edge_sdk.featurecodec``); of it only the
first bytes are looked at here: which codec's it is.
"""

from __future__ import annotations

import io
import re
import warnings

from PIL import Image

from edge_sdk.backends.base import Capabilities
from edge_sdk.errors import BackendRejected, BackendTooLarge
from edge_sdk.featurecodec.bitstream import MEDIA_TYPE, is_stream
from edge_sdk.rung import FEATURES, Rung

__all__ = ["check_limits", "check_upload", "fits", "media_type", "takes"]

#: Where a stream has the first bytes of its codec's id.
_ID = slice(2, 6)

#: What this product encodes, and how it is told from each other.
_PICTURES = ("JPEG", "WEBP")
_WEBP_HEAD = re.compile(rb"RIFF....WEBP", re.DOTALL)


def takes(capabilities: Capabilities, rung: Rung) -> bool:
    """Tell whether a service reads what a rung is, whatever the picture."""
    if rung.format == FEATURES:
        return rung.codec in capabilities.codecs
    return rung.format.upper() in capabilities.formats


def media_type(file: bytes) -> str:
    """Return the media type of an upload."""
    if is_stream(file):
        return MEDIA_TYPE
    return "image/webp" if _WEBP_HEAD.match(file) else "image/jpeg"


def check_upload(file: bytes, capabilities: Capabilities, service: str) -> tuple[int, int] | None:
    """Return a picture's (width, height), None for a stream, if ``service`` accepts it.

    Raises:
        BackendTooLarge, BackendRejected: see :func:`check_limits`; or the stream is of a codec
            that the service does not read.
    """
    if not is_stream(file) or not capabilities.codecs:
        return check_limits(file, capabilities, service)
    _check_bytes(file, capabilities, service)
    if not any(file[_ID] == bytes.fromhex(one)[:4] for one in capabilities.codecs):
        raise BackendRejected(
            f"What was to be sent to {service} are features of the codec {file[_ID].hex()}…; it "
            f"reads {', '.join(capabilities.codecs)}. Train the agent with the codec of the "
            "service's own model."
        )
    return None


def check_limits(jpeg: bytes, capabilities: Capabilities, service: str) -> tuple[int, int]:
    """Return the picture's (width, height) if ``service`` accepts it; only the header is read.

    Raises:
        BackendTooLarge: too many bytes, too many pixels, or a side is too long.
        BackendRejected: it is no picture, or a side is too short.
    """
    _check_bytes(jpeg, capabilities, service)
    if is_stream(jpeg):
        raise BackendRejected(
            f"{service} takes pictures, and what was to be sent to it are a codec's features; only "
            "a service of one's own reads those, one that runs the rest of the codec's classifier."
        )
    size = _size(jpeg, capabilities, service)
    if not fits(size, capabilities):
        area = f" and {capabilities.max_pixels} pixels in all" if capabilities.max_pixels else ""
        kind = BackendRejected if min(size) < capabilities.min_side else BackendTooLarge
        raise kind(
            f"The picture has {size[0]}x{size[1]} pixels; {service} accepts sides of "
            f"{capabilities.min_side} to {capabilities.max_side} pixels{area}."
        )
    return size


def fits(size: tuple[int, int], capabilities: Capabilities) -> bool:
    """Tell whether a picture of (width, height) pixels is within the limits."""
    most = capabilities.max_pixels
    return (
        min(size) >= capabilities.min_side
        and max(size) <= capabilities.max_side
        and (most is None or size[0] * size[1] <= most)
    )


def _check_bytes(file: bytes, capabilities: Capabilities, service: str) -> None:
    if len(file) > capabilities.max_bytes:
        raise BackendTooLarge(
            f"The file has {len(file)} bytes; {service} accepts at most {capabilities.max_bytes}."
        )


def _size(jpeg: bytes, capabilities: Capabilities, service: str) -> tuple[int, int]:
    formats = [one for one in _PICTURES if one in capabilities.formats]
    try:
        with warnings.catch_warnings():
            # Nothing is decoded here, and the service's own limit on the sides follows.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(jpeg), formats=formats) as picture:
                return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BackendRejected(
            f"What was to be sent to {service} is not a {' or '.join(formats)} file that it "
            f"accepts ({len(jpeg)} bytes, {type(error).__name__})."
        ) from error
