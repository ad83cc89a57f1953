"""Pictures to learn from: a folder's photos, views of them, and the split by photo.

A *view* is a crop of a photo, scaled as a camera frame would be. Views of one photo look alike, so
every split and every interval goes by photo, never by view.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk import codec, reading
from edge_sdk.errors import ImageError
from model_store.errors import UsageError

__all__ = ["View", "readable", "split_by_photo", "split_rows", "views"]

Camera = Callable[[Image.Image, int], Image.Image]


@dataclass(frozen=True, slots=True)
class View:
    """One picture of a data set; opened when it is needed, never kept.

    Attributes:
        path: the photo's file.
        box: (left, top, right, bottom) in fractions of the photo's sides.
        long_side: the longer side is scaled down to this many pixels; None keeps it.
        camera: what the scenery's camera does to the picture, with ``seed``; None for nothing.
        seed: of the camera's noise.
    """

    path: Path
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    long_side: int | None = None
    camera: Camera | None = None
    seed: int = 0

    @property
    def photo(self) -> str:
        """Identity of the photo that this is a view of."""
        return str(self.path)

    def open(self) -> Image.Image:
        """Return the picture, RGB.

        Raises:
            ImageError: the photo cannot be read.
        """
        photo = _decoded(self.path)
        width, height = photo.size
        left, top, right, bottom = self.box
        picture = photo.crop(
            (round(left * width), round(top * height), round(right * width), round(bottom * height))
        )
        if self.long_side is not None and max(picture.size) > self.long_side:
            scale = self.long_side / max(picture.size)
            size = codec.scaled_size(picture.size, scale)
            picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        return picture if self.camera is None else self.camera(picture, self.seed)

    def through(self, camera: Camera, seed: int) -> View:
        """Return the same view as another camera sees it."""
        return replace(self, camera=camera, seed=seed)


@lru_cache(maxsize=4)
def _decoded(path: Path) -> Image.Image:
    """Decode a photo once for its views, which are opened one after the other."""
    return reading.load(path).image


def readable(paths: Iterable[Path], warn: Callable[[str], None]) -> list[Path]:
    """Return the pictures that can be decoded; each other one is named to ``warn`` once.

    Raises:
        UsageError: none can be decoded.
    """
    good = []
    for path in paths:
        try:
            reading.load(path)
        except ImageError as error:
            warn(f"left out: {error}")
        else:
            good.append(path)
    if not good:
        raise UsageError("None of the pictures can be read; see the reasons above.")
    return good


def views(
    paths: Sequence[Path],
    per_photo: int,
    *,
    long_side: int | None,
    seed: int,
    whole: bool = True,
) -> list[View]:
    """Return ``per_photo`` views of each photo: the whole one first if wanted, then random crops.

    A crop keeps the photo's aspect and 50 to 90 % of its sides. The crops of a photo depend on its
    file name and ``seed`` only, so adding a photo changes no other one's views.
    """
    return [
        View(path, box, long_side)
        for path in paths
        for box in _boxes(_generator(path, seed), per_photo, whole=whole)
    ]


def split_by_photo(
    items: Sequence[View], shares: Sequence[float], *, seed: int
) -> list[list[View]]:
    """Split views into parts so that all views of a photo are in one part.

    Args:
        items: views of at least as many photos as there are parts.
        shares: of the photos, per part, summing to 1.
        seed: of the shuffle.

    Raises:
        UsageError: fewer photos than parts.
    """
    names = sorted({item.photo for item in items})
    if len(names) < len(shares):
        raise UsageError(
            f"{len(names)} photo(s) cannot be split into {len(shares)} parts (train, calibration, "
            f"test); give at least {len(shares)}, better a hundred."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    part_of = dict(zip((names[i] for i in order), _parts(len(names), shares), strict=True))
    return [[item for item in items if part_of[item.photo] == part] for part in range(len(shares))]


def split_rows(
    groups: NDArray[np.object_], counts: Sequence[int], seed: int
) -> list[NDArray[np.int64]]:
    """Return the rows of the first ``counts[0]`` shuffled photos, of the next, and so on."""
    names, photo = np.unique(groups.astype(str), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[photo]
    edges = np.cumsum([0, *counts])
    return [np.flatnonzero((place >= low) & (place < high)) for low, high in pairwise(edges)]


def _parts(count: int, shares: Sequence[float]) -> list[int]:
    """Part number of each of ``count`` shuffled photos; every part gets at least one."""
    edges = np.rint(np.cumsum(shares) * count).astype(int)
    for part in range(len(shares)):  # first from below, then from above: no part stays empty
        edges[part] = max(edges[part], edges[part - 1] + 1 if part else 1)
    for part in range(len(shares)):
        edges[part] = min(edges[part], count - (len(shares) - 1 - part))
    return [int(np.searchsorted(edges, index, side="right")) for index in range(count)]


def _boxes(
    rng: np.random.Generator, count: int, *, whole: bool
) -> list[tuple[float, float, float, float]]:
    boxes = [(0.0, 0.0, 1.0, 1.0)] if whole else []
    while len(boxes) < count:
        side = rng.uniform(0.5, 0.9)
        left, top = rng.uniform(0.0, 1.0 - side, size=2)
        boxes.append((float(left), float(top), float(left + side), float(top + side)))
    return boxes[:count]


def _generator(path: Path, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(path.name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
