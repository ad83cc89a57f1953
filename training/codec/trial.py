"""A finished codec on trial: its files, as device and service open them, on photos left aside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from edge_sdk import reading
from edge_sdk.codec import encode
from edge_sdk.featurecodec import Artefact, FeatureCodec
from edge_sdk.featurecodec.tail import Tail
from edge_sdk.ladder import REFERENCE
from training.cloud.coded import open_codec
from training.codec.artefact import amend
from training.codec.measure import Labels, Measured, baselines, measure
from training.codec.operate import Reached, bytes_at, choose, reach
from training.codec.shown import glimpses
from training.photos import View
from training.progress import Stages

__all__ = ["TARGETS", "Trial", "measured"]

#: Agreements that rates are chosen for.
TARGETS = (0.9, 0.95, 0.97, 0.98, 0.99)

#: Timed runs of the device side and of encoding a reference; the median counts.
_TIMED = 15


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a codec does.

    Attributes:
        document: its ``codec.json``.
        calibration: its rates on the photos that choices are made on.
        curves: kind of upload, "features" first, to its settings on the test photos.
        chosen: target to a choice of the calibration photos at work on the test photos, or None.
        hindsight: kind of upload to the fewest bytes at each target, read off the test photos.
        reference_bytes: mean of the test photos' references.
        device: milliseconds of the device side and of encoding a reference, on one core.
        history: of learning.
        shown: see ``training.codec.shown``.
    """

    document: Mapping[str, Any]
    calibration: Measured
    curves: Mapping[str, Measured]
    chosen: Mapping[float, Reached | None]
    hindsight: Mapping[str, Mapping[float, float | None]]
    reference_bytes: float
    device: Mapping[str, float]
    history: Sequence[Mapping[str, Any]]
    shown: Sequence[Mapping[str, Any]] = ()


def measured(
    folder: Path,
    calibration: Sequence[Path],
    test: Sequence[Path],
    history: Sequence[Mapping[str, Any]],
    stages: Stages,
) -> Trial:
    """Measure a codec, and note in its ``codec.json`` what its rates did on calibration photos.

    Those are sent as they are and mirrored, which tells a little more and is no harder.
    """
    coder, service = FeatureCodec.open(folder), open_codec(folder)
    tests = [View(path) for path in test]
    asides = [View(path) for path in calibration]
    asides += [one.through(_mirrored, 0) for one in asides]
    labels: dict[View, Labels] = {}
    sizes: list[int] = []
    with stages.stage("asking about references", len(asides) + len(tests)) as step:
        for one in (*asides, *tests):
            jpeg = encode(one.open(), REFERENCE)
            labels[one] = service.answer(jpeg)
            sizes.append(len(jpeg))
            step(1)

    def pictures(some: Sequence[View]) -> Iterator[tuple[Image.Image, Labels]]:
        return ((one.open(), labels[one]) for one in some)

    with stages.stage("sending features", len(asides) + len(tests)) as step:
        aside = measure(pictures(asides), coder, service, step)
        own = measure(pictures(tests), coder, service, step)
    with stages.stage("sending pictures instead", len(test)) as step:
        curves = {"features": own, **baselines(pictures(tests), service, coder.view, step)}
    amend(folder, {"calibration": _figures(aside)})
    choices = {target: choose(aside, target) for target in TARGETS}
    return Trial(
        document=Artefact.open(folder).document,
        calibration=aside,
        curves=curves,
        chosen={
            target: None if choice is None else reach(own, choice, target)
            for target, choice in choices.items()
        },
        hindsight={
            kind: {target: bytes_at(one, target) for target in TARGETS}
            for kind, one in curves.items()
        },
        reference_bytes=float(np.mean(sizes[len(asides) :])),
        device=_times(coder, test[0]),
        history=history,
        shown=glimpses(test, coder, Tail.open(folder)),
    )


def _mirrored(image: Image.Image, _: int) -> Image.Image:
    return ImageOps.mirror(image)


def _figures(aside: Measured) -> list[dict[str, float]]:
    return [
        {"bytes": float(size), "agreement": float(agreed), "n": len(aside.sizes)}
        for size, agreed in zip(*aside.mean(), strict=True)
    ]


def _times(coder: FeatureCodec, path: Path) -> dict[str, float]:
    image = reading.load(path).image
    runs: dict[str, list[float]] = {"device_ms": [], "stream_ms": [], "reference_ms": []}
    for _ in range(_TIMED):
        begun = time.perf_counter()
        integers = coder.integers(image)
        seen = time.perf_counter()
        coder.encode(integers, coder.rates // 2)
        coded = time.perf_counter()
        encode(image, REFERENCE)
        ended = time.perf_counter()
        spent = (seen - begun, coded - seen, ended - coded)
        for name, seconds in zip(runs, spent, strict=True):
            runs[name].append(1000.0 * seconds)
    return {name: float(np.median(values)) for name, values in runs.items()}
