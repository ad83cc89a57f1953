"""How a service looks at a picture: the square that its model takes; numbers stay pixels.

It is the classifier's own preparation, as the people who trained it state it, not the resize of
our engine (``edge_sdk.preprocess``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.errors import UsageError

__all__ = ["FILTERS", "View"]

#: The filters of a view, and Pillow's names for them.
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

#: Larger squares are a mistake, and would be reserved before anybody notices.
_LARGEST = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A model's view of a picture.

    Attributes:
        side: of the square in pixels.
        resized: the picture's short side before the middle square is cut out; of a squeezed
            picture, both sides.
        squeezed: the picture is first made a square, whatever its shape.
        filter: of the resize, a key of ``FILTERS``; Pillow's, antialiased.

    Raises:
        UsageError: a field has another type or is out of range.
    """

    side: int
    resized: int
    squeezed: bool = False
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        _check("side", self.side, least=1)
        _check("resized", self.resized, least=self.side)
        if type(self.squeezed) is not bool:
            raise UsageError(f"A view's squeezed is {self.squeezed!r}; allowed are true and false.")
        if not isinstance(self.filter, str) or self.filter not in FILTERS:
            raise UsageError(f"A view's filter is {self.filter!r}; allowed: {', '.join(FILTERS)}.")

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the model's view of an RGB image: (side, side, 3) uint8."""
        width, height = self._size(image.size)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        scaled = image.resize((width, height), FILTERS[self.filter])
        return np.asarray(scaled.crop((left, top, left + self.side, top + self.side)))

    def place(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return where the middle square of ``resized`` pixels lies in a picture of ``size``.

        That is the view with its margin all around, as (left, top, width, height) in the picture's
        pixels.
        """
        width, height = self._size(size)
        margin = (self.resized - self.side) // 2
        left, top = (width - self.side) // 2 - margin, (height - self.side) // 2 - margin
        across, down = size[0] / width, size[1] / height
        return left * across, top * down, self.resized * across, self.resized * down

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave; fields that this version does not know are ignored.

        Raises:
            UsageError: a field is missing or out of range.
        """
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        missing = {"side", "resized"} - known.keys()
        if missing:
            raise UsageError(f"A view lacks {' and '.join(sorted(missing))}; fields: {known}.")
        return cls(**known)

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.squeezed:
            return self.resized, self.resized
        scale = self.resized / min(size)
        width, height = (max(self.side, round(length * scale)) for length in size)
        return width, height


def _check(name: str, value: object, *, least: int) -> None:
    if type(value) is not int or not least <= value <= _LARGEST:
        raise UsageError(f"A view's {name} is {value!r}; allowed are {least} to {_LARGEST} pixels.")
