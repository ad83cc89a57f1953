"""INT8 of a codec's device side: as many convolutions as answer the same, the others stay fp32.

Device and server always compute with the same integers, which are what is sent; another precision
only makes other integers of the same picture. So the gate looks at what they do: at every rate the
tail's best label for fp32's integers has to be among its answer to INT8's, on photos that took no
part in the calibration, for as many bytes, and it has to be faster. Else nothing is published.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.agreement import compare
from edge_sdk.featurecodec import Artefact, FeatureCodec
from edge_sdk.featurecodec.artefact import DOCUMENT, FILES, INT8
from edge_sdk.featurecodec.tail import Labels, Tail
from export.codec_archive import CodecFiles
from export.codec_calibrate import calibrate_encoder
from export.gate import MIN_SAME
from export.quantize import Calibration
from export.variants import WORTH
from model_store.errors import GateFailed
from model_store.files import sha256_bytes, to_json

__all__ = ["MAX_PHOTOS", "Int8Codec", "with_int8"]

#: Photos that are used of a folder.
MAX_PHOTOS = 200

#: Fewer prove nothing.
_FEWEST = 8

#: How many more bytes INT8's integers may take.
_BYTES = 1.01

_TIMED = 20

Pixels = NDArray[np.uint8]
Integers = NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Int8Codec:
    """A codec with an INT8 device side that passed the gate.

    Attributes:
        codec: its files.
        facts: what was measured, as it is in ``codec.json``.
    """

    codec: CodecFiles
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Report:
    """What the gate sees of one set of quantised convolutions."""

    agreement: float
    answers: int
    bytes_ratio: float
    same_integers: float

    @property
    def passes(self) -> bool:
        return self.agreement >= MIN_SAME and self.bytes_ratio <= _BYTES


def with_int8(
    codec: CodecFiles,
    views: Sequence[Pixels],
    *,
    tell: Callable[[str], Any] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Int8Codec:
    """Quantise a codec's device side as far as its answers allow.

    Args:
        codec: with both sides.
        views: uint8 (S, S, 3), of photos; every other one calibrates, the others prove.
        tell: called with a sentence now and then.
        clock: seconds.

    Raises:
        GateFailed: no convolution can be INT8 without changing answers, or nothing is gained.
    """
    if len(views) < _FEWEST:
        raise GateFailed(
            f"{len(views)} photo(s) prove nothing about INT8; give at least {_FEWEST}. Nothing was "
            "published."
        )
    learnt, proof = views[::2], views[1::2]
    calibration = calibrate_encoder(codec.artefact.encoder, np.stack(learnt))
    search, gate = _Gate(codec, calibration, learnt), _Gate(codec, calibration, proof)
    chosen = search.longest(tell)
    if not chosen:
        raise GateFailed(
            "INT8 is refused: not even one convolution keeps the answers on the photos that it was "
            "calibrated with. Nothing was published; fp32 stays."
        )
    report = gate.report(chosen)
    if not report.passes:
        raise GateFailed(
            f"INT8 is refused: with {len(chosen)} of {len(calibration.blocks)} convolutions "
            f"{report.agreement:.1%} of {report.answers} answers agree with fp32's (at least "
            f"{MIN_SAME:.1%} required) in {report.bytes_ratio:.3f} times the bytes (at most "
            f"{_BYTES}). Nothing was published; fp32 stays."
        )
    model = calibration.quantized(chosen)
    faster = _times_faster(codec.artefact, model, proof, clock)
    if faster < WORTH:
        raise GateFailed(
            f"INT8 is refused: with the {len(chosen)} of {len(calibration.blocks)} convolutions "
            f"that pass the gate it is {faster:.2f} times as fast as fp32 (at least {WORTH} is "
            "worth it). Nothing was published; fp32 stays."
        )
    facts = {
        "sha256": sha256_bytes(model),
        "quantized": list(chosen),
        "convolutions": len(calibration.blocks),
        "agreement": report.agreement,
        "answers": report.answers,
        "same_integers": round(report.same_integers, 4),
        "bytes_ratio": round(report.bytes_ratio, 4),
        "times_faster": round(faster, 3),
        "size": len(model),
        "size_fp32": len(codec.artefact.encoder),
    }
    return Int8Codec(codec=_joined(codec, model, facts), facts=facts)


class _Gate:
    """Compares sets of quantised convolutions with fp32 on some pictures."""

    def __init__(
        self, codec: CodecFiles, calibration: Calibration, views: Sequence[Pixels]
    ) -> None:
        self._artefact, self._calibration, self._views = codec.artefact, calibration, views
        self._tail = codec.tail()
        self._device = FeatureCodec(codec.artefact, int8=False)
        self._expected = [self._device.of_pixels(view) for view in views]
        self._answers = _answers(self._tail, self._expected)
        self._bytes = self._sizes(self._expected)

    def report(self, blocks: tuple[str, ...]) -> _Report:
        """Return what these convolutions in INT8 change."""
        got = self._integers(blocks)
        answers = _answers(self._tail, got)
        hits = [compare(*pair).any_hit for pair in zip(self._answers, answers, strict=True)]
        same = [np.mean(a == b) for a, b in zip(self._expected, got, strict=True)]
        return _Report(
            agreement=float(np.mean(hits)),
            answers=len(hits),
            bytes_ratio=self._sizes(got) / self._bytes,
            same_integers=float(np.mean(same)),
        )

    def longest(self, tell: Callable[[str], Any]) -> tuple[str, ...]:
        """Return as many of the least harmful convolutions as pass together, in their order."""
        every = tuple(self._calibration.blocks)
        whole = self.report(every)
        tell(f"All in INT8: {whole.agreement:.1%} of {whole.answers} answers agree.")
        if whole.passes:
            return every
        order = sorted(every, key=self._harm)
        passing, failing = 0, len(order)
        while failing - passing > 1:  # more of them do more harm: bisection
            middle = (passing + failing) // 2
            report = self.report(tuple(order[:middle]))
            tell(f"{middle} of {len(order)} in INT8: {report.agreement:.1%} agree.")
            passing, failing = (middle, failing) if report.passes else (passing, middle)
        return tuple(block for block in every if block in order[:passing])

    def _harm(self, block: str) -> float:
        """Return how far one convolution in INT8 moves the integers."""
        pairs = zip(self._expected, self._integers((block,)), strict=True)
        return float(sum(np.abs(a.astype(int) - b).sum() for a, b in pairs))

    def _integers(self, blocks: tuple[str, ...]) -> list[Integers]:
        device = _variant(self._artefact, self._calibration.quantized(blocks))
        return [device.of_pixels(view) for view in self._views]

    def _sizes(self, integers: Sequence[Integers]) -> int:
        return sum(sum(self._device.sizes(one)) for one in integers)


def _answers(tail: Tail, integers: Sequence[Integers]) -> list[Labels]:
    """Return the answers of every picture at every rate."""
    return [labels for one in integers for labels in tail.answer_integers([*enumerate(one)])]


def _variant(artefact: Artefact, model: bytes) -> FeatureCodec:
    return FeatureCodec(replace(artefact, int8=model))


def _times_faster(
    artefact: Artefact, model: bytes, views: Sequence[Pixels], clock: Callable[[], float]
) -> float:
    devices = FeatureCodec(artefact, int8=False), _variant(artefact, model)
    taken: tuple[list[float], list[float]] = [], []
    for number in range(_TIMED):  # in turns: what else the machine does then hits both
        for device, seconds in zip(devices, taken, strict=True):
            started = clock()
            device.of_pixels(views[number % len(views)])
            seconds.append(clock() - started)
    fp32, int8 = map(statistics.median, taken)
    return fp32 / max(int8, 1e-9)


def _joined(codec: CodecFiles, model: bytes, facts: dict[str, Any]) -> CodecFiles:
    document = dict(codec.artefact.document)
    document["variants"] = {**document.get("variants", {}), "int8": facts}
    files = {
        **codec.files,
        FILES[DOCUMENT]: to_json(document).encode(),
        FILES[INT8]: model,
    }
    artefact = replace(codec.artefact, int8=model, document=document)
    return replace(codec, artefact=artefact, files=files)
