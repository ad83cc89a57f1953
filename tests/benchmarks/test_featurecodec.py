"""What coding features costs next to one plain JPEG encode, with the library and without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from edge_sdk.codec import encode
from edge_sdk.featurecodec import Entropy, rangecoder
from edge_sdk.featurecodec.rangecoder import TOTAL
from edge_sdk.ladder import REFERENCE

InTurns = Callable[..., dict[str, float]]

CHANNELS, SIDE, LIMIT, HIDDEN, SCALES = 24, 14, 31, 48, 40
SYMBOLS = 2 * LIMIT + 1


def _tables(means: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return counts of symbols that fall off from their mean, (…, 2L + 1)."""
    symbols = np.arange(-LIMIT, LIMIT + 1)
    p = np.exp(-np.abs(symbols - means[..., None]) / scales[..., None])
    p /= p.sum(-1, keepdims=True)
    counts = 1 + np.floor(p * (TOTAL - SYMBOLS)).astype(np.int64)
    best = counts.argmax(-1)[..., None]
    missing = TOTAL - counts.sum(-1, keepdims=True)
    np.put_along_axis(counts, best, np.take_along_axis(counts, best, -1) + missing, -1)
    return counts.astype(np.uint32)


def _entropy(kind: str) -> Entropy:
    rng = np.random.default_rng(0)
    if kind == "factorised":
        return Entropy.from_arrays(
            {"kind": kind, "counts": _tables(np.zeros((1, CHANNELS)), np.full((1, CHANNELS), 0.2))}
        )
    scales, means = np.meshgrid(
        0.1 * 1.15 ** np.arange(SCALES), np.arange(-4 * LIMIT, 4 * LIMIT + 1) / 4, indexing="ij"
    )
    return Entropy.from_arrays(
        {
            "kind": kind,
            "w1": rng.integers(-400, 400, (1, HIDDEN, CHANNELS, 12)),
            "b1": rng.integers(-400, 400, (1, HIDDEN)),
            "w2": rng.integers(-400, 400, (1, 2 * CHANNELS, HIDDEN)),
            "b2": np.repeat([[0, 5 << 20]], CHANNELS, axis=1),
            "tables": _tables(means, scales),
        }
    )


@pytest.mark.parametrize("kind", ["factorised", "context"])
def test_coding_features(
    in_turns: InTurns,
    size: str,
    picture: Image.Image,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entropy, library = _entropy(kind), rangecoder._library
    values = np.random.default_rng(1).laplace(0, 0.25, (CHANNELS, SIDE, SIDE))
    integers = np.round(values).astype(np.int8)
    payload = entropy.encode(integers, 0)

    def with_coder(chosen: Callable[[], object], work: Callable[[], object]) -> object:
        monkeypatch.setattr(rangecoder, "_library", chosen)
        return work()

    def encoding() -> bytes:
        return entropy.encode(integers, 0)

    def decoding() -> object:
        return entropy.decode(payload, 0, integers.shape)

    work = {
        f"{name} {kind} features{how}": (lambda c=chosen, w=one: with_coder(c, w))
        for name, one in (("encode", encoding), ("decode", decoding))
        for how, chosen in (("", library), (", without the library", lambda: None))
    }
    assert in_turns(work, lambda: encode(picture, REFERENCE), size)
