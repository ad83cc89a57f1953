"""Check a file against a service's declared limits, before a byte is sent or a call is paid."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from edge_sdk.backends.base import Capabilities
from edge_sdk.errors import BackendRejected

__all__ = ["check_limits"]


def check_limits(jpeg: bytes, capabilities: Capabilities, service: str) -> None:
    """Return if ``service`` accepts this file; only the file's header is read.

    Raises:
        BackendRejected: it is no picture, or too large a file, or a side is too short or too long.
    """
    if len(jpeg) > capabilities.max_bytes:
        raise BackendRejected(
            f"The file has {len(jpeg)} bytes; {service} accepts at most {capabilities.max_bytes}."
        )
    width, height = _size(jpeg, service)
    if min(width, height) < capabilities.min_side or max(width, height) > capabilities.max_side:
        raise BackendRejected(
            f"The picture has {width}x{height} pixels; {service} accepts sides of "
            f"{capabilities.min_side} to {capabilities.max_side} pixels."
        )


def _size(jpeg: bytes, service: str) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            # Nothing is decoded here, and the service's own limit on the sides follows.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as picture:
                return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BackendRejected(
            f"What was to be sent to {service} is not a JPEG file that it accepts "
            f"({len(jpeg)} bytes, {type(error).__name__})."
        ) from error
