"""The range coder: symbols and integer tables in, the fewest bytes that tell them out.

It is that of ``constriction`` (64 bits of state, words of 32 bits, probabilities of 24), which does
the work where it is installed. There are machines without a wheel of it, cameras above all, so the
same arithmetic stands here in integers too, a few times slower and with the very same bytes.

Two things are ours: a row of counts that sum to ``TOTAL`` is exactly representable as
probabilities, so that no rounding differs anywhere; and of all numbers that decode to the symbols
the one of the fewest bytes is taken. What is missing at the end are zeros.
"""

from __future__ import annotations

import itertools
import logging
from bisect import bisect_right
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import FeatureStreamError

__all__ = ["TOTAL", "Decoder", "decoder", "encode", "runtime"]

_log = logging.getLogger("edge_sdk.featurecodec")

#: What the counts of a table sum to.
TOTAL = 1 << 16

_PRECISION = 24
_WORD = 32
_STATE = 2 * _WORD

_Integers: TypeAlias = npt.NDArray[np.integer[Any]]


class Decoder(Protocol):
    """Reads symbols from a payload, as many as it is asked for."""

    def read(self, counts: _Integers) -> npt.NDArray[np.int32]:
        """Return the next n symbols, whose tables are the rows of ``counts`` (n, K).

        Raises:
            FeatureStreamError: no symbols are coded like that.
        """


def encode(symbols: _Integers, counts: _Integers, *, plain: bool = False) -> bytes:
    """Return the payload of ``symbols`` (n,) in [0, K).

    Args:
        symbols: checked by the caller.
        counts: (n, K), the table of each symbol; a row sums to ``TOTAL``, every entry is >= 1.
        plain: do not use the library.
    """
    library = None if plain else _library()
    if library is None:
        return _shortest(*_plain_interval(symbols, counts))
    return _shortest(*_interval(library, symbols, counts))


def decoder(payload: bytes, *, plain: bool = False) -> Decoder:
    """Return the reader of a payload; ``plain``: do not use the library."""
    library = None if plain else _library()
    return _Plain(payload) if library is None else _Library(library, payload)


def runtime() -> str:
    """Return what does the work here: ``constriction`` or ``pure Python``."""
    return "pure Python" if _library() is None else "constriction"


@cache
def _library() -> Any:
    """Return constriction's coder, or None where it is not installed.

    Another version of it may place symbols otherwise, and no stream would be readable elsewhere:
    it has to code some symbols as we do before it is trusted.
    """
    try:
        from constriction import stream
    except ImportError:
        return None
    counts = np.array([[1, 7, 65_491, 30, 7], [20_000, 15_536, 15_000, 14_999, 1]] * 40)
    symbols = np.arange(len(counts)) * 7 % 5
    try:
        interval = _interval(stream, symbols, counts)
        read = _Library(stream, _shortest(*interval)).read(counts)
    except Exception as error:  # whatever another version says
        _log.warning("event=range_coder_unusable error=%r", error)
        return None
    if interval != _plain_interval(symbols, counts) or np.any(read != symbols):
        _log.warning("event=range_coder_differs reason='constriction codes otherwise'")
        return None
    return stream


def _shortest(low: int, span: int, words: int) -> bytes:
    """Return the fewest bytes of a number in [low, low + span), of 64 bits and so many words."""
    size = 4 * words + _STATE // 8
    for kept in range(max(0, 4 * words - 4), size + 1):
        unit = 1 << 8 * (size - kept)
        number = -(-low // unit)
        if number * unit < low + span:
            return number.to_bytes(kept, "big").rstrip(b"\0")
    raise AssertionError("the interval holds its own lower end")


def _interval(stream: Any, symbols: _Integers, counts: _Integers) -> tuple[int, int, int]:
    """Return lower end, width and the words before the state's two, of what ``symbols`` are."""
    coder = stream.queue.RangeEncoder()
    coder.encode(symbols.astype(np.int32), *_family(stream, counts))
    words, (low, span) = coder.pos()
    inside = int.from_bytes(coder.get_compressed().astype(">u4").tobytes(), "big")
    inside <<= _WORD * (words + 2 - len(coder.get_compressed()))
    # The state tells the lower end's last 64 bits, a number inside the interval the others.
    return inside - (inside - low) % (1 << _STATE), span, words


def _plain_interval(symbols: _Integers, counts: _Integers) -> tuple[int, int, int]:
    rows, edges = np.arange(len(symbols)), _edges(counts)
    left, right = edges[rows, symbols].tolist(), edges[rows, symbols + 1].tolist()
    low, span, words = 0, (1 << _STATE) - 1, 0
    for first, last in zip(left, right, strict=True):
        scale = span >> _PRECISION
        low, span = low + scale * first, scale * (last - first)
        if span >> _WORD == 0:
            low, span, words = low << _WORD, span << _WORD, words + 1
    return low, span, words


class _Library:
    def __init__(self, stream: Any, payload: bytes) -> None:
        words = np.frombuffer(payload + bytes(-len(payload) % 4), ">u4").astype(np.uint32)
        self._stream, self._coder = stream, stream.queue.RangeDecoder(words)

    def read(self, counts: _Integers) -> npt.NDArray[np.int32]:
        try:
            symbols: npt.NDArray[np.int32] = self._coder.decode(*_family(self._stream, counts))
        except AssertionError as error:  # what the library says of such data
            raise _nonsense() from error
        return symbols


class _Plain:
    def __init__(self, payload: bytes) -> None:
        words = np.frombuffer(payload + bytes(-len(payload) % 4), ">u4").tolist()
        self._words = itertools.chain(words, itertools.repeat(0))
        self._span = (1 << _STATE) - 1
        self._above = next(self._words) << _WORD | next(self._words)

    def read(self, counts: _Integers) -> npt.NDArray[np.int32]:
        return np.array([self._one(row) for row in _edges(counts).tolist()], np.int32)

    def _one(self, edges: list[int]) -> int:
        scale = self._span >> _PRECISION
        place = self._above // scale
        if place >> _PRECISION:
            raise _nonsense()
        symbol = bisect_right(edges, place) - 1
        self._above -= scale * edges[symbol]
        self._span = scale * (edges[symbol + 1] - edges[symbol])
        if self._span >> _WORD == 0:
            self._above = self._above << _WORD | next(self._words)
            self._span <<= _WORD
        return symbol


def _family(stream: Any, counts: _Integers) -> tuple[Any, npt.NDArray[np.float64]]:
    return stream.model.Categorical(perfect=False), counts / TOTAL


def _edges(counts: _Integers) -> npt.NDArray[np.int64]:
    """Return where each symbol begins in units of 2**-24, (n, K + 1), as the library places it.

    It gives every symbol one unit and shares the others by the probabilities.
    """
    n, kinds = counts.shape
    edges = np.zeros((n, kinds + 1), np.int64)
    np.cumsum(counts, axis=1, out=edges[:, 1:])
    edges *= (1 << _PRECISION) - kinds
    edges //= TOTAL
    edges += np.arange(kinds + 1)
    edges[:, -1] = 1 << _PRECISION
    return edges


def _nonsense() -> FeatureStreamError:
    return FeatureStreamError(
        "The feature stream's payload is no coded picture, though its checksum is right; make the "
        "stream again."
    )
