"""What a codec sends, made visible: a service's view of photos beside what streams tell of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_sdk import reading
from edge_sdk.featurecodec import FeatureCodec
from edge_sdk.featurecodec.tail import Tail

__all__ = ["glimpses"]

#: Photos shown, and the longest side of what is shown of them, in pixels.
_PHOTOS, _SIDE = 3, 160


def glimpses(paths: Sequence[Path], coder: FeatureCodec, tail: Tail) -> list[dict[str, Any]]:
    """Return some photos with what the cheapest, the middle and the dearest rate tell of them.

    Args:
        paths: photos that nothing was learnt from.
        coder: the device side.
        tail: the server side.

    Returns:
        of each photo ``view``, a JPEG as ``data:`` address, and ``sent``: rate, bytes and
        ``picture``; nothing if the codec has no viewer.
    """
    if not tail.shows:
        return []
    rates = sorted({0, coder.rates // 2, coder.rates - 1})
    found = []
    for path in paths[:: max(1, len(paths) // _PHOTOS)][:_PHOTOS]:
        image = reading.load(path).image
        integers = coder.integers(image)
        streams = [coder.encode(integers, rate) for rate in rates]
        sent = [
            {"rate": rate, "bytes": len(stream), "picture": _address(tail.show(stream))}
            for rate, stream in zip(rates, streams, strict=True)
        ]
        found.append({"view": _address(coder.view.pixels(image)), "sent": sent})
    return found


def _address(pixels: npt.NDArray[np.uint8]) -> str:
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((_SIDE, _SIDE))
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
