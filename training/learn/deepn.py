"""Quantisation tables after DeepN-JPEG, computed from pictures alone: no labels, no service.

Liu et al., "DeepN-JPEG: A Deep Neural Network Favorable JPEG-based Image Compression Framework",
DAC 2018 (arXiv 1803.05788): a frequency that varies much over a domain's pictures carries what
networks look at, so it gets a small step. One table for the domain, none for a picture. It is a
baseline for the agent, which adapts to every picture; agents themselves use libjpeg's tables.

    ladder = deepn_rungs(views, (2.0, 1.0, 0.5))["faithful"]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.ladder import Ladder, Rung
from model_store.errors import UsageError

__all__ = ["SCALES", "VARIANTS", "Spectrum", "Variant", "deepn_rungs", "deepn_tables"]

Floats = NDArray[np.float64]
Variant = Literal["faithful", "continuous"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

#: Table scales from coarse to fine that span the agreements which anybody would ask for.
SCALES = (4.0, 3.0, 2.0, 1.5, 1.0, 0.75, 0.5, 0.25)

# The paper's piece-wise linear map from a deviation to a step: a - K1·σ up to T1, b - K2·σ up to
# T2, c - K3·σ beyond. The constants are those with which AdaCompress's authors compared themselves.
_T1, _T2 = 20.0, 60.0
_A, _B, _C = 255.0, 80.0, 240.0
_K1, _K2, _K3 = 9.75, 1.0, 3.0
_FINEST, _COARSEST = 5, 255

#: What c has to be for the map not to jump up at T2, where it is 20 on one side and 60 on the
#: other: coefficients just above T2 would get coarser steps than those that vary less.
_C_CONTINUOUS = _B + (_K3 - _K2) * _T2

_SIDE = 8


class Openable(Protocol):
    """Something that opens as a picture; ``training.photos.View`` is one."""

    def open(self) -> Image.Image:
        """Return the picture, RGB."""


def _cosines() -> Floats:
    """Return the orthonormal DCT-II as a matrix, (8, 8)."""
    frequency, place = np.mgrid[0:_SIDE, 0:_SIDE]
    matrix = np.cos((2 * place + 1) * frequency * np.pi / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, dtype=np.float64)


_DCT = _cosines()


@dataclass
class _Sums:
    """Running sums of one plane's coefficients: what a standard deviation needs."""

    count: int = 0
    total: Floats = field(default_factory=lambda: np.zeros((_SIDE, _SIDE)))
    squares: Floats = field(default_factory=lambda: np.zeros((_SIDE, _SIDE)))

    def add(self, plane: Floats) -> None:
        """Add the whole blocks of a plane, (H, W)."""
        high, wide = (side // _SIDE for side in plane.shape)
        cut = plane[: high * _SIDE, : wide * _SIDE] - 128.0
        blocks = cut.reshape(high, _SIDE, wide, _SIDE).swapaxes(1, 2).reshape(-1, _SIDE, _SIDE)
        coefficients = _DCT @ blocks @ _DCT.T
        self.count += len(blocks)
        self.total += coefficients.sum(axis=0)
        self.squares += (coefficients**2).sum(axis=0)

    def deviation(self) -> Floats:
        """Return the coefficients' standard deviation, (8, 8)."""
        variance = (self.squares - self.total**2 / self.count) / (self.count - 1)
        return np.sqrt(np.maximum(variance, 0.0))


class Spectrum:
    """How much every DCT coefficient varies over pictures that are added one by one."""

    def __init__(self) -> None:
        self._luma, self._chroma = _Sums(), _Sums()

    def add(self, image: Image.Image) -> None:
        """Add an RGB picture; both planes of chroma, in full size, share a table and the sums."""
        luma, *chroma = np.moveaxis(np.asarray(image.convert("YCbCr"), np.float64), 2, 0)
        self._luma.add(luma)
        for plane in chroma:
            self._chroma.add(plane)

    def deviations(self) -> tuple[Floats, Floats]:
        """Return the standard deviations of luma and chroma, (8, 8) each.

        Raises:
            UsageError: the pictures have too few blocks to tell.
        """
        if self._luma.count < 2:
            raise UsageError(
                f"DeepN-JPEG tables need pictures with two blocks of {_SIDE}x{_SIDE} pixels or "
                f"more; there are {self._luma.count}. Give larger pictures, or more."
            )
        return self._luma.deviation(), self._chroma.deviation()


def deepn_tables(deviation: Floats, variant: Variant = "faithful") -> tuple[int, ...]:
    """Return the quantisation steps of one plane, 64 in raster order.

    Args:
        deviation: σ of each coefficient, (8, 8).
        variant: ``faithful`` to the paper, which jumps up at σ = 60, or ``continuous``.
    """
    beyond = _C if variant == "faithful" else _C_CONTINUOUS
    steps = np.select(
        [deviation <= _T1, deviation <= _T2],
        [_A - _K1 * deviation, _B - _K2 * deviation],
        beyond - _K3 * deviation,
    )
    clipped = np.clip(np.floor(steps), _FINEST, _COARSEST).astype(int)
    return tuple(clipped.ravel().tolist())


def deepn_rungs(
    views: Sequence[Openable],
    scales: Sequence[float] = SCALES,
    *,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[Variant, Ladder]:
    """Return each variant's rungs, one for every scale of the tables, entropy-coded as ours are.

    Args:
        views: the domain's pictures, opened one by one.
        scales: factors of the tables, coarse to fine; rounded to what a JPEG quality can say.
        progress: called with 1 after every picture.

    Raises:
        ImageError: a picture cannot be read.
        UsageError: a scale is not between 0.1 and 10, or the pictures are too small.
    """
    qualities = dict.fromkeys(map(_quality, scales))
    spectrum = Spectrum()
    for view in views:
        spectrum.add(view.open())
        progress(1)
    luma, chroma = spectrum.deviations()
    ladders: dict[Variant, Ladder] = {}
    for variant in VARIANTS:
        tables = deepn_tables(luma, variant), deepn_tables(chroma, variant)
        ladders[variant] = tuple(Rung(quality, tables=tables) for quality in qualities)
    return ladders


def _quality(scale: float) -> int:
    """Return the quality that scales tables most nearly so, the inverse of libjpeg's rule."""
    if not 0.1 <= scale <= 10.0:
        raise UsageError(f"A table scale is {scale:g}; allowed is 0.1 to 10.")
    return round(50.0 / scale) if scale >= 1.0 else round(100.0 - 50.0 * scale)
