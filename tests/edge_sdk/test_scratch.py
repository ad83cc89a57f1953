"""What is saved comes back as it was written, whoever else saves at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from edge_sdk import scratch
from edge_sdk.codec import encode
from edge_sdk.ladder import FULL, REFERENCE


def test_a_short_file_after_a_long_one_is_whole(photo: Image.Image) -> None:
    wide = Image.effect_noise((2000, 1500), 80).convert("RGB")
    long, short = encode(wide, REFERENCE), encode(photo, REFERENCE)
    assert len(long) > 1 << 20
    assert [encode(one, REFERENCE) for one in (wide, photo)] == [long, short]
    for jpeg in (long, short):
        assert jpeg.startswith(b"\xff\xd8")
        assert jpeg.endswith(b"\xff\xd9")


def test_a_failed_file_leaves_nothing_to_the_next() -> None:
    def fail(file: object) -> None:
        file.write(b"half a file")  # type: ignore[attr-defined]
        raise OSError("the encoder gave up")

    with pytest.raises(OSError, match="gave up"):
        scratch.saved(fail)
    assert scratch.saved(lambda file: file.write(b"whole")) == b"whole"


def test_threads_do_not_write_into_each_other(photo: Image.Image) -> None:
    alone = _encodings(photo)
    with ThreadPoolExecutor(8) as pool:
        for together in pool.map(_encodings, [photo.copy() for _ in range(24)]):
            assert together == alone


def _encodings(image: Image.Image) -> list[bytes]:
    return [encode(image, rung) for rung in FULL]


def test_where_the_system_has_no_files_in_memory_the_bytes_are_the_same(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = encode(photo, REFERENCE)

    def missing(name: str) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", missing, raising=False)
    with ThreadPoolExecutor(1) as pool:  # a thread that has no file yet
        assert pool.submit(encode, photo, REFERENCE).result() == usual


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_write_into_its_parents_file() -> None:
    code = """
import os
from edge_sdk.scratch import saved

def slowly(file):
    file.write(b"parent ")
    child = os.fork()
    if not child:
        saved(lambda other: other.write(b"child of another length"))
        os._exit(0)
    os.waitpid(child, 0)
    file.write(b"goes on")

assert saved(slowly) == b"parent goes on"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are listed in /proc")  # noqa: PTH112
def test_a_threads_file_goes_with_it(photo: Image.Image) -> None:
    encode(photo, REFERENCE)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    thread = threading.Thread(target=encode, args=(photo, REFERENCE))
    thread.start()
    thread.join()
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
