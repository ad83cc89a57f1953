"""Which bytes leave the device for one picture: never more than the reference or the source has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from edge_sdk.backends.base import Capabilities
from edge_sdk.backends.limits import fits
from edge_sdk.codec import Picture, Scales, encode, scaled_size
from edge_sdk.ladder import FULL, REFERENCE, Ladder, Rung
from model_store.files import sha256_bytes

__all__ = ["UNLIMITED", "Packer", "Parcel"]

#: What a service that takes anything accepts, for where encodings are looked at, not uploaded.
UNLIMITED = Capabilities(max_bytes=2**31, min_side=1, max_side=2**31)

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
        jpeg: the file to upload.
        as_is: the file is the source itself, which is no larger than the rung's encoding.
    """

    rung: Rung
    jpeg: bytes
    as_is: bool = False

    @property
    def pixels(self) -> object:
        """What decides the answer: uploads that share it need not both be paid for."""
        return "source" if self.as_is else self.rung.pixels


class Packer:
    """Encodes one picture, each rung at most once.

    Args:
        picture: what the caller gave.
        capabilities: what the service accepts.
        lossless: send the reference's pixels in the smallest entropy coding, hence for fewer bytes
            and the same answer; without it the reference goes as the paper's benchmark.
    """

    def __init__(
        self, picture: Picture, capabilities: Capabilities, *, lossless: bool = False
    ) -> None:
        self._lossless = lossless
        self._picture, self._scales = picture, Scales(picture.image)
        self._capabilities = capabilities
        self._encoded: dict[Rung, bytes] = {}

    @cached_property
    def _reference(self) -> Parcel:
        for rung in _REFERENCES:
            if self._fits(rung.scale):
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
        if rung == REFERENCE or not self._fits(rung.scale):
            return self.reference()
        jpeg = self._encode(rung)
        most = self._capabilities.max_bytes
        if not _surely_smaller(rung):
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

        A rung that is too small for the service is replaced by the next dearer one that is not, as
        a device does; one that is too large, by the reference.
        """
        reference, found = self._reference, []
        following = reference
        for rung in reversed(ladder):
            if self._fits(rung.scale) and len(self._encode(rung)) <= self._capabilities.max_bytes:
                following = Parcel(rung, self._encode(rung))
            found.append(reference if self._too_large(rung) else following)
        return found[::-1]

    def usable(self, ladder: Ladder) -> list[int]:
        """Return the indices of the rungs whose sides the service accepts for this picture."""
        return [index for index, rung in enumerate(ladder) if self._fits(rung.scale)]

    def _encode(self, rung: Rung) -> bytes:
        if rung not in self._encoded:
            self._encoded[rung] = encode(self._scales, rung)
        return self._encoded[rung]

    def _or_source(self, parcel: Parcel) -> Parcel:
        source = self._picture.jpeg
        if source is None or len(source) > len(parcel.jpeg) or not self._fits(1.0):
            return parcel
        return Parcel(parcel.rung, source, as_is=True)

    def _too_large(self, rung: Rung) -> bool:
        size = scaled_size(self._picture.image.size, rung.scale)
        if fits(size, self._capabilities):
            return len(self._encode(rung)) > self._capabilities.max_bytes
        return min(size) >= self._capabilities.min_side

    def _fits(self, scale: float) -> bool:
        return fits(scaled_size(self._picture.image.size, scale), self._capabilities)


def _surely_smaller(rung: Rung) -> bool:
    """Tell whether a rung cannot be larger than the reference, so that encoding that is spared.

    The same blocks, quantised as coarsely or more so, with Huffman tables that fit as well or
    better. Not so for scaled rungs: a mosaic whose tiles are the codec's blocks loses by being
    resized. Next to the resizing itself, encoding the reference costs little.
    """
    same = (rung.subsampling, rung.scale, rung.tables) == (REFERENCE.subsampling, 1.0, None)
    coarser = rung.quality <= REFERENCE.quality
    return same and coarser and rung.entropy in ("plain", "optimized")
