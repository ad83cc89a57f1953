"""Fewer bytes for the very same pixels: mozjpeg's lossless pass, for who pays by the byte.

The coefficients stay as they are; Huffman tables and the order of scans are chosen anew. That
takes several times what the encoding took, and what it saves is least where the ladder's own
entropy coding did most already (``tests/benchmarks/test_lossless.py``).

It is for files that were encoded here, and for no others: at a coefficient out of range, as a
damaged or hostile file may hold one, mozjpeg ends the process, which no ``except`` can stop. So
sources that are uploaded as they are do not go through it.
"""

from __future__ import annotations

from collections.abc import Callable

from model_store.errors import EnvironmentMissing

__all__ = ["PACKAGE", "Recode", "open_pass"]

PACKAGE = "mozjpeg-lossless-optimization"

#: Takes the file of a rung, returns one of the same pixels with no more bytes.
Recode = Callable[[bytes], bytes]

_JPEG = b"\xff\xd8"


def open_pass() -> Recode:
    """Return the lossless pass; what is no JPEG file comes out of it as it is.

    Raises:
        EnvironmentMissing: the package that does it is not installed.
    """
    try:
        from mozjpeg_lossless_optimization import optimize  # an extra
    except ImportError as error:
        raise EnvironmentMissing(
            f"The lossless pass was asked for and needs {PACKAGE} ({error}); run `pip install "
            "'adacompress[mozjpeg]'`, or set lossless_pass to false."
        ) from error

    def recode(file: bytes) -> bytes:
        if not file.startswith(_JPEG):
            return file
        try:
            recoded: bytes = optimize(file)
        except ValueError:  # it is out of memory, say
            return file
        return min(file, recoded, key=len)

    return recode
