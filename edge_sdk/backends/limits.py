"""Check a file against a service's declared limits, before a byte is sent or a call is paid."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from edge_sdk.backends.base import Capabilities
from edge_sdk.errors import BackendRejected, BackendTooLarge

__all__ = ["check_limits", "fits"]


def check_limits(jpeg: bytes, capabilities: Capabilities, service: str) -> tuple[int, int]:
    """Return the picture's (width, height) if ``service`` accepts it; only the header is read.

    Raises:
        BackendTooLarge: too many bytes, too many pixels, or a side is too long.
        BackendRejected: it is no picture, or a side is too short.
    """
    if len(jpeg) > capabilities.max_bytes:
        raise BackendTooLarge(
            f"The file has {len(jpeg)} bytes; {service} accepts at most {capabilities.max_bytes}."
        )
    size = _size(jpeg, service)
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
