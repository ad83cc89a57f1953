"""Pictures to learn a codec from: views of whole photos, and crops as a camera might have framed.

Photos need no labels. What is learnt from is the classifier's own answers, computed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from edge_sdk import reading
from edge_sdk.codec import encode
from edge_sdk.ladder import REFERENCE
from edge_sdk.view import FILTERS, View
from model_store.errors import UsageError
from training.learn.compute import CPU
from training.photos import View as Photo
from training.photos import split_by_photo

__all__ = ["FEWEST", "Seen", "crops", "features", "reference", "scores", "split", "whole"]

#: Photos at least: 30 to learn from, 10 to choose rates by and 10 to measure on.
FEWEST = 50

#: Shares of the photos: learnt from, chosen by, measured on.
_SHARES = (0.6, 0.2, 0.2)

#: A crop's share of the square that fits the photo, and how far its sides differ (log ratio).
_AREA, _STRETCH = (0.45, 1.0), 0.25

#: Pictures at once.
_BATCH = 32

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """Features (N, D, h, w) in half precision and the classifier's scores (N, classes) for them."""

    features: Tensor
    scores: Tensor


def split(paths: Sequence[Path], seed: int) -> tuple[list[Path], list[Path], list[Path]]:
    """Return photos to learn from, to choose rates by and to measure on.

    Raises:
        UsageError: there are fewer than ``FEWEST``.
    """
    if len(paths) < FEWEST:
        raise UsageError(
            f"{len(paths)} photo(s) are too few to learn a codec from; give at least {FEWEST}, "
            "better three hundred. They need no labels."
        )
    parts = split_by_photo([Photo(path) for path in paths], _SHARES, seed=seed)
    learn, choose, measure = ([photo.path for photo in part] for part in parts)
    return learn, choose, measure


def whole(path: Path, view: View) -> Pixels:
    """Return what the device sees of a photo, (S, S, 3)."""
    return view.pixels(reading.load(path).image)


def reference(path: Path, view: View) -> tuple[Pixels, int]:
    """Return what the service sees of the reference upload, and the upload's bytes."""
    jpeg = encode(reading.load(path).image, REFERENCE)
    return view.pixels(reading.load(jpeg).image), len(jpeg)


def crops(path: Path, view: View, count: int, seed: int) -> list[Pixels]:
    """Return the whole view, then random crops, every other one mirrored; by name and seed only."""
    image = reading.load(path).image
    digest = hashlib.sha256(path.name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    made = [view.pixels(image)]
    while len(made) < count:
        crop = _crop(image, view, rng)
        made.append(np.ascontiguousarray(crop[:, ::-1]) if len(made) % 2 else crop)
    return made


def _crop(image: Image.Image, view: View, rng: np.random.Generator) -> Pixels:
    width, height = image.size
    area, stretch = rng.uniform(*_AREA), rng.uniform(-_STRETCH, _STRETCH)
    side = min(width, height) * area**0.5
    across = min(width, side * float(np.exp(stretch / 2)))
    down = min(height, side * float(np.exp(-stretch / 2)))
    left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
    box = (left, top, left + across, top + down)
    size = (view.side, view.side)
    return np.asarray(image.resize(size, FILTERS[view.filter], box=box, reducing_gap=2.0))


def features(
    prefix: nn.Module,
    pixels: Sequence[Pixels],
    step: Callable[[int], object] = lambda n: None,
    device: torch.device = CPU,
) -> Tensor:
    """Return the prefix's maps (N, D, h, w) of views, half precision; it is on ``device``."""
    made = []
    for start in range(0, len(pixels), _BATCH):
        batch = torch.from_numpy(np.stack(pixels[start : start + _BATCH]))
        # bfloat16 here only moves the pictures that are learnt from by a hair.
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            made.append(prefix(batch.to(device)).half().cpu())
        step(len(batch))
    return torch.cat(made).clone()


def scores(tail: nn.Module, maps: Tensor, device: torch.device = CPU) -> Tensor:
    """Return the tail's scores (N, classes) for maps; it is on ``device``."""
    with torch.inference_mode():
        made = [tail(batch.to(device).float()).float().cpu() for batch in maps.split(_BATCH)]
    return torch.cat(made).clone()
