"""The bytes of a feature stream: ``adacompress features/1``.

    0        0xAF
    1        version in the three high bits, number of the rate in the five low ones
    2 to 5   the first four bytes of the codec's id
    6 to -5  payload of the range coder
    last 4   CRC-32 of all before, big-endian

Ten bytes besides the payload: at 400 bytes every one counts. The checksum finds damage, not malice;
whoever may write payloads gets some integers within the codec's limit decoded, and no more.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from edge_sdk.errors import FeatureStreamError

__all__ = ["MAX_RATES", "MEDIA_TYPE", "OVERHEAD", "Stream", "is_stream"]

MEDIA_TYPE = "application/vnd.adacompress.features"

#: Bytes of a stream besides its payload.
OVERHEAD = 10

#: What five bits number.
MAX_RATES = 32

_MAGIC = 0xAF  # no image format begins so
_VERSION = 1
_HEADER, _CHECKSUM = 6, 4
_ID_BYTES = 4


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream, taken apart.

    Attributes:
        codec: the first eight hexadecimal digits of the codec's id.
        rate: number of the rate.
        payload: of the range coder.
    """

    codec: str
    rate: int
    payload: bytes

    def pack(self) -> bytes:
        """Return the stream's bytes."""
        head = bytes([_MAGIC, _VERSION << 5 | self.rate]) + bytes.fromhex(self.codec)
        body = head + self.payload
        return body + zlib.crc32(body).to_bytes(_CHECKSUM, "big")

    @classmethod
    def parse(cls, data: bytes, most: int) -> Stream:
        """Take a stream apart that comes from anywhere.

        Args:
            data: not trusted.
            most: bytes that it may have.

        Raises:
            FeatureStreamError: it is none, too short or long, damaged, or of another version.
        """
        if not OVERHEAD <= len(data) <= most:
            raise FeatureStreamError(
                f"The feature stream has {len(data)} bytes; this codec's have {OVERHEAD} to {most}."
            )
        if not is_stream(data):
            raise FeatureStreamError(
                f"The data begins with 0x{data[0]:02X} and is no feature stream (0x{_MAGIC:02X})."
            )
        body, checksum = data[:-_CHECKSUM], int.from_bytes(data[-_CHECKSUM:], "big")
        if zlib.crc32(body) != checksum:
            raise FeatureStreamError(
                f"The feature stream ({len(data)} bytes) is damaged: its checksum is wrong. Send "
                "it again."
            )
        version, rate = data[1] >> 5, data[1] & (MAX_RATES - 1)
        if version != _VERSION:
            raise FeatureStreamError(
                f"The feature stream is of version {version}; this code reads {_VERSION}."
            )
        return cls(data[2 : 2 + _ID_BYTES].hex(), rate, body[_HEADER:])


def is_stream(data: bytes) -> bool:
    """Tell a feature stream from a picture's file, by its first byte."""
    return data[:1] == bytes([_MAGIC])
