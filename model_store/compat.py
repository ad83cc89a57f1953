"""Can this agent run there? Asked of a manifest and a description of a runtime, before loading.

Nothing is opened and nothing imported; who knows the machine fills in a :class:`Runtime`
(``edge_sdk.doctor`` does). The answer holds every reason, not the first alone.

    ok, reasons = check(manifest, Runtime(versions={"onnxruntime": "1.20.0"}, providers=("cpu",)))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from model_store.manifest import Manifest

__all__ = ["ENGINES", "OPSET", "Runtime", "check", "check_runtime"]

#: In a manifest's versions: the operator set that its engines need, as ``Store.publish`` saw it.
OPSET = "onnx-opset"

#: Packages that can run an engine; they exclude each other.
ENGINES = ("onnxruntime", "onnxruntime-gpu", "tensorrt")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What a machine offers to an agent.

    Attributes:
        versions: package to version, or None for what is not installed.
        wanted: the provider that engines are to run on: ``cpu``, ``cuda`` or ``tensorrt``.
        providers: those that the engine runtime offers.
        opset_max: the latest operator set that it reads; None is not known.
        gpu: the GPU's name; None is none, or not known.
        preprocessing_sha256: of the pre-processing that is done there; None is not known.
    """

    versions: Mapping[str, str | None] = field(default_factory=dict)
    wanted: str = "cpu"
    providers: tuple[str, ...] = ()
    opset_max: int | None = None
    gpu: str | None = None
    preprocessing_sha256: str | None = None


def check(manifest: Manifest, runtime: Runtime) -> tuple[bool, tuple[str, ...]]:
    """Return whether an agent can run there, and every reason why not."""
    reasons = (*check_runtime(runtime)[1], *_misfits(manifest, runtime))
    return not reasons, reasons


def check_runtime(runtime: Runtime) -> tuple[bool, tuple[str, ...]]:
    """Return whether any agent can run there as wanted, and every reason why not."""
    reasons = tuple(_lacks(runtime))
    return not reasons, reasons


def _lacks(runtime: Runtime) -> Iterator[str]:
    if not any(runtime.versions.get(name) for name in ENGINES):
        yield "no engine runtime is installed; run `pip install adacompress[cpu]` (or [gpu])"
    elif not runtime.providers:
        yield (
            "the engine runtime offers no provider, or cannot be imported; install it again, with "
            "`pip install adacompress[cpu]` (or [gpu])"
        )
    elif runtime.wanted not in runtime.providers:
        yield (
            f"the provider {runtime.wanted} is wanted, but only {', '.join(runtime.providers)} is "
            "there; run `pip install adacompress[gpu]`, or ask for one of these"
        )
    if runtime.wanted != "cpu" and runtime.gpu is None:
        yield f"the provider {runtime.wanted} is wanted, but no GPU is visible; look at its driver"


def _misfits(manifest: Manifest, runtime: Runtime) -> Iterator[str]:
    if not manifest.entries("engine"):
        yield f"agent {manifest.id} has no engine; export and publish it"
    needed = manifest.versions.get(OPSET, "")
    if runtime.opset_max is not None and needed.isdecimal() and int(needed) > runtime.opset_max:
        yield (
            f"agent {manifest.id} needs operator set {needed}, the runtime reads "
            f"{runtime.opset_max} at most; update the runtime"
        )
    made, here = manifest.preprocessing["sha256"], runtime.preprocessing_sha256
    if here is not None and made != here:
        yield (
            f"agent {manifest.id} was made for the pre-processing {made[:12]}…, here it is "
            f"{here[:12]}…; train it again with this version"
        )
