from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from model_store import files


def test_an_atomic_write_makes_the_folder_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    files.write_atomic(path, b"old")
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in path.parent.iterdir()] == ["b.bin"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    in_the_way = tmp_path / "target"
    (in_the_way / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="target"):
        files.write_atomic(in_the_way, b"data")
    assert [item.name for item in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        files.write_atomic(tmp_path / "file" / "x", b"data")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_other_users_may_read_what_was_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        files.write_atomic(tmp_path / "x", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_both_hashes_are_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert files.sha256_bytes(data) == files.sha256_file(tmp_path / "x") == expected


def test_json_is_stable_and_comes_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"b": [1, "ü"], "a": None})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": null,\n  "b": [\n    1,\n    "ü"\n  ]\n}\n'
    assert files.read_json(tmp_path / "x.json") == {"a": None, "b": [1, "ü"]}


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b""])
def test_what_is_not_json_is_a_value_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"."):
        files.read_json(tmp_path / "x.json")


def test_a_missing_json_file_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "x.json")


def test_syncing_a_folder_that_cannot_be_opened_is_no_error(tmp_path: Path) -> None:
    files.sync_folder(tmp_path / "missing")
