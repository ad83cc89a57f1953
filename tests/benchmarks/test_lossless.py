"""What the lossless pass takes and saves at the ladders' rungs; ``make bench``.

Time is in encodes of the same picture at the reference, bytes are the share that is left of the
rung's own file, in the mean over photos.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from PIL import Image

from edge_sdk.codec import Scales, encode
from edge_sdk.ladder import FULL, PAPER, REFERENCE, Ladder
from edge_sdk.lossless import Recode, open_pass
from edge_sdk.reading import load
from model_store.errors import EnvironmentMissing
from training import assets

InTurns = Callable[..., dict[str, float]]

#: Beside ``FULL``: the paper's, whose Huffman tables are the plain ones.
RUNGS: Ladder = (*FULL, *(rung for rung in PAPER if rung.quality in (15, 35, 55, 75, 95)))

#: Rungs to time; the others lie between.
TIMED: Ladder = (FULL[2], FULL[6], FULL[13], FULL[15], FULL[-1], REFERENCE)


@pytest.fixture(scope="module")
def recode() -> Recode:
    try:
        return open_pass()
    except EnvironmentMissing as error:
        pytest.skip(str(error))


def test_time(in_turns: InTurns, size: str, picture: Image.Image, recode: Recode) -> None:
    if size == "4000x3000":
        pytest.skip("a pass takes a second")
    files = {f"pass over {rung.name}": encode(picture, rung) for rung in TIMED}
    work = {name: partial(recode, file) for name, file in files.items()}
    assert in_turns(work, lambda: encode(picture, REFERENCE), size)


def test_bytes(in_bytes: Any, installed_photos: Any, recode: Recode) -> None:
    def shares() -> dict[str, float]:
        left: dict[str, list[float]] = {f"bytes left of {rung.name}": [] for rung in RUNGS}
        for path in assets.photos("objects"):
            scales = Scales(load(path).image)
            for rung, found in zip(RUNGS, left.values(), strict=True):
                file = encode(scales, rung)
                found.append(len(recode(file)) / len(file))
        return {name: sum(found) / len(found) for name, found in left.items()}

    assert all(share <= 1.0 for share in in_bytes(shares, "20 photos").values())
