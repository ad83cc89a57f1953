"""The prefix as devices run it: fp32, or INT8 *before* anything is learnt from it.

Rounding a finished agent's prefix changes features, hence decisions, hence what was certified; the
parity gate refuses most of it. Heads that are fitted to the rounded prefix's own features do not
mind: trained, calibrated, certified and deployed is one and the same graph, a quarter of the size
and twice as fast.

The ranges of the activations come with the package (``ranges.json``, made from the built-in
photos by ``training.learn.ranges``), so the same weights give the same prefix everywhere, whatever
pictures a user has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.calibrate import calibrated
from export.fuse import export_prefix
from export.network import Prefix
from model_store.errors import UsageError
from model_store.files import write_atomic

__all__ = ["RANGES", "backbone", "rounded"]

#: See ``training.learn.ranges``.
RANGES = Path(__file__).with_name("ranges.json")


def backbone(prefix: Prefix, cache: Path | None = None) -> bytes:
    """Return the prefix as ONNX in its own precision: ``image`` to ``features`` (1, D).

    Args:
        prefix: the torch module.
        cache: a folder where files are kept under keys of everything that decides them.

    Raises:
        UsageError: INT8 of a prefix whose ranges are not known.
    """
    whole = export_prefix(prefix, cache)
    if prefix.precision == "fp32":
        return whole
    import onnxruntime  # its quantiser decides the file, too

    ranges = RANGES.read_bytes()
    key = hashlib.sha256(whole + ranges + onnxruntime.__version__.encode()).hexdigest()[:16]
    path = cache / f"prefix-int8-{key}.onnx" if cache else None
    if path and path.is_file():
        return path.read_bytes()
    data = rounded(whole, json.loads(ranges), prefix.side)
    if path:
        write_atomic(path, data)
    return data


def rounded(prefix: bytes, ranges: Mapping[str, Any], side: int) -> bytes:
    """Return a prefix's ONNX in INT8.

    Args:
        prefix: fp32, from ``export.fuse.export_prefix``.
        ranges: by input side, by tensor.
        side: S, the input side in pixels.

    Raises:
        UsageError: the ranges of this side, or of one of its tensors, are not known.
    """
    if str(side) not in ranges:
        raise UsageError(
            f"An INT8 engine of {side} pixels a side has no ranges; there are some for "
            f"{', '.join(ranges)}. Take one of these, or --precision fp32."
        )
    calibration = calibrated(prefix, ranges[str(side)])
    return calibration.quantized(tuple(calibration.blocks), seven_bits=True)
