"""Read numpy arrays out of a pickle file without unpickling it: nothing in it is ever run.

A pickle is a program. Here its instructions are listed, not executed, and the few that lists,
dictionaries and float32 arrays are made of are understood; any other one is an error.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import EnvironmentMissing

__all__ = ["read_arrays"]

_RECONSTRUCT = {
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
}
_GLOBALS = {*_RECONSTRUCT, "numpy ndarray", "numpy dtype"}

#: Instructions that push their argument, or a constant.
_ARGUMENT = {"BININT", "BININT1", "BININT2", "BINUNICODE", "BINBYTES", "SHORT_BINBYTES"}
_CONSTANT: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWFALSE": lambda: False,
    "NEWTRUE": lambda: True,
}
_TUPLE = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Built:
    """What a ``REDUCE`` would make, and the state that a ``BUILD`` would give it."""

    def __init__(self, maker: str, arguments: tuple[Any, ...]) -> None:
        self.maker, self.arguments = maker, arguments
        self.state: Any = None


def read_arrays(path: Path) -> dict[str, list[np.ndarray[Any, np.dtype[np.float32]]]]:
    """Return the arrays of a pickled ``{name: [array, …]}``, all of them float32.

    Raises:
        EnvironmentMissing: the file holds anything else.
    """
    try:
        content = _Reader().read(path.read_bytes())
        return {str(name): [_array(item) for item in items] for name, items in content.items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise EnvironmentMissing(
            f"{path} is not a file of numpy arrays that can be read ({error}); install the assets "
            "again."
        ) from error


class _Reader:
    """The stack of values that a pickle's instructions work on."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memory: dict[int, Any] = {}

    def read(self, data: bytes) -> Any:
        for code, argument, _ in pickletools.genops(data):
            self._step(code.name, argument)
        (value,) = self._stack
        return value

    def _step(self, code: str, argument: Any) -> None:
        stack = self._stack
        if code in _ARGUMENT:
            stack.append(argument)
        elif code in _CONSTANT:
            stack.append(_CONSTANT[code]())
        elif code == "MARK":
            self._marks.append(len(stack))
        elif code in _TUPLE:
            stack.append(tuple(self._take(_TUPLE[code])))
        elif code == "TUPLE":
            stack.append(tuple(self._from_mark()))
        elif code in ("APPEND", "APPENDS"):
            items = self._take(1) if code == "APPEND" else self._from_mark()
            stack[-1].extend(items)
        elif code in ("SETITEM", "SETITEMS"):
            items = self._take(2) if code == "SETITEM" else self._from_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif code in ("BINPUT", "LONG_BINPUT"):
            self._memory[argument] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(self._memory[argument])
        else:
            self._make(code, argument)

    def _make(self, code: str, argument: Any) -> None:
        """Follow the instructions that would import and call something."""
        stack = self._stack
        if code == "GLOBAL" and argument in _GLOBALS:
            stack.append(argument)
        elif code == "REDUCE":
            stack.append(_Built(*self._take(2)))
        elif code == "BUILD":
            (state,) = self._take(1)
            stack[-1].state = state
        elif code not in ("PROTO", "STOP"):
            raise ValueError(f"unexpected {code} {argument if code == 'GLOBAL' else ''}".strip())

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("the file is damaged")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _from_mark(self) -> list[Any]:
        start = self._marks.pop()
        taken = self._stack[start:]
        del self._stack[start:]
        return taken


def _array(built: _Built) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the array that numpy's own reduction describes: (1, shape, dtype, columns, bytes)."""
    _, shape, dtype, columns_first, data = built.state
    if built.maker not in _RECONSTRUCT or (dtype.arguments[0], dtype.state[1]) != ("f4", "<"):
        raise ValueError("an array that is not float32")
    order: Any = "F" if columns_first else "C"
    return np.frombuffer(data, dtype="<f4").reshape(shape, order=order)
