"""Build a TensorRT engine from an agent's ONNX, on the machine that will run it.

Written against TensorRT 10.13 and 11 (https://docs.nvidia.com/deeplearning/tensorrt/): networks are
strongly typed, precision comes from the ONNX graph. The engine goes to a cache under a key of
everything that makes it unportable; it is never part of what a store hands to another machine.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_sdk.gpu import Gpu, visible_gpu
from model_store.errors import EnvironmentMissing
from model_store.files import sha256_bytes, to_json, write_atomic, write_json

__all__ = ["build", "cache_key", "requirements"]

_log = logging.getLogger("export.tensorrt")

#: Scratch memory that the builder may use, in bytes.
WORKSPACE = 1 << 28


def requirements() -> tuple[Any, Gpu]:
    """Return the ``tensorrt`` module and the visible GPU.

    Raises:
        EnvironmentMissing: one of them is not there; the message says which.
    """
    gpu = visible_gpu()
    if gpu is None:
        raise EnvironmentMissing("no NVIDIA GPU is visible (driver or device not found).")
    try:
        return importlib.import_module("tensorrt"), gpu
    except ImportError as error:
        raise EnvironmentMissing(
            f"the tensorrt package cannot be imported ({error}); `pip install adacompress[trt]`."
        ) from error


def cache_key(model: bytes, version: str, gpu: Gpu) -> str:
    """Return the hex key of an engine: the ONNX file, TensorRT's version, the GPU, the settings."""
    facts = {"onnx": sha256_bytes(model), "tensorrt": version, "gpu": asdict(gpu)}
    return sha256_bytes(to_json({**facts, "workspace": WORKSPACE}).encode())[:24]


def build(model: bytes, cache: Path, *, trt: Any, gpu: Gpu) -> Path:
    """Return the path of the engine for this machine, building it if it is not cached.

    Args:
        model: ONNX of ``adacompress.engine/1``, already through the parity gate.
        cache: folder of this machine's engines.
        trt: the ``tensorrt`` module.
        gpu: the GPU it is built for.

    Raises:
        EnvironmentMissing: TensorRT cannot parse the graph or build the engine, or the cache
            cannot be written.
    """
    key = cache_key(model, trt.__version__, gpu)
    path = cache / f"{key}.engine"
    if path.is_file():
        return path
    _log.warning("building a TensorRT engine for %s; this can take minutes", gpu.name)
    plan = _plan(model, trt)
    facts = {"sha256": sha256_bytes(plan), "onnx_sha256": sha256_bytes(model)}
    try:
        write_json(
            path.with_suffix(".json"), {**facts, "tensorrt": trt.__version__, "gpu": asdict(gpu)}
        )
        write_atomic(path, plan)  # last: an engine in the cache has its facts beside it
    except OSError as error:
        raise EnvironmentMissing(f"The folder {cache} cannot be written ({error}).") from error
    return path


def _plan(model: bytes, trt: Any) -> bytes:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise EnvironmentMissing(f"TensorRT {trt.__version__} cannot parse the engine: {reasons}.")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EnvironmentMissing(
            f"TensorRT {trt.__version__} could not build the engine; its log above says why."
        )
    return bytes(plan)


def _network_flags(trt: Any) -> int:
    """Ask 10.x for a strongly typed network; 11 knows no other and dropped the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)
