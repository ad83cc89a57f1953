from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edge_sdk.palette import BINS, palette_of


def test_shares_of_luma_and_of_saturation_sum_to_one_each() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    palette = palette_of(Image.fromarray(noise))
    assert palette.shape == (BINS,)
    assert palette[:16].sum() == pytest.approx(1.0)
    assert palette[16:].sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("colour", "luma", "saturation"),
    [((0, 0, 0), 0, 0), ((255, 255, 255), 15, 0), ((255, 0, 0), 4, 7), ((128, 128, 128), 8, 0)],
)
def test_one_colour_is_one_bin_each(
    colour: tuple[int, int, int], luma: int, saturation: int
) -> None:
    palette = palette_of(Image.new("RGB", (9, 3), colour))
    assert np.flatnonzero(palette).tolist() == [luma, 16 + saturation]
