"""How a picture is brought to the square that a model takes; its numbers stay pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Input"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """A model's input, as the people who trained it prepared theirs.

    Attributes:
        side: of the square in pixels.
        resized: the picture's short side before the middle square is cut out; of a squeezed
            picture, both sides.
        squeezed: the picture is first made a square, whatever its shape.
        filter: Pillow's, of the resize.
    """

    side: int
    resized: int
    squeezed: bool = False
    filter: Image.Resampling = Image.Resampling.BILINEAR

    def pixels(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Return the model's view of an RGB image: (side, side, 3) uint8."""
        width, height = self._size(image.size)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        scaled = image.resize((width, height), self.filter)
        return np.asarray(scaled.crop((left, top, left + self.side, top + self.side)))

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.squeezed:
            return self.resized, self.resized
        scale = self.resized / min(size)
        width, height = (max(self.side, round(length * scale)) for length in size)
        return width, height
