"""SSIM against its definition, and the search that it steers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_sdk.ladder import REFERENCE
from training.measure.perceptual import (
    LADDER,
    THRESHOLDS,
    cheapest_similar,
    similarities,
    ssim,
)
from training.photos import views


def by_definition(one: Any, other: Any) -> float:
    """The paper's formula, window by window."""
    high, wide = (min(8, side) for side in one.shape)
    found = []
    for y in range(one.shape[0] - high + 1):
        for x in range(one.shape[1] - wide + 1):
            a, b = (plane[y : y + high, x : x + wide] for plane in (one, other))
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            mean = (2 * a.mean() * b.mean() + 2.55**2) / (a.mean() ** 2 + b.mean() ** 2 + 2.55**2)
            found.append(mean * (2 * covariance + 7.65**2) / (a.var() + b.var() + 7.65**2))
    return float(np.mean(found))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_it_is_the_papers_formula_over_whole_windows(width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.uniform(0, 255, (height, width))
    other = np.clip(one + rng.normal(0, 30, one.shape), 0, 255)
    assert ssim(one, other) == pytest.approx(by_definition(one, other), abs=1e-9)
    assert ssim(one, one) == pytest.approx(1.0)
    assert ssim(one, other) == pytest.approx(ssim(other, one))


@pytest.mark.parametrize("shade", [0.0, 255.0])
def test_flat_pictures_are_like_themselves(shade: float) -> None:
    flat = np.full((20, 20), shade)
    assert ssim(flat, flat) == pytest.approx(1.0)


def test_a_better_quality_looks_more_like_the_picture(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png")
    pictures = views(sorted(tmp_path.iterdir()), 1, long_side=None, seed=0)
    done: list[int] = []
    seen = similarities(pictures, progress=done.append)
    assert seen.shape == (2, len(LADDER))
    assert done == [1, 1]
    assert (np.diff(seen, axis=1) > 0).mean() > 0.8
    assert np.all((seen[:, 0] < seen[:, -1]) & (seen[:, -1] < 1))


def test_the_search_ends_at_the_references_pixels() -> None:
    assert LADDER[-1].pixels == REFERENCE.pixels
    assert {rung.entropy for rung in LADDER} == {"optimized"}
    qualities = [rung.quality for rung in LADDER]
    assert qualities == sorted(qualities)
    assert list(THRESHOLDS) == sorted(THRESHOLDS)


def test_the_cheapest_similar_rung_is_the_first_and_else_the_last() -> None:
    seen = np.array([[0.5, 0.9, 0.8, 0.95], [0.1, 0.2, 0.3, 0.4], [0.9, 0.9, 0.9, 0.9]])
    assert cheapest_similar(seen, 0.85).tolist() == [1, 3, 0]


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_who_asks_for_more_never_gets_a_cheaper_rung(seed: int, one: float, other: float) -> None:
    seen = np.random.default_rng(seed).uniform(0, 1, (6, 5))
    less, more = sorted((one, other))
    assert np.all(cheapest_similar(seen, less) <= cheapest_similar(seen, more))
