"""Entropy coders of quantised features: how likely each integer is, in exact integer arithmetic.

Both sides must get the very same tables, or everything after the first difference is noise. So no
float is ever rounded here: tables are counts that sum to 65,536, and the context model's small
network is integers, computed in float64 where all of them stay below 2**53, which is exact in any
order of summation, on any machine.

    >>> import numpy as np
    >>> counts = np.full((1, 2, 3), 65536 // 3, np.uint32)
    >>> counts[..., 1] += 1
    >>> coder = Entropy.from_arrays({"kind": "factorised", "counts": counts})
    >>> payload = coder.encode(np.array([[[1, 0]], [[-1, 0]]], np.int8), 0)
    >>> coder.decode(payload, 0, (2, 1, 2)).tolist()
    [[[1, 0]], [[-1, 0]]]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import EngineError
from edge_sdk.featurecodec import rangecoder
from edge_sdk.featurecodec.rangecoder import TOTAL
from model_store.errors import UsageError

__all__ = ["TAPS", "Context", "Entropy", "Factorised"]

#: The context of a position: (down, across) of its twelve predecessors in a 5 x 5 window.
TAPS = (
    *((-2, across) for across in range(-2, 3)),
    *((-1, across) for across in range(-2, 3)),
    (0, -2),
    (0, -1),
)
_ABOVE = 10  # of the taps, those in rows above

#: Fractional bits: of a hidden activation 8, of ``acc`` 12, of ``out`` 20.
_HIDDEN = 1 << 20
_ONE = 1 << 20
_STEPS = 4  # of a mean, per integer
_EXACT = 1 << 53
_MOST_ENTRIES = 1 << 24

_Array: TypeAlias = npt.NDArray[Any]
_Floats: TypeAlias = npt.NDArray[np.float64]


class Entropy(ABC):
    """Codes the integers (C, H, W) of one picture at one rate.

    Attributes:
        rates: R.
        channels: C.
        limit: L; the integers are in [-L, L].
    """

    rates: int
    channels: int
    limit: int

    @staticmethod
    def from_arrays(arrays: Mapping[str, Any]) -> Entropy:
        """Return the coder of ``entropy.npz``'s arrays, ``kind`` "factorised" or "context".

        Raises:
            EngineError: an array is missing, of another shape or type, or out of its bounds.
        """
        kind = str(arrays["kind"]) if "kind" in arrays else None
        try:
            if kind == "factorised":
                return Factorised(_whole(arrays, "counts"))
            if kind == "context":
                return Context(
                    *(_whole(arrays, name) for name in ("w1", "b1", "w2", "b2")),
                    tables=_whole(arrays, "tables"),
                )
        except KeyError as error:
            raise EngineError(
                f"The {kind} entropy model lacks {error}; it has {', '.join(arrays)}."
            ) from None
        raise EngineError(f"The entropy model is {kind!r}; known are 'factorised' and 'context'.")

    def encode(self, integers: npt.NDArray[np.integer[Any]], rate: int) -> bytes:
        """Return the payload of integers (C, H, W); there is no header, and no length in it.

        Raises:
            UsageError: an integer is beyond the limit, or there is no such rate or channel.
        """
        self._check(integers.shape, rate)
        if integers.dtype.kind != "i" or np.any(np.abs(integers.astype(np.int64)) > self.limit):
            raise UsageError(
                f"The integers ({integers.dtype}) are not all within ±{self.limit}; take them "
                "from the codec's own encoder."
            )
        symbols = integers.transpose(1, 2, 0).ravel().astype(np.int64) + self.limit
        return rangecoder.encode(symbols, self._tables(integers, rate))

    def decode(
        self, payload: bytes, rate: int, shape: tuple[int, int, int]
    ) -> npt.NDArray[np.int8]:
        """Return the integers of ``shape`` (C, H, W).

        Raises:
            FeatureStreamError: nothing is coded like that.
            UsageError: there is no such rate or channel.
        """
        self._check(shape, rate)
        return self._decode(rangecoder.decoder(payload), rate, shape)

    @abstractmethod
    def _tables(self, integers: _Array, rate: int) -> _Array:
        """Return the counts (H·W·C, 2L + 1) of every symbol in the order of coding."""

    @abstractmethod
    def _decode(
        self, reader: rangecoder.Decoder, rate: int, shape: tuple[int, int, int]
    ) -> npt.NDArray[np.int8]:
        """Read the integers."""

    def _check(self, shape: tuple[int, ...], rate: int) -> None:
        if not 0 <= rate < self.rates:
            raise UsageError(f"There is no rate {rate}; the codec has 0 to {self.rates - 1}.")
        if len(shape) != 3 or shape[0] != self.channels or 0 in shape:
            raise UsageError(f"The integers are {shape}; the codec has ({self.channels}, H, W).")


class Factorised(Entropy):
    """One table for each rate and channel.

    Args:
        counts: (R, C, 2L + 1).
    """

    def __init__(self, counts: _Array) -> None:
        _check_tables("counts", counts)
        self._counts = counts.astype(np.uint16)
        self.rates, self.channels = counts.shape[:2]
        self.limit = counts.shape[2] // 2

    def _tables(self, integers: _Array, rate: int) -> _Array:
        return self._every(rate, integers[0].size)

    def _decode(
        self, reader: rangecoder.Decoder, rate: int, shape: tuple[int, int, int]
    ) -> npt.NDArray[np.int8]:
        symbols = reader.read(self._every(rate, shape[1] * shape[2]))
        return _integers(symbols.reshape(*shape[1:], shape[0]), self.limit)

    def _every(self, rate: int, positions: int) -> _Array:
        return np.tile(self._counts[rate], (positions, 1))


class Context(Entropy):
    """A table chosen by a small network that looks at the twelve positions before.

    Args:
        w1: (R, hidden, C, 12), of the symbols as integers; 12 fractional bits.
        b1: (R, hidden); 12 fractional bits.
        w2: (R, 2C, hidden), of the activations with 8 fractional bits; 12 fractional bits. The
            first C outputs are means, the others scales.
        b2: (R, 2C); 20 fractional bits.
        tables: (scales, 8L + 1, 2L + 1); means in quarter steps from -L to L.
    """

    def __init__(self, w1: _Array, b1: _Array, w2: _Array, b2: _Array, *, tables: _Array) -> None:
        _check_tables("tables", tables)
        self.limit = tables.shape[2] // 2
        if w1.ndim != 4:
            raise EngineError(f"The entropy model's w1 is {w1.shape}, not (R, hidden, C, 12).")
        self.rates, hidden, self.channels, _ = w1.shape
        self._means = _STEPS * 2 * self.limit + 1
        _check_shape("w1", w1, (self.rates, hidden, self.channels, len(TAPS)))
        _check_shape("b1", b1, (self.rates, hidden))
        _check_shape("w2", w2, (self.rates, 2 * self.channels, hidden))
        _check_shape("b2", b2, (self.rates, 2 * self.channels))
        _check_shape("tables", tables, (len(tables), self._means, 2 * self.limit + 1))
        _check_exact("w1 and b1", w1.reshape(*b1.shape, -1), b1, self.limit)
        _check_exact("w2 and b2", w2, b2, _HIDDEN, room=2 * _STEPS)
        self._counts = tables.reshape(-1, tables.shape[2]).astype(np.uint16)
        self._set_network(*(each.astype(np.float64) for each in (w1, b1, w2, b2)))
        self._middle = np.repeat([_STEPS * self.limit, 0], self.channels)
        self._last = np.repeat([self._means - 1, len(tables) - 1], self.channels)

    def _set_network(self, w1: _Floats, b1: _Floats, w2: _Floats, b2: _Floats) -> None:
        """Keep the weights, with what follows the sums multiplied in where that is exact."""
        steps = np.repeat([float(_STEPS), 1.0], self.channels)
        self._w1, self._b1 = w1.swapaxes(2, 3), b1  # (R, hidden, 12, C)
        self._w2, self._b2 = w2 * steps[:, None], b2 * steps + _ONE // 2

    def _tables(self, integers: _Array, rate: int) -> _Array:
        _, height, width = integers.shape
        framed = _framed(height, width, self.channels)
        framed[2:, 2:-2] = integers.transpose(1, 2, 0)
        seen = [
            framed[2 + down : 2 + down + height, 2 + across : 2 + across + width]
            for down, across in TAPS
        ]
        context = np.stack(seen, axis=2).reshape(height * width, -1)
        sums = context @ self._w1[rate].reshape(len(self._b1[rate]), -1).T + self._b1[rate]
        return self._counts[self._chosen(sums, rate)].reshape(-1, self._counts.shape[1])

    def _decode(
        self, reader: rangecoder.Decoder, rate: int, shape: tuple[int, int, int]
    ) -> npt.NDArray[np.int8]:
        _, height, width = shape
        framed = _framed(height, width, self.channels)
        hidden = len(self._b1[rate])
        above = self._w1[rate][:, :_ABOVE].reshape(hidden, -1).T
        # What a decoded position adds to the sums of the next but one and of the next.
        onward = self._w1[rate][:, _ABOVE:].transpose(1, 0, 2).reshape(2 * hidden, -1)
        for row in range(height):
            sums = np.zeros((width + 2, hidden))
            sums[:width] = _above(framed[row : row + 2], width) @ above + self._b1[rate]
            for column in range(width):
                counts = self._counts[self._chosen(sums[column], rate)]
                now = reader.read(counts) - self.limit
                framed[row + 2, column + 2] = now
                further = onward @ now
                sums[column + 2] += further[:hidden]
                sums[column + 1] += further[hidden:]
        return _integers(framed[2:, 2:-2], 0)

    def _chosen(self, sums: _Floats, rate: int) -> npt.NDArray[np.int64]:
        """Return each channel's table (…, C) for the sums of the hidden units (…, hidden)."""
        hidden = np.clip(np.floor(sums / 16), 0, _HIDDEN)
        out = np.floor((hidden @ self._w2[rate].T + self._b2[rate]) / _ONE) + self._middle
        index = np.clip(out, 0, self._last).astype(np.int64)
        means, scales = index[..., : self.channels], index[..., self.channels :]
        chosen: npt.NDArray[np.int64] = scales * self._means + means
        return chosen


