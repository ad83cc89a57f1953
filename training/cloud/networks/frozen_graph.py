"""Read the weights out of a TensorFlow frozen graph, without TensorFlow; nothing in it is run.

A frozen graph is one protocol-buffer message of nodes; weights are nodes of the kind ``Const``. Of
the format only what leads to them is known here:

    GraphDef.node = 1 · NodeDef.name = 1, .op = 2, .attr = 5 (a map: key = 1, value = 2)
    AttrValue.tensor = 8 · TensorProto.dtype = 1, .tensor_shape = 2, .tensor_content = 4
    TensorShapeProto.dim = 2 · Dim.size = 1
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_store.errors import EnvironmentMissing

__all__ = ["read_constants"]

_FLOAT = 1  # DT_FLOAT
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_constants(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return every float32 constant that is more than a scalar, by its node's name.

    Raises:
        EnvironmentMissing: the file is no frozen graph.
    """
    found = {}
    try:
        for number, node in _fields(memoryview(path.read_bytes())):
            if number == 1 and isinstance(node, memoryview):
                name, value = _constant(node)
                if value is not None:
                    found[name] = value
    except (IndexError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise EnvironmentMissing(
            f"{path} is not a frozen graph that can be read ({error}); install the assets again."
        ) from error
    return found


def _constant(node: memoryview) -> tuple[str, npt.NDArray[np.float32] | None]:
    name, value = "", None
    for number, content in _fields(node):
        if number == 1:
            name = _text(content)
        elif number == 5:
            attribute = dict(_fields(_message(content)))
            if _text(attribute[1]) == "value":
                value = _tensor(dict(_fields(_message(attribute[2]))))
    return name, value


def _tensor(attribute: dict[int, int | memoryview]) -> npt.NDArray[np.float32] | None:
    if 8 not in attribute:
        return None
    tensor = dict(_fields(_message(attribute[8])))
    if tensor.get(1) != _FLOAT or 4 not in tensor:
        return None
    shape = [
        dict(_fields(_message(dim))).get(1, 0)
        for number, dim in _fields(_message(tensor.get(2, memoryview(b""))))
        if number == 2
    ]
    return np.frombuffer(_message(tensor[4]), dtype="<f4").reshape([int(size) for size in shape])


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield each field's number with its integer or its bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of unknown kind {kind}")
        if at + size > len(message):
            raise ValueError("the file is cut short")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the integer at a position (7 bits a byte, lowest first) and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
