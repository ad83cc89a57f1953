"""DeepN-JPEG's tables: the statistics, the two maps, the rungs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from model_store.errors import UsageError
from training.learn.deepn import SCALES, VARIANTS, Spectrum, deepn_rungs, deepn_tables


class Still:
    """A picture in memory."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image

    def open(self) -> Image.Image:
        return self._image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def blocks(plane: Any) -> list[Any]:
    """The DCT of every whole block, by another library."""
    high, wide = (side // 8 for side in plane.shape)
    return [
        dctn(plane[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].astype(float) - 128, norm="ortho")
        for y in range(high)
        for x in range(wide)
    ]


@given(st.lists(st.tuples(st.integers(8, 30), st.integers(16, 30)), min_size=1, max_size=4))
def test_streaming_gives_the_standard_deviations_of_all_blocks(sizes: Any) -> None:
    spectrum, luma, chroma = Spectrum(), [], []
    for seed, (width, height) in enumerate(sizes):
        image = noise(width, height, seed)
        spectrum.add(image)
        planes = np.asarray(image.convert("YCbCr"))
        luma += blocks(planes[:, :, 0])
        chroma += blocks(planes[:, :, 1]) + blocks(planes[:, :, 2])
    found = spectrum.deviations()
    np.testing.assert_allclose(found[0], np.std(luma, axis=0, ddof=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], np.std(chroma, axis=0, ddof=1), rtol=1e-6, atol=1e-6)


def steps_at(*deviations: float, variant: Any = "faithful") -> list[int]:
    given_ones = np.zeros((8, 8))
    given_ones.flat[: len(deviations)] = deviations
    return list(deepn_tables(given_ones, variant)[: len(deviations)])


def test_the_map_has_the_three_bands_of_the_paper() -> None:
    assert steps_at(0, 1, 10, 20) == [255, 245, 157, 60]
    assert steps_at(20.5, 30, 60) == [59, 50, 20]
    assert steps_at(61, 70, 78, 79, 500) == [57, 30, 6, 5, 5]


def test_the_continuous_map_has_no_jump_where_the_faithful_one_has() -> None:
    assert steps_at(60, 60.001) == [20, 59]
    assert steps_at(60, 60.001, variant="continuous") == [20, 19]
    assert steps_at(10, 30, variant="continuous") == steps_at(10, 30)


@given(st.floats(0, 600), st.floats(0, 600))
def test_what_varies_more_never_gets_a_larger_step_in_the_continuous_map(
    one: float, other: float
) -> None:
    low, high = sorted((one, other))
    coarse, fine = steps_at(low, high, variant="continuous")
    assert 5 <= fine <= coarse <= 255


def test_rungs_share_tables_and_differ_by_scale(photo: Image.Image) -> None:
    done: list[int] = []
    ladders = deepn_rungs([Still(photo), Still(noise(64, 64))], progress=done.append)
    assert tuple(ladders) == VARIANTS
    assert done == [1, 1]
    for ladder in ladders.values():
        assert len(ladder) == len(SCALES)
        assert len({rung.tables for rung in ladder}) == 1
        assert {(rung.entropy, rung.subsampling, rung.scale) for rung in ladder} == {
            ("optimized", "4:2:0", 1.0)
        }
        assert [rung.quality for rung in ladder] == [12, 17, 25, 33, 50, 62, 75, 88]


@given(st.floats(0.1, 10.0))
def test_a_scale_becomes_the_quality_that_means_it(scale: float) -> None:
    rung = deepn_rungs([Still(noise(16, 16))], (scale,))["faithful"][0]
    luma, _ = rung.tables or ((), ())
    scaled, _ = rung.scaled_tables or ((), ())
    for own, found in zip(luma, scaled, strict=True):
        # A quality is a whole number: there is none between 5, which is 10 times, and 6.
        assert found == pytest.approx(min(max(own * scale, 1), 255), rel=0.12, abs=1.6)


@pytest.mark.parametrize("scale", [0.0, 0.05, 11.0, float("nan")])
def test_scales_that_no_quality_can_say_are_refused(photo: Image.Image, scale: float) -> None:
    with pytest.raises(UsageError, match=r"table scale is .*; allowed is 0\.1 to 10"):
        deepn_rungs([Still(photo)], (scale,))


@pytest.mark.parametrize("pictures", [[], [(7, 400)], [(8, 8)]])
def test_pictures_without_blocks_are_refused(pictures: Any) -> None:
    with pytest.raises(UsageError, match="two blocks of 8x8 pixels"):
        deepn_rungs([Still(noise(*size)) for size in pictures])