def _framed(height: int, width: int, channels: int) -> _Floats:
    """Return an empty map with the zeros that stand around it on three sides."""
    return np.zeros((height + 2, width + 4, channels))


def _above(rows: _Floats, width: int) -> _Floats:
    """Return the ten taps above each position of a row, (width, 10·C), from the two rows above."""
    seen = [rows[2 + down, 2 + across : 2 + across + width] for down, across in TAPS[:_ABOVE]]
    return np.concatenate(seen, axis=1)


def _integers(symbols: _Array, limit: int) -> npt.NDArray[np.int8]:
    """Return (C, H, W) of symbols (H, W, C)."""
    return np.ascontiguousarray((symbols - limit).transpose(2, 0, 1).astype(np.int8))


def _whole(arrays: Mapping[str, Any], name: str) -> _Array:
    array = np.asarray(arrays[name])
    if array.dtype.kind not in "iu":
        raise EngineError(f"The entropy model's {name} is {array.dtype}; integers are allowed.")
    return array


def _check_shape(name: str, array: _Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape or 0 in shape:
        raise EngineError(f"The entropy model's {name} is {array.shape}; {shape} fits the others.")


def _check_tables(name: str, counts: _Array) -> None:
    symbols = counts.shape[-1] if counts.ndim == 3 else 0
    if not (3 <= symbols <= 255 and symbols % 2 and 0 < counts.size <= _MOST_ENTRIES):
        raise EngineError(
            f"The entropy model's {name} is {counts.shape}; allowed are three axes, the last of 3 "
            f"to 255 symbols and odd, and {_MOST_ENTRIES} entries."
        )
    if counts.min() < 1 or counts.max() > TOTAL or np.any(counts.sum(-1, np.int64) != TOTAL):
        raise EngineError(
            f"The entropy model's {name} must be 1 or more everywhere and sum to {TOTAL} in every "
            "row; train or export the codec again."
        )


def _check_exact(name: str, weights: _Array, bias: _Array, most: int, room: int = 1) -> None:
    """Check that no sum can leave the integers that float64 holds exactly."""
    size = np.abs(weights.astype(np.float64)).sum(-1) * most + np.abs(bias.astype(np.float64))
    if np.any((size + _ONE) * room >= _EXACT):
        raise EngineError(
            f"The entropy model's {name} are too large to be computed exactly; train it again with "
            "smaller weights."
        )
