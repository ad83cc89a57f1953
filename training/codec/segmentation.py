"""A segmentation head on a codec's features, for who has masks: no picture is made for it either.

A mask is a PNG of class numbers beside a photo's name; 255 is nobody's. Learnt behind the frozen
decoder, at all rates alike, and measured as the mean of the classes' intersection over union.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from edge_sdk.view import View
from export.feature_network import Bottleneck, Decoder, Segmenter
from model_store.errors import UsageError

__all__ = ["NOBODY", "learn_segmenter", "masks_of", "mean_iou", "segmented"]

#: Class number of places that do not count.
NOBODY = 255

_RATE, _BATCH = 2e-3, 14


def masks_of(
    folder: Path, photos: Sequence[Path], view: View
) -> Mapping[Path, npt.NDArray[np.uint8]]:
    """Return the service's view of every photo's mask, (S, S) class numbers.

    Raises:
        UsageError: a mask is missing, is no picture, or has another shape than its photo.
    """
    return {photo: _seen(_opened(folder / f"{photo.stem}.png", photo), view) for photo in photos}


def learn_segmenter(
    bottleneck: Bottleneck,
    decoder: Decoder,
    codes: Tensor,
    masks: npt.NDArray[np.uint8],
    *,
    steps: int,
    seed: int,
) -> Segmenter:
    """Return a head.

    Args:
        bottleneck: learnt, as is the decoder.
        decoder: integers to features; stays as it is.
        codes: (N, C, H, W).
        masks: (N, S, S) of the same views.
        steps: of learning.
        seed: of everything random.
    """
    torch.manual_seed(seed)
    shape = bottleneck.shape
    classes = int(masks[masks != NOBODY].max(initial=0)) + 1
    head = Segmenter(decoder.requires_grad_(requires_grad=False), max(2, classes))
    learning = [one for one in head.parameters() if one.requires_grad]
    optimiser = torch.optim.Adam(learning, lr=_RATE)
    generator = torch.Generator().manual_seed(seed)
    rate = torch.arange(_BATCH) % shape.rates
    for done in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * 0.5 * (1.0 + math.cos(math.pi * done / steps))
        rows = torch.randint(len(codes), (_BATCH,), generator=generator)
        with torch.no_grad():
            integers = torch.round(bottleneck.gained(codes[rows], rate))
            integers = integers.clamp(-shape.limit, shape.limit)
        scores = head.scores(integers, rate)
        wanted = _sampled(torch.from_numpy(masks[rows.numpy()]), (scores.shape[2], scores.shape[3]))
        loss = F.cross_entropy(scores, wanted, ignore_index=NOBODY)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return head.eval()


def segmented(
    head: Segmenter, integers: npt.NDArray[np.int8], masks: npt.NDArray[np.uint8]
) -> list[float | None]:
    """Return the mean IoU at every rate.

    Args:
        head: learnt.
        integers: (N, R, C, H, W).
        masks: (N, S, S).
    """
    classes, scores = head.joined.out_channels, []
    for rate in range(integers.shape[1]):
        with torch.inference_mode():
            of_rate = torch.full((len(integers),), rate)
            found = head(torch.from_numpy(integers[:, rate].copy()), of_rate).numpy()
        scores.append(mean_iou(found, masks, classes))
    return scores


def mean_iou(
    found: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8], classes: int
) -> float | None:
    """Return the mean intersection over union of the classes that there are, or None.

    Args:
        found: (N, H, W) class numbers.
        masks: (N, S, S), sampled to the size of ``found``.
        classes: how many.
    """
    size = (found.shape[1], found.shape[2])
    wanted = _sampled(torch.from_numpy(masks), size).numpy()
    counts = wanted != NOBODY
    shares = []
    for number in range(classes):
        there, said = wanted == number, found == number
        union = ((there | said) & counts).sum()
        if (there & counts).any():
            shares.append(float((there & said & counts).sum() / union))
    return float(np.mean(shares)) if shares else None


def _sampled(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks (N, S, S) at another size, int64; a class number is never mixed."""
    return F.interpolate(masks[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def _opened(path: Path, photo: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as mask, Image.open(photo) as picture:
            classes, size = np.asarray(mask), picture.size
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no mask {path} of {photo.name}; a mask is a PNG of class numbers with the "
            "photo's name."
        ) from error
    except (UnidentifiedImageError, OSError) as error:
        raise UsageError(f"The mask {path} cannot be read ({error}).") from error
    if classes.ndim != 2 or classes.dtype != np.uint8 or classes.shape[::-1] != size:
        raise UsageError(
            f"The mask {path} is {classes.dtype} of shape {classes.shape}; allowed is one class "
            f"number (0 to 254, 255 for nobody's) for each of the photo's {size[0]} x {size[1]} "
            "pixels."
        )
    return classes


def _seen(classes: npt.NDArray[np.uint8], view: View) -> npt.NDArray[np.uint8]:
    """Return the view's class numbers: at every place the class that most of it shows."""
    numbers = np.unique(classes)
    shares = []
    for number in numbers:
        plane = np.where(classes == number, 255, 0).astype(np.uint8)
        shares.append(view.pixels(Image.fromarray(np.stack([plane] * 3, axis=2)))[..., 0])
    most: npt.NDArray[np.uint8] = numbers[np.argmax(np.stack(shares), axis=0)]
    return most
