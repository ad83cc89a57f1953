"""A finished codec on trial: its files, as device and service open them, on photos left aside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk import codec
from edge_sdk.codec import encode
from edge_sdk.featurecodec import Artefact, FeatureCodec
from edge_sdk.ladder import REFERENCE
from training.cloud.coded import open_codec
from training.codec.artefact import amend
from training.codec.measure import Labels, Measured, baselines, measure
from training.codec.operate import Reached, bytes_at, choose, reach
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
    """

    document: Mapping[str, Any]
    calibration: Measured
    curves: Mapping[str, Measured]
    chosen: Mapping[float, Reached | None]
    hindsight: Mapping[str, Mapping[float, float | None]]
    reference_bytes: float
    device: Mapping[str, float]
    history: Sequence[Mapping[str, Any]]


def measured(
    folder: Path,
    calibration: Sequence[Path],
    test: Sequence[Path],
    history: Sequence[Mapping[str, Any]],
    stages: Stages,
) -> Trial:
    """Measure a codec, and note in its ``codec.json`` what its rates did on calibration photos."""
    coder, service = FeatureCodec.open(folder), open_codec(folder)
    wanted: dict[Path, Labels] = {}
    sizes: list[int] = []
    with stages.stage("asking about references", len(calibration) + len(test)) as step:
        for path in (*calibration, *test):
            jpeg = encode(codec.load(path).image, REFERENCE)
            wanted[path] = service.answer(jpeg)
            sizes.append(len(jpeg))
            step(1)
    with stages.stage("sending features", len(calibration) + len(test)) as step:
        aside = measure(calibration, coder, service, wanted, step)
        own = measure(test, coder, service, wanted, step)
    with stages.stage("sending pictures instead", len(test)) as step:
        curves = {"features": own, **baselines(test, service, coder.view, wanted, step)}
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
        reference_bytes=float(np.mean(sizes[len(calibration) :])),
        device=_times(coder, test[0]),
        history=history,
    )


def _figures(aside: Measured) -> list[dict[str, float]]:
    return [
        {"bytes": float(size), "agreement": float(agreed), "n": len(aside.sizes)}
        for size, agreed in zip(*aside.mean(), strict=True)
    ]


def _times(coder: FeatureCodec, path: Path) -> dict[str, float]:
    image = codec.load(path).image
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
