"""Which software made a result: recorded in manifests and reports."""

from __future__ import annotations

import platform
from importlib import metadata

from PIL import features

__all__ = ["versions"]

PACKAGES = ("adacompress", "numpy", "onnx", "onnxruntime", "pillow", "torch", "torchvision")


def versions() -> dict[str, str]:
    """Return package name to version; bytes differ between builds of the image libraries."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    for name in ("libjpeg_turbo", "webp"):
        found[name.replace("_", "-")] = str(features.version(name) or "unknown")
    return found
