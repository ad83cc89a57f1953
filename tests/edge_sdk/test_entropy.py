"""Entropy coders: the same tables on both sides, and every byte counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import EngineError, FeatureStreamError
from edge_sdk.featurecodec import Entropy, rangecoder
from edge_sdk.featurecodec.entropy import TAPS
from model_store.errors import UsageError

RATES, CHANNELS, LIMIT, HIDDEN, SCALES = 3, 4, 5, 6, 7
SYMBOLS = 2 * LIMIT + 1

Arrays = dict[str, Any]


def tables(rng: np.random.Generator, *shape: int, symbols: int = SYMBOLS) -> np.ndarray:
    """Return random rows of counts, many of them far from uniform."""
    shares = rng.dirichlet(np.full(symbols, 0.2), size=shape).reshape(-1, symbols)
    counts = np.maximum(1, np.floor(shares * (rangecoder.TOTAL - symbols))).astype(np.int64)
    counts[np.arange(len(counts)), counts.argmax(1)] += rangecoder.TOTAL - counts.sum(1)
    return counts.reshape(*shape, symbols).astype(np.uint32)


def factorised(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"kind": np.array("factorised"), "counts": tables(rng, RATES, CHANNELS)}


def context(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)

    def weights(most: int, *shape: int) -> np.ndarray:
        return rng.integers(-most, most + 1, shape)

    return {
        "kind": np.array("context"),
        "w1": weights(9000, RATES, HIDDEN, CHANNELS, len(TAPS)).astype(np.int32),
        "b1": weights(9000, RATES, HIDDEN),
        "w2": weights(4000, RATES, 2 * CHANNELS, HIDDEN).astype(np.int32),
        "b2": weights(3_000_000, RATES, 2 * CHANNELS),
        "tables": tables(rng, SCALES, 8 * LIMIT + 1),
    }


def picture(seed: int = 0, height: int = 6, width: int = 5, scale: float = 1.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(0, scale, (CHANNELS, height, width)))
    return np.clip(values, -LIMIT, LIMIT).astype(np.int8)


@pytest.fixture(params=["library", "plain"])
def coder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(rangecoder, "_library", lambda: None)
    else:
        pytest.importorskip("constriction")
    return str(request.param)


@pytest.mark.usefixtures("coder")
@pytest.mark.parametrize("arrays", [factorised(), context()], ids=["factorised", "context"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (9, 6)])
def test_what_was_encoded_is_decoded(arrays: Arrays, size: tuple[int, int]) -> None:
    entropy = Entropy.from_arrays(arrays)
    for rate in range(RATES):
        integers = picture(rate, *size)

        payload = entropy.encode(integers, rate)

        found = entropy.decode(payload, rate, integers.shape)
        assert found.dtype == np.int8
        assert np.array_equal(found, integers)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 127), st.booleans())
def test_the_library_and_the_plain_coder_write_the_same_bytes(
    seed: int, length: int, limit: int, likely: bool
) -> None:
    pytest.importorskip("constriction")
    rng = np.random.default_rng(seed)
    counts = tables(rng, length, symbols=2 * limit + 1)
    symbols = counts.argmax(1) if likely else rng.integers(0, 2 * limit + 1, length)

    payload = rangecoder.encode(symbols, counts)

    assert rangecoder.encode(symbols, counts, plain=True) == payload
    assert np.array_equal(rangecoder.decoder(payload).read(counts), symbols)
    assert np.array_equal(rangecoder.decoder(payload, plain=True).read(counts), symbols)


class _Otherwise:
    """A library of another version: its coder gives the symbols the other way round."""

    def __init__(self, stream: Any, error: Exception | None) -> None:
        self.model, self._error = stream.model, error
        self.queue = SimpleNamespace(
            RangeEncoder=lambda: self, RangeDecoder=stream.queue.RangeDecoder
        )
        self._coder = stream.queue.RangeEncoder()

    def encode(self, symbols: np.ndarray, *family: Any) -> None:
        if self._error:
            raise self._error
        self._coder.encode(symbols[::-1].copy(), *family)

    def pos(self) -> Any:
        return self._coder.pos()

    def get_compressed(self) -> Any:
        return self._coder.get_compressed()


@pytest.mark.parametrize("error", [None, TypeError("no such argument")])
def test_a_library_that_codes_otherwise_is_not_used(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    constriction = pytest.importorskip("constriction")
    monkeypatch.setattr(constriction, "stream", _Otherwise(constriction.stream, error))
    rangecoder._library.cache_clear()
    try:
        assert rangecoder._library() is None
        assert "event=range_coder_" in caplog.text
    finally:
        rangecoder._library.cache_clear()


@settings(max_examples=100)
@given(st.binary(max_size=40), st.integers(0, 2**32))
def test_the_library_and_the_plain_coder_read_the_same_from_garbage(
    payload: bytes, seed: int
) -> None:
    pytest.importorskip("constriction")
    counts = tables(np.random.default_rng(seed), 30)

    def read(*, plain: bool) -> list[int] | str:
        try:
            symbols: list[int] = rangecoder.decoder(payload, plain=plain).read(counts).tolist()
        except FeatureStreamError as error:
            return str(error)
        return symbols

    assert read(plain=True) == read(plain=False)


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(0, 200))
def test_a_payload_is_within_a_byte_of_what_the_tables_say(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    counts = tables(rng, length)
    symbols = np.array([rng.choice(SYMBOLS, p=row / rangecoder.TOTAL) for row in counts], np.int64)
    bits = -np.log2(counts[np.arange(length), symbols] / rangecoder.TOTAL).sum()

    payload = rangecoder.encode(symbols, counts)

    assert len(payload) <= bits / 8 + 1.01
    assert not payload.endswith(b"\0")


def test_a_likely_picture_takes_no_byte() -> None:
    counts = np.ones((1, CHANNELS, SYMBOLS), np.uint32)
    counts[..., LIMIT] = rangecoder.TOTAL - 2 * LIMIT
    entropy = Entropy.from_arrays({"kind": "factorised", "counts": counts})
    nothing = np.zeros((CHANNELS, 14, 14), np.int8)

    payload = entropy.encode(nothing, 0)

    assert len(payload) <= 1
    assert np.array_equal(entropy.decode(payload, 0, nothing.shape), nothing)


def test_the_context_is_that_of_the_contract() -> None:
    """Every table is the one that the definition in whole numbers gives."""
    arrays, integers, rate = context(3), picture(3), 1
    entropy = Entropy.from_arrays(arrays)

    payload = entropy.encode(integers, rate)

    symbols, rows = _by_definition(arrays, integers, rate)
    assert payload == rangecoder.encode(np.array(symbols), np.array(rows))


def _by_definition(
    arrays: Arrays, integers: np.ndarray, rate: int
) -> tuple[list[int], list[np.ndarray]]:
    w1, b1, w2, b2 = (arrays[name][rate].astype(object) for name in ("w1", "b1", "w2", "b2"))
    channels, height, width = integers.shape
    symbols, rows = [], []
    for y in range(height):
        for x in range(width):
            seen = np.zeros((channels, len(TAPS)), object)
            for tap, (down, across) in enumerate(TAPS):
                if y + down >= 0 and 0 <= x + across < width:
                    seen[:, tap] = [int(each) for each in integers[:, y + down, x + across]]
            sums = (w1 * seen).sum(axis=(1, 2)) + b1
            hidden = np.array([min(max(each, 0) >> 4, 2**20) for each in sums], object)
            out = w2 @ hidden + b2
            for channel in range(channels):
                mean = (out[channel] * 4 + 2**19) >> 20
                scale = (out[channels + channel] + 2**19) >> 20
                mean = min(max(mean, -4 * LIMIT), 4 * LIMIT) + 4 * LIMIT
                rows.append(arrays["tables"][min(max(scale, 0), SCALES - 1), mean])
                symbols.append(int(integers[channel, y, x]) + LIMIT)
    return symbols, rows


@pytest.mark.usefixtures("coder")
def test_what_no_coder_writes_is_no_picture() -> None:
    entropy = Entropy.from_arrays(factorised())
    with pytest.raises(FeatureStreamError):
        entropy.decode(b"\xff" * 8, 0, (CHANNELS, 2, 2))


@pytest.mark.parametrize(
    ("integers", "rate"),
    [
        (picture(), RATES),
        (picture(), -1),
        (picture()[:-1], 0),
        (picture()[0], 0),
        (picture()[:, :0], 0),
        (picture() + np.int8(LIMIT + 1), 0),
        (np.full((CHANNELS, 2, 2), -128, np.int8), 0),
        (picture().astype(np.float32), 0),
    ],
)
def test_what_the_codec_cannot_tell_is_refused(integers: np.ndarray, rate: int) -> None:
    with pytest.raises(UsageError):
        Entropy.from_arrays(factorised()).encode(integers, rate)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "adaptive"},
        {"tables": None},
        {"w1": None},
        {"tables": context()["tables"].astype(np.float32)},
        {"tables": context()["tables"][:, :-1]},
        {"tables": context()["tables"] + np.uint32(1)},
        {"tables": np.zeros((1, 3, 2), np.uint32)},
        {"tables": context()["tables"][0]},
        {"w1": context()["w1"][..., :-1]},
        {"w1": context()["w1"][0]},
        {"b1": context()["b1"][1:]},
        {"w2": context()["w2"][:, 1:]},
        {"b2": context()["b2"].reshape(-1)},
        {"w2": np.full_like(context()["w2"], 2**31 - 1)},
        {"b1": np.full_like(context()["b1"], 2**53)},
    ],
)
def test_a_model_that_breaks_the_contract_is_refused(change: Arrays) -> None:
    arrays = {name: each for name, each in (context() | change).items() if each is not None}
    with pytest.raises(EngineError, match="entropy model"):
        Entropy.from_arrays(arrays)


def test_a_table_that_forgets_a_symbol_is_refused() -> None:
    arrays = factorised()
    arrays["counts"][0, 0] = [0, *[1] * (SYMBOLS - 2), rangecoder.TOTAL - SYMBOLS + 2]
    with pytest.raises(EngineError, match="1 or more"):
        Entropy.from_arrays(arrays)
