"""What a codec does on photos it has not learnt from: real streams, real answers.

Bytes are those of whole streams with header and checksum, from files as a device opens them, and
answers come from the decoded streams. Agreement is the product's own (``edge_sdk.agreement``,
``any_hit``): the service's best label for the reference JPEG of the whole photo is among the five
of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_sdk.agreement import compare
from edge_sdk.backends.base import Label
from edge_sdk.codec import Scales, encode
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.rung import Rung
from edge_sdk.view import View

__all__ = ["Answers", "Labels", "Measured", "baselines", "measure"]

Labels = tuple[Label, ...]

#: Shares of the sides of scaled frames and crops, and qualities, that the codec is compared with.
_FULL, _SCALES, _CROPS = (1.0,), (0.5, 0.25), (1.0, 0.65)
_QUALITIES = (75, 30, 8)
_TITLES = {"jpeg": "JPEG", "webp": "WebP"}


class Answers(Protocol):
    """The user's classifier as a service."""

    def answer(self, jpeg: bytes) -> Labels:
        """Return the labels of a picture's file, or of a stream."""


@dataclass(frozen=True)
class Measured:
    """Bytes and agreement of N photos at K settings.

    Attributes:
        names: of the settings, or of the rates.
        sizes: (N, K) bytes.
        agreed: (N, K), 0 or 1.
    """

    names: tuple[str, ...]
    sizes: npt.NDArray[np.float64]
    agreed: npt.NDArray[np.float64]

    def mean(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return mean bytes (K,) and agreement (K,)."""
        return self.sizes.mean(axis=0), self.agreed.mean(axis=0)


def measure(
    pictures: Iterable[tuple[Image.Image, Labels]],
    coder: FeatureCodec,
    service: Answers,
    step: Callable[[int], object] = lambda count: None,
) -> Measured:
    """Send every picture at every rate.

    Args:
        pictures: that nothing was learnt from, with the service's labels for their references.
        coder: the device side.
        service: answers streams and pictures.
        step: told the pictures done.
    """
    sizes, agreed = [], []
    for image, wanted in pictures:
        integers = coder.integers(image)
        streams = [coder.encode(integers, rate) for rate in range(coder.rates)]
        sizes.append([len(stream) for stream in streams])
        agreed.append([_agrees(wanted, service.answer(stream)) for stream in streams])
        step(1)
    names = tuple(f"rate {rate}" for rate in range(coder.rates))
    return Measured(names, np.array(sizes, float), np.array(agreed, float))


def baselines(
    pictures: Iterable[tuple[Image.Image, Labels]],
    service: Answers,
    view: View,
    step: Callable[[int], object] = lambda count: None,
) -> dict[str, Measured]:
    """Send pictures instead: JPEG and WebP of whole frames, scaled frames, the service's own crop.

    Returns:
        kind of picture to what its settings did; a setting's name is scale and quality.
    """
    kinds = _rungs(view)
    rows: dict[str, list[tuple[list[int], list[float]]]] = {kind: [] for kind in kinds}
    for image, wanted in pictures:
        scales = Scales(image)
        for kind, rungs in kinds.items():
            files = [encode(scales, rung) for rung in rungs]
            agreed = [_agrees(wanted, service.answer(data)) for data in files]
            rows[kind].append(([len(data) for data in files], agreed))
        step(1)
    return {
        kind: Measured(
            tuple(f"{rung.scale:g} q{rung.quality}" for rung in rungs),
            np.array([sizes for sizes, _ in rows[kind]], float),
            np.array([agreed for _, agreed in rows[kind]], float),
        )
        for kind, rungs in kinds.items()
    }


def _rungs(view: View) -> dict[str, list[Rung]]:
    """Return what could be sent instead, by kind."""
    kinds: dict[str, list[Rung]] = {}
    for source, scales, seen in (
        ("full frame", _FULL, None),
        ("scaled frame", _SCALES, None),
        ("service's crop", _CROPS, view),
    ):
        for form, title in _TITLES.items():
            kinds[f"{title} of the {source}"] = [
                Rung(format=form, quality=quality, scale=scale, view=seen)
                for scale in scales
                for quality in _QUALITIES
            ]
    return kinds


def _agrees(wanted: Labels, found: Labels) -> float:
    return compare(wanted, found).any_hit
