"""The opponent for human eyes: the lowest quality at which a picture still looks like itself.

It is what ``jpeg-recompress`` and its like do: they search every picture's quality until a
perceptual metric is met, and know nothing of the service. The metric is SSIM on luma (Wang, Bovik,
Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE TIP 2004) with a plain window of 8x8 pixels.

    seen = similarities(views, LADDER)                 # (N, K), no answer is needed
    rungs = cheapest_similar(seen, at_least=0.9)       # (N,)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_sdk.codec import encode
from edge_sdk.ladder import Ladder, Rung
from edge_sdk.reading import load
from training.photos import View

__all__ = ["LADDER", "THRESHOLDS", "cheapest_similar", "similarities", "ssim"]

Floats = NDArray[np.float64]

#: Qualities that are searched, with the agent's own entropy coding. The last one decodes to the
#: reference's pixels: who is never content may send that, as the agent may.
LADDER: Ladder = tuple(Rung(quality) for quality in (5, 10, 15, 20, 25, 35, 45, 55, 65, 75))

#: SSIM that is asked for, from rough to indistinguishable.
THRESHOLDS = (*(hundredths / 100 for hundredths in range(60, 98, 2)), 0.97, 0.98, 0.99)

#: Pictures under way at once; the codec and the filters let go of the interpreter's lock.
WORKERS = 2

_WINDOW = 8
# (K1·L)² and (K2·L)² of the paper, for L = 255: they keep flat windows from dividing by nothing.
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(one: Floats, other: Floats) -> float:
    """Return the mean structural similarity of two luma planes of one size, at most 1.

    Args:
        one: (H, W), 0 to 255.
        other: likewise.
    """
    from scipy.ndimage import uniform_filter  # takes a while to import

    high, wide = (min(_WINDOW, side) for side in one.shape)

    def mean(values: Floats) -> Floats:
        averaged = uniform_filter(values, (high, wide))
        # Windows that hang over the border see mirrored pixels; they do not count.
        top, left = high // 2, wide // 2
        below, right = averaged.shape[0] - (high - 1 - top), averaged.shape[1] - (wide - 1 - left)
        return np.asarray(averaged[top:below, left:right])

    mean_one, mean_other = mean(one), mean(other)
    product = mean_one * mean_other
    power = mean_one**2 + mean_other**2
    covariance = mean(one * other) - product
    variances = mean(one**2 + other**2) - power
    likeness = (2 * product + _C1) * (2 * covariance + _C2)
    return float((likeness / ((power + _C1) * (variances + _C2))).mean())


def similarities(
    views: Sequence[View],
    ladder: Ladder = LADDER,
    *,
    progress: Callable[[int], object] = lambda count: None,
) -> Floats:
    """Return the SSIM of every picture at every rung to the picture itself, (N, K).

    Args:
        views: the pictures, opened one by one.
        ladder: unscaled rungs.
        progress: called with 1 after every picture.
    """

    def one(view: View) -> Floats:
        image = view.open()
        luma = _luma(image)
        return np.array([ssim(luma, _luma(load(encode(image, rung)).image)) for rung in ladder])

    rows = []
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="similarity") as pool:
        for row in pool.map(one, views):
            rows.append(row)
            progress(1)
    return np.stack(rows)


def cheapest_similar(similarity: Floats, at_least: float) -> NDArray[np.int64]:
    """Return the first rung of every picture that is similar enough, else the last, (N,).

    Args:
        similarity: (N, K), the rungs cheapest first.
        at_least: SSIM.
    """
    enough = similarity >= at_least
    enough[:, -1] = True
    return np.argmax(enough, axis=1).astype(np.int64)


def _luma(image: Image.Image) -> Floats:
    return np.asarray(image.convert("L"), dtype=np.float64)
