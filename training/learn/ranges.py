"""Ranges of the activations of the engines' prefixes, measured on the built-in photos.

INT8 needs them, see ``training.learn.backbone``. After a change of an engine's size, of its input
or of the built-in photos, make the file again:

    python -m training.learn.ranges
"""

from __future__ import annotations

import json

import numpy as np

from edge_sdk.preprocess import to_input
from edge_sdk.reading import load
from export.calibrate import calibrate
from export.fuse import export_prefix
from model_store.files import write_atomic
from training import assets
from training.learn.backbone import RANGES
from training.learn.sizes import SIZES, load_sized

__all__ = ["measured"]

#: Every which of the built-in photos is looked at: forty say the same as all.
_EVERY = 3


def measured(size: str) -> dict[str, list[float]]:
    """Return the least and greatest value of every activation of an engine size's prefix."""
    prefix = load_sized(size, precision="fp32")
    images = [load(path).image for path in assets.photos()[::_EVERY]]
    inputs = np.concatenate([to_input(image, prefix.side) for image in images])
    found = calibrate(export_prefix(prefix), inputs).named_ranges
    return {name: [round(end, 4) for end in ends] for name, ends in found.items()}


def main() -> None:
    """Write the file."""
    ranges = {str(size.side): measured(name) for name, size in SIZES.items()}
    write_atomic(RANGES, (json.dumps(ranges, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
