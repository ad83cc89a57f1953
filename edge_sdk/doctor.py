"""Can this machine run an agent? Versions, execution providers, and a verdict in one sentence."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from edge_sdk.engine import PROVIDERS

__all__ = ["SCHEMA", "examine"]

SCHEMA = "adacompress.doctor/1"

_PACKAGES = ("adacompress", "numpy", "pillow", "requests")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "tensorrt")


def examine() -> dict[str, Any]:
    """Look at this machine.

    Returns:
        A JSON-ready report: ``versions`` (None for what is not installed), ``providers`` that
        engines can run on, ``warnings``, ``ok``, and ``verdict``.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    versions |= {name: _version(name) for name in (*_PACKAGES, *_RUNTIMES)}
    versions["libjpeg-turbo"] = _libjpeg_turbo()
    providers, trouble = _providers()
    warnings = [trouble] if trouble else []
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        warnings.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "uninstall both, then install one of them."
        )
    if not versions["libjpeg-turbo"]:
        warnings.append("Pillow is built without libjpeg-turbo: encoding is several times slower.")
    ok = bool(providers)
    return {
        "schema": SCHEMA,
        "platform": platform.platform(),
        "versions": versions,
        "providers": providers,
        "warnings": warnings,
        "ok": ok,
        "verdict": _verdict(ok, providers, versions),
    }


def _verdict(ok: bool, providers: list[str], versions: dict[str, str | None]) -> str:
    if ok:
        return f"Ready: engines run on {', '.join(providers)}."
    if versions["tensorrt"]:
        return (
            "Not ready: TensorRT is here, but engines are loaded with ONNX Runtime; "
            "run `pip install adacompress[gpu]`."
        )
    return "Not ready: no engine runtime; run `pip install adacompress[cpu]` (or [gpu])."


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _libjpeg_turbo() -> str | None:
    from PIL import features  # the command line's help needs no Pillow

    return features.version_feature("libjpeg_turbo")


def _providers() -> tuple[list[str], str]:
    try:
        import onnxruntime  # 150 ms, and what this is about may be that it cannot be imported
    except ImportError as error:
        return [], f"ONNX Runtime cannot be imported: {error}."
    offered = onnxruntime.get_available_providers()
    return [short for short, name in PROVIDERS.items() if name in offered], ""
