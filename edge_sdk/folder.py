"""Which files of a folder are pictures, by their endings; ``edge_sdk.reading`` opens them."""

from __future__ import annotations

from pathlib import Path

from model_store.errors import UsageError

__all__ = ["SUFFIXES", "find_pictures"]

#: File endings that a folder is searched for, in lower case.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


def find_pictures(folder: Path) -> list[Path]:
    """Return the picture files below ``folder`` in a stable order.

    Raises:
        UsageError: there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is not a folder; give one that holds pictures.")
    files = (path for path in folder.rglob("*") if path.is_file())
    found = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(
            f"The folder {str(folder)!r} holds no pictures; files ending in "
            f"{', '.join(sorted(SUFFIXES))} are looked for, sub-folders included."
        )
    return found
