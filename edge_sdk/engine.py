"""Engines: the fused graph (pre-processing + prefix + Q-head) that scores a picture's rungs.

Contract ``adacompress.engine/1``: input ``image`` uint8 (N, S, S, 3); outputs ``features`` (N, D),
``q_values`` (N, K) and, for a factored head, ``agreement`` and ``size_ratio`` (N, K). The graph's
metadata carries the schema, the ladder and the hash of the pre-processing spec.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import EngineError, ProviderMissing
from edge_sdk.ladder import Ladder, ladder_from_dicts
from edge_sdk.preprocess import spec_sha256
from model_store import onnx_safety
from model_store.errors import EnvironmentMissing, UnsafeModel, UsageError
from model_store.files import sha256_bytes

__all__ = [
    "NATIVE",
    "PROVIDERS",
    "SCHEMA",
    "Engine",
    "OnnxEngine",
    "Scores",
    "check_graph",
    "check_images",
    "ladder_of",
    "metadata_of",
    "open_session",
]

SCHEMA = "adacompress.engine/1"

#: Execution providers by the short names used in options and configuration.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

#: The option's name for TensorRT's own runtime, see ``edge_sdk.engine_trt``.
NATIVE = "trt"

_log = logging.getLogger("edge_sdk.engine")


@dataclass(frozen=True, slots=True)
class Scores:
    """What an engine says about N pictures and K rungs.

    Attributes:
        features: float32 (N, D), pooled prefix activations.
        q_values: float32 (N, K), expected reward of each rung.
        agreement: float32 (N, K) in [0, 1], or None for a head that is not factored.
        size_ratio: float32 (N, K) > 0, compressed over reference bytes, or None.
    """

    features: NDArray[np.float32]
    q_values: NDArray[np.float32]
    agreement: NDArray[np.float32] | None = None
    size_ratio: NDArray[np.float32] | None = None


class Engine(Protocol):
    """Anything that scores pictures; safe to call from several threads."""

    side: int
    ladder: Ladder
    provider: str
    #: Whether agreement and size are predicted apart, so that a trade-off can be applied.
    factored: bool

    def run(self, images: NDArray[np.uint8]) -> Scores:
        """Score ``images``, uint8 (N, S, S, 3)."""


class OnnxEngine:
    """An engine on ONNX Runtime.

    Args:
        model: the ONNX file's bytes, already verified against the manifest's hash.
        provider: ``cpu``, ``cuda`` or ``tensorrt``, which is ONNX Runtime's own TensorRT provider;
            ``edge_sdk.engine_trt`` runs TensorRT without ONNX Runtime.
        strict: raise if ONNX Runtime gives another provider than asked for (it falls back to the
            CPU silently); otherwise one warning is logged and ``provider`` tells the truth.
        threads: intra-op threads; the runtime's own default would take every core of the host.
        cache: this machine's folder for what the provider ``tensorrt`` builds.

    Raises:
        EngineError: the bytes are no engine of this contract.
        ProviderMissing: ``strict`` and another provider.
        EnvironmentMissing: no ONNX Runtime is installed.
    """

    def __init__(
        self,
        model: bytes,
        *,
        provider: str = "cpu",
        strict: bool = False,
        threads: int = 1,
        cache: Path | None = None,
    ) -> None:
        check_graph(model)
        self._session = open_session(model, provider, threads, cache)
        self.provider = _check_provider(self._session, provider, strict)
        metadata = metadata_of(self._session)
        self.ladder = ladder_of(metadata)
        self.side = _check_signature(self._session, len(self.ladder))
        there = {output.name for output in self._session.get_outputs()}
        self.factored = {"agreement", "size_ratio"} <= there
        self._outputs = [name for name in Scores.__dataclass_fields__ if name in there]

    def run(self, images: NDArray[np.uint8]) -> Scores:
        """Score ``images``, uint8 (N, S, S, 3); pictures are run one by one where N is fixed to 1.

        Raises:
            EngineError: a wrong shape or dtype, or the runtime failed.
        """
        check_images(images, self.side)
        try:
            rows = [self._session.run(self._outputs, {"image": image[None]}) for image in images]
        except Exception as error:  # the runtime raises its own unrelated classes
            raise EngineError(f"The engine failed on {self.provider}: {error}") from error
        stacked = [np.concatenate(column) for column in zip(*rows, strict=True)]
        return Scores(**dict(zip(self._outputs, stacked, strict=True)))


def check_images(images: NDArray[np.uint8], side: int) -> None:
    """Check an engine's input.

    Raises:
        EngineError: it is not uint8 (N > 0, side, side, 3).
    """
    if images.dtype != np.uint8 or not (len(images) and images.shape[1:] == (side, side, 3)):
        raise EngineError(
            f"The engine takes uint8 (N > 0, {side}, {side}, 3), not {images.dtype} "
            f"{images.shape}; make the input with edge_sdk.preprocess.to_input."
        )


def check_graph(model: bytes) -> None:
    """Look at an ONNX file before a runtime does, see ``model_store.onnx_safety``.

    Raises:
        EngineError: it is no ONNX file, or more than an engine needs is in it.
    """
    try:
        onnx_safety.check(model)
    except UnsafeModel as error:
        raise EngineError(str(error)) from error


def open_session(
    model: bytes, provider: str = "cpu", threads: int = 1, cache: Path | None = None
) -> Any:
    """Return an ONNX Runtime session that says nothing by itself and takes ``threads`` cores.

    Args:
        model: the ONNX file's bytes.
        provider: one of ``PROVIDERS``.
        threads: intra-op threads.
        cache: this machine's folder for what the provider ``tensorrt`` builds, else nothing is
            kept and every start builds for minutes.

    Raises:
        UsageError, EnvironmentMissing, EngineError: see :class:`OnnxEngine`.
    """
    if provider not in PROVIDERS:
        raise UsageError(f"Provider {provider!r} is unknown; allowed are {', '.join(PROVIDERS)}.")
    try:
        import onnxruntime  # 150 ms and 60 MB: only when an engine is really loaded
    except ImportError as error:
        raise EnvironmentMissing(
            "No ONNX Runtime is installed; run `pip install adacompress[cpu]` (or [gpu])."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # provider fall-backs are reported by us, once
    options.enable_mem_pattern = False  # plans one large block that is never given back
    wanted = [PROVIDERS[provider]]
    if provider != "cpu":
        wanted.append(PROVIDERS["cpu"])
        getattr(onnxruntime, "preload_dlls", lambda: None)()
    # Naming a provider that this build lacks is a warning there and a sentence here.
    wanted = [name for name in wanted if name in onnxruntime.get_available_providers()]
    settings = [_settings(name, model, onnxruntime.__version__, cache) for name in wanted]
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=wanted, provider_options=settings
        )
    except Exception as error:  # the runtime raises its own unrelated classes
        raise EngineError(
            f"The graph cannot be loaded ({len(model)} bytes: {error}). Load another version, or "
            "export it again."
        ) from error
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None  # kept for a fall-back that is not used here
    return session


def _settings(provider: str, model: bytes, version: str, cache: Path | None) -> dict[str, str]:
    """Return a provider's options: where TensorRT keeps what it built, a folder for each model.

    ONNX Runtime does not notice that a kept engine is another version's or model's; TensorRT's own
    version and the GPU are in the names that it gives.
    """
    if provider != PROVIDERS["tensorrt"] or cache is None:
        return {}
    folder = str(cache / f"ort-{version}-{sha256_bytes(model)[:16]}")
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": folder,
    }


def _check_provider(session: Any, provider: str, strict: bool) -> str:
    got, wanted = session.get_providers()[0], PROVIDERS[provider]
    if got != wanted:
        message = f"ONNX Runtime runs on {got} although {wanted} was asked for"
        if strict:
            raise ProviderMissing(f"{message}; install its libraries or ask for provider 'cpu'.")
        _log.warning("%s; see `python -m edge_sdk doctor`.", message)
    return str(got)


def metadata_of(session: Any) -> dict[str, str]:
    """Return what a session's file says of itself.

    Raises:
        EngineError: it is no text.
    """
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise EngineError(f"The graph's metadata is no text ({error}); export it again.") from error


def ladder_of(metadata: dict[str, str], wanted: str = SCHEMA) -> Ladder:
    """Return the ladder in a graph's metadata, after checking its schema and pre-processing.

    Raises:
        EngineError: it is of another schema or pre-processing, or has no ladder.
    """
    schema = metadata.get("schema", "")
    if schema != wanted:
        raise EngineError(f"The graph's schema is {schema!r}; this code runs {wanted!r}.")
    if metadata.get("preprocess_sha256") != spec_sha256():
        raise EngineError(
            "The graph was made for another pre-processing "
            f"({metadata.get('preprocess_sha256', 'none')[:12]}…, here {spec_sha256()[:12]}…); "
            "train it again with this version."
        )
    try:
        return ladder_from_dicts(json.loads(metadata["ladder"]))
    except (KeyError, ValueError) as error:
        raise EngineError(f"The graph's ladder cannot be read: {error}.") from error


def _check_signature(session: Any, rungs: int) -> int:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shapes = {output.name: output.shape for output in outputs}
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].name == "image" else None
    if shape is None or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise EngineError(f"The engine's input is {[(i.name, i.shape) for i in inputs]}.")
    one_by_one = shape[0] == 1 or not isinstance(shape[0], int)
    if inputs[0].type != "tensor(uint8)" or not isinstance(shape[1], int) or not one_by_one:
        raise EngineError(
            f"The engine's input is {inputs[0].type} {shape}; it must be uint8, static, N = 1."
        )
    for name in ("features", "q_values"):
        if name not in shapes:
            raise EngineError(f"The engine lacks the output {name!r}; it has {sorted(shapes)}.")
    for name in {"q_values", "agreement", "size_ratio"} & set(shapes):
        if shapes[name][-1] != rungs:
            raise EngineError(f"Output {name!r} is {shapes[name]}, but the ladder has {rungs}.")
    return int(shape[1])
