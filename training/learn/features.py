"""Features of views: the frozen prefix over every picture, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_sdk.preprocess import to_input
from export.network import WHOLE, Prefix
from model_store.errors import EnvironmentMissing, UsageError
from training import assets
from training.photos import View

if TYPE_CHECKING:
    from numpy.random import Generator

__all__ = ["Features", "extract", "load_prefix"]

#: Pictures per pass through the prefix.
BATCH = 16

#: Pictures decoded at once; Pillow lets go of the interpreter's lock while it works.
OPENERS = 2

#: Inputs kept for the parity gate.
KEEP = 48


@dataclass(frozen=True)
class Features:
    """Features of N views, with some of the inputs they came from.

    Attributes:
        values: float32 (N, D).
        inputs: uint8 (M, S, S, 3), the engine's inputs of ``rows``, for the parity gate.
        rows: int64 (M,), which views the inputs belong to.
    """

    values: NDArray[np.float32]
    inputs: NDArray[np.uint8]
    rows: NDArray[np.int64]


def load_prefix(
    weights: str = "auto", *, cut: int = WHOLE, side: int = 224, confidence: bool = False
) -> Prefix:
    """Return MobileNetV2's prefix with the official ImageNet weights.

    Args:
        weights: ``asset`` for the installed file, ``torchvision`` for the online source, ``auto``
            for the file if it is installed and the online source otherwise.
        cut: blocks kept, 1 to 19.
        side: input side in pixels.
        confidence: append the statistics of MobileNetV2's own classifier.

    Raises:
        EnvironmentMissing: the weights are neither installed nor reachable.
    """
    if weights not in ("auto", "asset", "torchvision"):
        raise UsageError(f"Weights {weights!r} are unknown; allowed: auto, asset, torchvision.")
    try:
        path = None if weights == "torchvision" else assets.find("mobilenet-v2")
    except EnvironmentMissing:
        if weights == "asset":
            raise
        path = None
    try:
        return Prefix(path, cut=cut, side=side, confidence=confidence)
    except OSError as error:  # urllib's errors are OSErrors
        raise EnvironmentMissing(
            f"MobileNetV2's weights are not installed and cannot be downloaded ({error}); run "
            f"`{assets.COMMAND}`."
        ) from error


def extract(
    prefix: Prefix,
    views: Sequence[View],
    *,
    rng: Generator,
    progress: Callable[[int], object] = lambda count: None,
) -> Features:
    """Compute the features of ``views`` with the frozen prefix.

    Args:
        prefix: the torch module.
        views: opened one by one; a batch of inputs is all that is kept in memory.
        rng: chooses the inputs that are kept for the parity gate.
        progress: called with the number of views done since the last call.
    """
    import torch

    rows = np.sort(rng.choice(len(views), size=min(KEEP, len(views)), replace=False))
    values, inputs, wanted = [], [], set(rows.tolist())
    with ThreadPoolExecutor(OPENERS, thread_name_prefix="features") as pool:
        for start in range(0, len(views), BATCH):
            opened = pool.map(lambda view: to_input(view.open(), prefix.side), _batch(views, start))
            batch = list(opened)
            inputs += [one for index, one in enumerate(batch, start) if index in wanted]
            with torch.inference_mode():
                values.append(prefix(torch.from_numpy(np.concatenate(batch))).numpy())
            progress(len(batch))
    return Features(np.concatenate(values), np.concatenate(inputs), rows)


def _batch(views: Sequence[View], start: int) -> Sequence[View]:
    return views[start : start + BATCH]
