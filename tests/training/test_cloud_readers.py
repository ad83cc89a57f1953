"""Readers of foreign weight files: they take what they know, and run nothing."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_store.errors import EnvironmentMissing
from training.cloud.networks.frozen_graph import read_constants
from training.cloud.networks.pickled_arrays import read_arrays

FLOATS = arrays.arrays(
    np.float32, arrays.array_shapes(max_dims=4, max_side=4), elements=st.floats(width=32)
)
NAMES = st.text("abz/_10", min_size=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


# --- pickled arrays ---------------------------------------------------------------------------


def pickled(folder: Path, content: Any, protocol: int = 3) -> Path:
    path = folder / "weights.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@given(st.dictionaries(NAMES, st.lists(FLOATS, max_size=3), max_size=4))
def test_pickled_arrays_come_back(folder: Path, content: dict[str, list[np.ndarray]]) -> None:
    found = read_arrays(pickled(folder, content))

    assert list(found) == list(content)
    for name, items in content.items():
        assert len(found[name]) == len(items)
        for one, other in zip(found[name], items, strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_array_stored_by_columns_comes_back(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))

    np.testing.assert_array_equal(read_arrays(pickled(tmp_path, {"a": [array]}))["a"][0], array)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_is_refused(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(EnvironmentMissing, match="not a file of numpy arrays"):
        read_arrays(pickled(tmp_path, {"conv1": [Evil()]}, protocol))

    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"a": [np.zeros(3)]},
        {"a": [np.zeros(3, dtype=np.int32)]},
        {"a": [np.zeros(3, dtype=">f4")]},
        {"a": ["text"]},
        {"a": 1},
        ["a"],
        None,
    ],
    ids=str,
)
def test_any_other_pickle_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match="install the assets again"):
        read_arrays(pickled(tmp_path, content))


@given(st.binary(max_size=80), st.integers(0, 300))
def test_a_damaged_pickle_is_refused_in_one_way(folder: Path, noise: bytes, at: int) -> None:
    path = pickled(folder, {"a": [np.zeros((2, 3), dtype=np.float32)]})
    whole = path.read_bytes()
    path.write_bytes(whole[: at % len(whole)] + noise)

    with contextlib.suppress(EnvironmentMissing):  # the noise may happen to complete it
        read_arrays(path)


# --- frozen graphs ----------------------------------------------------------------------------


def varint(value: int) -> bytes:
    head = b""
    while value >= 0x80:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def attribute(name: str, value: bytes) -> bytes:
    return field(5, field(1, name.encode()) + field(2, value))


def constant(name: str, array: np.ndarray, dtype: int = 1) -> bytes:
    shape = b"".join(field(2, field(1, size)) for size in array.shape)
    tensor = field(1, dtype) + field(2, shape) + field(4, array.tobytes())
    kind = attribute("dtype", field(6, dtype))
    return field(
        1,
        field(1, name.encode()) + field(2, b"Const") + kind + attribute("value", field(8, tensor)),
    )


@given(st.dictionaries(NAMES, FLOATS, max_size=4))
def test_constants_come_back(folder: Path, content: dict[str, np.ndarray]) -> None:
    path = folder / "graph.pb"
    other = field(1, field(1, b"relu") + field(2, b"Relu6") + field(3, b"conv"))
    nodes = [constant(name, array) for name, array in content.items()]
    path.write_bytes(other + b"".join(nodes) + field(4, field(1, 27)) + field(9, 3))

    found = read_constants(path)

    assert list(found) == list(content)
    for name, array in content.items():
        np.testing.assert_array_equal(found[name], array)


def test_constants_of_other_kinds_are_left_out(tmp_path: Path) -> None:
    numbers = constant("numbers", np.zeros(2, dtype=np.int32), dtype=3)
    inner = field(1, 1) + field(5, b"\0\0\0\0")  # a scalar, kept without tensor_content
    scalar = field(1, field(1, b"scalar") + attribute("value", field(8, inner)))
    (tmp_path / "graph.pb").write_bytes(numbers + scalar)

    assert read_constants(tmp_path / "graph.pb") == {}


@pytest.mark.parametrize(
    "data",
    [
        constant("weights", np.zeros(8, dtype=np.float32))[:-3],
        constant("weights", np.zeros(8, dtype=np.float32)).replace(b"\x08\x08", b"\x08\x09"),
        varint(1 << 3 | 3),
        b"\xff" * 9,
        field(1, field(5, field(1, b"value"))),
        field(1, field(1, 7)),
    ],
    ids=["cut", "shape", "group", "endless", "no-value", "number-for-name"],
)
def test_a_damaged_graph_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "graph.pb").write_bytes(data)

    with pytest.raises(EnvironmentMissing, match="not a frozen graph"):
        read_constants(tmp_path / "graph.pb")
