"""Has the reference more bytes than another file? Told from strips of it, seldom from all of it.

A rung must never cost more than the reference, and the reference costs an encoding to know. But a
baseline JPEG is a sum: sixteen rows of pixels are coded as they would be alone, but for the first
means of the strip. So strips are encoded, from all over the picture, until what they hold is more
than the other file has: for a file a fifth as large that is about a fifth of the work, and what is
told is no estimate.

    outweighs(image, len(jpeg))  # True: encode(image, REFERENCE) is longer
"""

from __future__ import annotations

from itertools import accumulate

from PIL import Image

from edge_sdk.codec import encode
from edge_sdk.ladder import REFERENCE

__all__ = ["outweighs"]

#: Rows of a block of luma and chroma, in pixels, with chroma halved.
_ROWS = 16

#: Strips that a picture is cut into, at most, in the order in which they are encoded.
_ORDER = (4, 1, 6, 3, 0, 5, 2, 7)

#: Bytes by which a strip may exceed its share: its three first means are coded from nothing. At
#: most 20 bits instead of 2 for luma and 22 instead of 2 for each chroma (ITU-T T.81, annex K.3),
#: and 7 that fill the last byte.
_FIRST = 9

#: Share of the size that the first strips let expect from which on the whole is as well encoded.
_HOPELESS = 0.6


def outweighs(image: Image.Image, size: int, most: int | None = None) -> bool:
    """Tell whether a picture's reference certainly has at least ``size`` bytes.

    Args:
        image: mode RGB.
        size: bytes.
        most: bytes that the reference should certainly not have; where it may well, nothing is
            certain.

    Returns:
        False also where finding out would cost about as much as encoding the reference.
    """
    found, rows = 0, 0
    for top, bottom in _strips(image.height):
        found += _content(encode(image.crop((0, top, image.width, bottom)), REFERENCE)) - _FIRST
        rows += bottom - top
        likely = found * image.height / rows
        if size > _HOPELESS * likely or (most is not None and likely > _HOPELESS * most):
            return False
        if found >= size:
            return True
    return False


def _strips(height: int) -> list[tuple[int, int]]:
    """Return (top, bottom) of strips of whole blocks, far apart ones first."""
    blocks, count = -(-height // _ROWS), len(_ORDER)
    shares = [(blocks + place) // count * _ROWS for place in range(count)]
    bottoms = list(accumulate(shares))
    places = [(bottoms[one] - shares[one], min(height, bottoms[one])) for one in _ORDER]
    return [(top, bottom) for top, bottom in places if top < bottom]


def _content(jpeg: bytes) -> int:
    """Return the bytes of a baseline file's scan, without those that only escape others."""
    begin = jpeg.index(b"\xff\xda")
    begin += 2 + int.from_bytes(jpeg[begin + 2 : begin + 4], "big")
    return len(jpeg) - 2 - begin - jpeg.count(b"\xff\x00", begin)
