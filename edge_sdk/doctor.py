"""Can this machine run an agent? One table of what was wanted and what is there, and a verdict.

The machine is described as a ``model_store.compat.Runtime`` and judged there. A provider that is
offered need not work, and ONNX Runtime falls back in silence; so a session of one node is made,
and asked where it runs.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edge_sdk.engine import PROVIDERS, open_session
from edge_sdk.featurecodec import rangecoder
from edge_sdk.gpu import visible_gpu
from edge_sdk.lossless import PACKAGE, open_pass
from edge_sdk.preprocess import spec_sha256
from model_store.compat import ENGINES, Runtime, check, check_runtime
from model_store.errors import AdaCompressError, EnvironmentMissing

if TYPE_CHECKING:
    from model_store import Manifest

__all__ = ["SCHEMA", "examine", "rows"]

SCHEMA = "adacompress.doctor/1"

_PACKAGES = ("adacompress", "numpy", "pillow", "requests")

# ONNX's file of one node, y = Identity(x) on one float; its last byte is the operator set.
_GRAPH = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a01"
    "79120a0a08080112040a02080142040a0010"
)
#: Operator sets that are tried, and the last that every ONNX Runtime which we support reads.
_OPSETS, _SURE = range(13, 64), 13


def examine(wanted: str = "cpu", manifest: Manifest | None = None) -> dict[str, Any]:
    """Look at this machine.

    Args:
        wanted: the provider that engines are to run on, one of ``edge_sdk.engine.PROVIDERS``.
        manifest: of the agent that is to run here, if one is meant.

    Returns:
        A JSON-ready report: ``versions`` (None for what is not installed), the provider ``wanted``,
        the ``providers`` that are offered, the one ``got`` by a session or None, ``opset_max``,
        ``gpu``, what would be ``used``, the JPEG ``encoder``, what does the ``lossless_pass``
        or None, the ``agent`` and its ``codecs`` of features (``id`` and ``runtime``), ``reasons``
        why not, ``warnings``, ``ok``, and the ``verdict``.
    """
    runtime, trouble = _runtime(wanted)
    got, failed = _trial(wanted, runtime)
    ok, reasons = check(manifest, runtime) if manifest else check_runtime(runtime)
    if ok and got != wanted:
        ok, reasons = False, (failed or f"a session for {wanted} runs on {got} instead",)
    return {
        "schema": SCHEMA,
        "platform": platform.platform(),
        "versions": dict(runtime.versions),
        "wanted": wanted,
        "providers": list(runtime.providers),
        "got": got,
        "opset_max": runtime.opset_max,
        "gpu": runtime.gpu,
        "used": f"ONNX Runtime on {got}" if got else "nothing: the reference is sent",
        "encoder": _encoder(runtime.versions),
        "lossless_pass": _lossless_pass(),
        "agent": manifest.id if manifest else None,
        "codecs": _codecs(manifest) if manifest else [],
        "reasons": list(reasons),
        "warnings": [*trouble, *_warnings(runtime.versions)],
        "ok": ok,
        "verdict": f"Ready: engines run on {got}." if ok else f"Not ready: {'; '.join(reasons)}.",
    }


def rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the report as a table of two columns; the verdict is the last line."""
    yield "platform", report["platform"]
    for name, version in report["versions"].items():
        yield name, version or "not installed"
    yield "GPU", report["gpu"] or "none"
    yield "provider wanted", report["wanted"]
    yield "providers offered", ", ".join(report["providers"]) or "none"
    yield "provider got", report["got"] or "none"
    yield "ONNX operators up to", str(report["opset_max"] or "not known")
    yield "would be used", report["used"]
    yield "JPEG encoder", report["encoder"]
    yield "lossless pass", report["lossless_pass"] or "none; `pip install 'adacompress[mozjpeg]'`"
    if report["agent"]:
        yield "agent", report["agent"]
    for codec in report["codecs"]:
        yield "codec", f"{codec['id']}, runtime {codec['runtime']}"
    for warning in report["warnings"]:
        yield "warning", warning
    yield "verdict", report["verdict"]


def _runtime(wanted: str) -> tuple[Runtime, list[str]]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    versions |= {name: _version(name) for name in (*_PACKAGES, *ENGINES)}
    versions["libjpeg-turbo"] = _libjpeg_turbo()
    providers, trouble = _providers()
    gpu = visible_gpu()
    runtime = Runtime(
        versions=versions,
        wanted=wanted,
        providers=providers,
        opset_max=_opset_max() if providers else None,
        gpu=f"{gpu.name}, compute capability {gpu.compute_capability}" if gpu else None,
        preprocessing_sha256=spec_sha256(),
    )
    return runtime, trouble


def _trial(wanted: str, runtime: Runtime) -> tuple[str | None, str]:
    """Return where a session for ``wanted`` runs, or None and why there is none."""
    if not runtime.providers:
        return None, ""
    try:
        session = open_session(_GRAPH + bytes([_SURE]), wanted)
    except AdaCompressError as error:
        return None, str(error)
    names = {name: short for short, name in PROVIDERS.items()}
    first = str(session.get_providers()[0])
    return names.get(first, first), ""


def _opset_max() -> int | None:
    """Return the latest operator set that the runtime reads; it is not written anywhere."""
    latest = None
    for opset in _OPSETS:
        try:
            open_session(_GRAPH + bytes([opset]))
        except AdaCompressError:
            break
        latest = opset
    return latest


def _warnings(versions: Mapping[str, str | None]) -> Iterator[str]:
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        yield (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "uninstall both, then install one of them."
        )
    if versions["tensorrt"] and not (versions["onnxruntime"] or versions["onnxruntime-gpu"]):
        yield "TensorRT is here, but engines are loaded with ONNX Runtime; it is needed as well."
    if not versions["libjpeg-turbo"]:
        yield "Pillow is built without libjpeg-turbo: encoding is several times slower."


def _encoder(versions: Mapping[str, str | None]) -> str:
    turbo = versions["libjpeg-turbo"]
    return f"Pillow {versions['pillow']}, {f'libjpeg-turbo {turbo}' if turbo else 'libjpeg'}"


def _lossless_pass() -> str | None:
    try:
        open_pass()
    except EnvironmentMissing:
        return None
    return f"{PACKAGE} {_version(PACKAGE)}"


def _codecs(manifest: Manifest) -> list[dict[str, str]]:
    found = {rung["codec"]: None for rung in manifest.ladder if rung.get("codec")}
    return [{"id": name, "runtime": rangecoder.runtime()} for name in found]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _libjpeg_turbo() -> str | None:
    from PIL import features  # the command line's help needs no Pillow

    return features.version_feature("libjpeg_turbo")


def _providers() -> tuple[tuple[str, ...], list[str]]:
    try:
        import onnxruntime  # 150 ms, and what this is about may be that it cannot be imported
    except ImportError as error:
        return (), [f"ONNX Runtime cannot be imported: {error}."]
    offered = onnxruntime.get_available_providers()
    return tuple(short for short, name in PROVIDERS.items() if name in offered), []
