"""Which bytes leave the device for one picture: never more than the reference or the source has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

from edge_sdk.backends.base import Capabilities
from edge_sdk.backends.limits import fits, media_type, takes
from edge_sdk.bound import outweighs
from edge_sdk.codec import Scales, Streams, encode, upload_size
from edge_sdk.ladder import FULL, REFERENCE, Ladder
from edge_sdk.lossless import Recode
from edge_sdk.reading import Picture
from edge_sdk.rung import WEBP, Rung
from model_store.files import sha256_bytes

__all__ = ["UNLIMITED", "Packer", "Parcel"]

#: What a service that takes anything accepts, for where encodings are looked at, not uploaded.
UNLIMITED = Capabilities(max_bytes=2**31, min_side=1, max_side=2**31, formats=("JPEG", "WEBP"))

#: Longest side of a WebP file.
_WEBP_SIDE = 16_383

#: What stands for the reference where the service does not accept it: scaled down until it does.
_REFERENCES: Ladder = (
    REFERENCE,
    *(replace(REFERENCE, scale=scale) for scale in (0.75, 0.5, 0.375, 0.25, 0.125)),
)


@dataclass(frozen=True, slots=True)
class Parcel:
    """One upload.

    Attributes:
        rung: what was asked for; the reference where the rung would have been larger.
        jpeg: the file to upload, of whatever format the rung is.
        as_is: the file is the source itself, which is no larger than the rung's encoding.
    """

    rung: Rung
    jpeg: bytes
    as_is: bool = False

    @property
    def pixels(self) -> object:
        """What decides the answer: uploads that share it need not both be paid for."""
        return "source" if self.as_is else self.rung.pixels

    @property
    def media_type(self) -> str:
        """Of the file."""
        return media_type(self.jpeg)


class Packer:
    """Encodes one picture, each rung at most once.

    Args:
        picture: what the caller gave.
        capabilities: what the service accepts.
        lossless: send the reference's pixels in the smallest entropy coding, hence for fewer bytes
            and the same answer; without it the reference goes as the paper's benchmark.
        codec: encodes rungs of features; without it they are not usable.
        recode: makes a file that is to be uploaded smaller and leaves its pixels; sources are not
            given to it, nor is what sizes are compared with. See ``edge_sdk.lossless``.
    """

    def __init__(
        self,
        picture: Picture,
        capabilities: Capabilities,
        *,
        lossless: bool = False,
        codec: Streams | None = None,
        recode: Recode | None = None,
    ) -> None:
        self._lossless = lossless
        self._recode = None if recode is None else cache(recode)
        self._picture, self._scales = picture, Scales(picture.image, codec)
        self._capabilities, self._codec = capabilities, None if codec is None else codec.id
        self._encoded: dict[Rung, bytes] = {}

    @cached_property
    def _reference(self) -> Parcel:
        for rung in _REFERENCES:
            if self._fits(rung):
                jpeg = encode(self._scales, rung)
                if len(jpeg) <= self._capabilities.max_bytes:
                    return Parcel(rung, jpeg)
        return Parcel(REFERENCE, encode(self._scales, REFERENCE))  # to be refused as it is

    @property
    def reference_jpeg(self) -> bytes:
        """The picture at the reference rung; its length is what size ratios are relative to.

        A picture too large for the service is scaled down to the next of a few sizes that are not.
        """
        return self._reference.jpeg

    @property
    def known_reference(self) -> bytes | None:
        """The reference's file if it was encoded anyway, else None."""
        known = self.__dict__.get("_reference")
        return None if known is None else known.jpeg

    @property
    def least_reference(self) -> int:
        """Bytes that the reference has at least; nothing is encoded for that.

        With the plain Huffman tables (ITU-T T.81, annex K.3) the shortest block of luma takes 2
        bits for its mean and 4 for its end, one of chroma 2 and 2; 16 by 16 pixels are 4 blocks of
        luma and 2 of chroma.
        """
        width, height = self._picture.image.size
        least = -(-width // 16) * -(-height // 16) * (4 * 6 + 2 * 4) // 8
        return least if self._fits(REFERENCE) else 0

    @cached_property
    def key(self) -> str:
        """A name for the picture that says nothing about it."""
        return sha256_bytes(self.reference_jpeg)[:16]

    def reference(self) -> Parcel:
        """Return the reference upload."""
        plain = self._reference
        if self._lossless and plain.rung.scale == 1.0:
            packed = self._encode(FULL[-1])
            if len(packed) < len(plain.jpeg):
                return self._or_source(Parcel(FULL[-1], packed))
        return self._or_source(plain)

    def pack(self, rung: Rung) -> Parcel:
        """Return the upload for ``rung``, or the reference's if that has fewer bytes.

        Also the reference's if the service does not accept the rung's.
        """
        if rung == REFERENCE or not self._fits(rung):
            return self.reference()
        jpeg = self._encode(rung)
        most = self._capabilities.max_bytes
        if not self._surely_smaller(rung, len(jpeg)):
            most = min(most, len(self.reference_jpeg))
        if len(jpeg) > most:
            return self.reference()
        return self._or_source(Parcel(rung, jpeg))

    def candidate(self, rung: Rung) -> tuple[bytes, float]:
        """Return a rung's file and its size ratio, without deciding whether it is sent."""
        jpeg = self._encode(rung)
        return jpeg, len(jpeg) / len(self.reference_jpeg)

    def parcels(self, ladder: Ladder) -> list[Parcel]:
        """Return what stands for each rung where only its pixels count: the rung itself, mostly.

        A rung that is too small for the service is replaced by the next dearer one of its kind that
        is not, as a device does; one that is too large, or nothing that it reads, by the reference.
        """
        reference, found = self._reference, []
        following: dict[str, Parcel] = {}
        for rung in reversed(ladder):
            if self._fits(rung) and len(self._encode(rung)) <= self._capabilities.max_bytes:
                following[rung.kind] = Parcel(rung, self._encode(rung))
            dearer = following.get(rung.kind, reference)
            found.append(reference if self._too_large(rung) else dearer)
        return found[::-1]

    def usable(self, ladder: Ladder) -> list[int]:
        """Return the indices of the rungs that the service accepts for this picture."""
        return [index for index, rung in enumerate(ladder) if self._fits(rung)]

    def _encode(self, rung: Rung) -> bytes:
        if rung not in self._encoded:
            self._encoded[rung] = encode(self._scales, rung)
        return self._encoded[rung]

    def _or_source(self, parcel: Parcel) -> Parcel:
        source = self._picture.jpeg
        if source is None or len(source) > len(parcel.jpeg) or not self._fits(REFERENCE):
            recode = self._recode
            return parcel if recode is None else replace(parcel, jpeg=recode(parcel.jpeg))
        return Parcel(parcel.rung, source, as_is=True)

    def _too_large(self, rung: Rung) -> bool:
        if self._fits(rung):
            return len(self._encode(rung)) > self._capabilities.max_bytes
        size = upload_size(self._picture.image.size, rung)
        return min(size) >= self._capabilities.min_side

    def _fits(self, rung: Rung) -> bool:
        if not takes(self._capabilities, rung):
            return False
        if not rung.has_pixels:
            return rung.codec == self._codec
        size = upload_size(self._picture.image.size, rung)
        whole = rung.format != WEBP or max(size) <= _WEBP_SIDE
        return whole and fits(size, self._capabilities)

    def _surely_smaller(self, rung: Rung, size: int) -> bool:
        """Tell whether a rung's file of ``size`` bytes cannot be larger than the reference.

        Then encoding that is spared: the same blocks, quantised as coarsely or more so, with
        Huffman tables that fit as well or better. Not so for scaled rungs: a mosaic whose tiles are
        the codec's blocks loses by being resized. There, strips of the reference tell.
        """
        same = (rung.subsampling, rung.scale, rung.tables) == (REFERENCE.subsampling, 1.0, None)
        coarser = rung.quality <= REFERENCE.quality
        if rung.kind == REFERENCE.kind and same and coarser and rung.entropy != "progressive":
            return True
        if self.known_reference is not None or not self._fits(REFERENCE):
            return False
        most = self._capabilities.max_bytes
        return size <= self.least_reference or outweighs(self._picture.image, size, most)
