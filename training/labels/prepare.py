"""The pure half of labelling: from a picture to the files that could be uploaded.

No ledger, no budget, no service and no keys: what is here may run anywhere, on another machine
too, twice if need be, and gives the same. What costs money is in ``training.labels.labeller``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from edge_sdk.backends.base import Capabilities
from edge_sdk.backends.limits import check_upload
from edge_sdk.codec import Streams
from edge_sdk.errors import BackendRejected, ImageError
from edge_sdk.ladder import Ladder
from edge_sdk.parcel import Packer, Parcel
from edge_sdk.reading import Picture as Opened
from training.labels.ledger import picture_key

__all__ = ["Attempt", "Picture", "Prepared", "attempt", "prepare"]


class Picture(Protocol):
    """Something to label; ``training.photos.View`` is one. Executors of processes pickle it."""

    @property
    def photo(self) -> str:
        """Identity of the photo it is a view of."""

    def open(self) -> Image.Image:
        """Return the picture, RGB.

        Raises:
            ImageError: it cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture's files.

    Attributes:
        key: identity of its pixels, see ``picture_key``.
        reference: the reference's upload.
        uploads: what stands for each of the ladder's rungs; every one, because their sizes are
            wanted. A rung that the service does not take is another one's upload here.
    """

    key: str
    reference: Parcel
    uploads: tuple[Parcel, ...]


def prepare(
    picture: Picture, ladder: Ladder, capabilities: Capabilities, codec: Streams | None = None
) -> Prepared:
    """Encode a picture at every rung of ``ladder``, cut to what the service accepts.

    Rungs of features need their ``codec``.

    Raises:
        ImageError: it cannot be read or encoded.
        BackendRejected: the service does not even take the reference; nothing is paid for then.
    """
    image = picture.open()
    packer = Packer(Opened(image), capabilities, codec=codec)
    reference, uploads = packer.reference(), tuple(packer.parcels(ladder))
    for parcel in (reference, *uploads):
        check_upload(parcel.jpeg, capabilities, "the service")
    return Prepared(picture_key(image), reference, uploads)


#: A picture's files, or why there are none.
Attempt = Prepared | ImageError | BackendRejected


def attempt(
    picture: Picture, ladder: Ladder, capabilities: Capabilities, codec: Streams | None = None
) -> Attempt:
    """Return what :func:`prepare` returns or raises.

    An executor tries a function again that raises, and warns of it; a picture that cannot be read
    will be no better then.
    """
    try:
        return prepare(picture, ladder, capabilities, codec)
    except (ImageError, BackendRejected) as error:
        return error
