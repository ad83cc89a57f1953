"""Reads the protobuf wire format field by field, bounded: for files that nobody vouches for.

Not a protobuf library: no messages, no packed fields, no writing. The format is described at
https://protobuf.dev/programming-guides/encoding/. A reader has a budget of fields, so that a file
of millions of empty ones costs a second, not an hour; nothing is copied but what is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model_store.errors import UnsafeModel

__all__ = ["Field", "Reader"]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_SIZES = {FIXED64: 8, FIXED32: 4}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its number, its wire type, and its number or bytes (``LENGTH``)."""

    number: int
    wire: int
    integer: int
    data: memoryview

    def text(self) -> str:
        """Return the field as UTF-8 text."""
        try:
            return bytes(self.message()).decode()
        except UnicodeDecodeError as error:
            raise UnsafeModel(f"The model's field {self.number} is no text ({error}).") from error

    def message(self) -> memoryview:
        """Return the field's content: a message, a text or bytes."""
        if self.wire != LENGTH:
            raise UnsafeModel(f"The model's field {self.number} has the wire type {self.wire}.")
        return self.data

    def signed(self) -> int:
        """Return the field as a signed 64-bit integer."""
        if self.wire != VARINT:
            raise UnsafeModel(f"The model's field {self.number} has the wire type {self.wire}.")
        return self.integer - (1 << 64) if self.integer >> 63 else self.integer


class Reader:
    """Reads messages until its budget is spent.

    Args:
        budget: fields that may be read in all.
    """

    def __init__(self, budget: int) -> None:
        self._budget = self._left = budget

    def fields(self, message: memoryview) -> Iterator[Field]:
        """Yield the fields of one message.

        Raises:
            UnsafeModel: it is no protobuf message, or the budget is spent.
        """
        position, end = 0, len(message)
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise UnsafeModel(f"The model has more than {self._budget} fields.")
            tag, position = _varint(message, position)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise UnsafeModel(f"The model has a field number {number}; it is no ONNX file.")
            integer = 0
            size = _SIZES.get(wire, 0)
            if wire == VARINT:
                integer, position = _varint(message, position)
            elif wire == LENGTH:
                size, position = _varint(message, position)
            elif not size:
                raise UnsafeModel(f"The model's field {number} has the wire type {wire}.")
            if size > end - position:
                raise UnsafeModel(f"The model's field {number} ends after the file.")
            yield Field(number, wire, integer, message[position : position + size])
            position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return an unsigned 64-bit number and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
    raise UnsafeModel("The model has a number that does not end; it is no ONNX file.")
