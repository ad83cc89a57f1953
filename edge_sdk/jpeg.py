"""A JPEG file without its metadata: what is said about a picture stays on the device.

EXIF with the place, XMP, thumbnails and comments cost bytes and tell the service more than the
picture. Segments are dropped, the compressed data is not touched (ITU-T T.81, annex B).
"""

from __future__ import annotations

__all__ = ["without_metadata"]

_START = b"\xff\xd8"
_SCAN = 0xDA
#: Markers that stand alone, without a length.
_BARE = {0x01, *range(0xD0, 0xD8)}
#: What decoding needs of the application segments: JFIF, the colour profile, Adobe's transform.
_KEPT_APPLICATIONS = {0xE0, 0xE2, 0xEE}
_COMMENT = 0xFE


def without_metadata(jpeg: bytes) -> bytes | None:
    """Return the file without metadata segments, or None if its structure cannot be followed.

    Args:
        jpeg: a file that a decoder accepts.
    """
    if not jpeg.startswith(_START):
        return None
    kept, place = [_START], len(_START)
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
        marker = jpeg[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker == _SCAN:
            return b"".join([*kept, jpeg[place:]])
        length = 0 if marker in _BARE else int.from_bytes(jpeg[place + 2 : place + 4], "big")
        end = place + 2 + length
        if not _is_metadata(marker):
            kept.append(jpeg[place:end])
        place = end
    return None


def _is_metadata(marker: int) -> bool:
    application = 0xE0 <= marker <= 0xEF
    return marker == _COMMENT or (application and marker not in _KEPT_APPLICATIONS)
