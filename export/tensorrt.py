"""Build TensorRT engines from an agent's ONNX, on the machine that will run them.

Written against TensorRT 10.13 and 11 (https://docs.nvidia.com/deeplearning/tensorrt/): networks are
strongly typed, precision comes from the ONNX graph, fp32 or Q/DQ. Shapes are static: one engine for
one picture, one for N. An engine goes to a cache under a key of everything that makes it unportable
(``edge_sdk.engine_trt``); it is never part of what a store hands to another machine. It passes the
parity gate on the GPU, or it is deleted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge_sdk.assembly import VARIANTS
from edge_sdk.engine import NATIVE, SCHEMA, OnnxEngine
from edge_sdk.engine_trt import WORKSPACE, open_trt, plan_path, requirements
from edge_sdk.gpu import Gpu
from edge_sdk.preprocess import spec_sha256
from export.gate import ParityReport, check_unrounded, check_variant, fp32_agent, probe_set
from model_store import StoredAgent
from model_store.errors import EnvironmentMissing, GateFailed
from model_store.files import sha256_bytes, write_atomic, write_json

__all__ = ["BATCH", "build", "build_engines", "requirements"]

_log = logging.getLogger("export.tensorrt")

#: N of the second engine.
BATCH = 8


def build_engines(
    stored: StoredAgent, cache: Path, *, trt: Any, gpu: Gpu, batches: Sequence[int] = (1, BATCH)
) -> tuple[list[Path], ParityReport]:
    """Build an agent's engines for this machine and prove them on it.

    Args:
        stored: the agent; its Q/DQ graph for TensorRT is taken if it has one, else fp32.
        cache: this machine's folder of engines.
        trt: the ``tensorrt`` module.
        gpu: the GPU they are built for.
        batches: pictures at once, each N an engine of its own.

    Raises:
        UsageError: the engine was learnt in INT8, whose zero points TensorRT does not take.
        EnvironmentMissing: TensorRT cannot build them, or the cache cannot be written.
        GateFailed: they decide otherwise than the fp32 engine; they were deleted.
    """
    check_unrounded(stored, "--trt")
    role = VARIANTS[NATIVE]
    model = stored.file(role if stored.manifest.entries(role) else "engine")
    paths = [build(model, cache, trt=trt, gpu=gpu, batch=batch) for batch in batches]
    agent = fp32_agent(stored)
    try:
        engine = open_trt(model, cache, max(batches))
        parity = check_variant(agent, replace(agent, engine=engine), probe_set(stored))
    except GateFailed:
        for path in paths:
            path.unlink()
            path.with_suffix(".json").unlink()
        raise
    return paths, parity


def build(model: bytes, cache: Path, *, trt: Any, gpu: Gpu, batch: int = 1) -> Path:
    """Return the path of the engine for this machine, building it if it is not cached.

    Args:
        model: ONNX of ``adacompress.engine/1`` for one picture.
        cache: folder of this machine's engines.
        trt: the ``tensorrt`` module.
        gpu: the GPU it is built for.
        batch: pictures at once.

    Raises:
        EnvironmentMissing: TensorRT cannot parse the graph or build the engine, or the cache
            cannot be written.
    """
    path = plan_path(model, cache, trt=trt, gpu=gpu, batch=batch)
    if path.is_file():
        return path
    _log.warning(
        "building a TensorRT engine for %s, N = %d; this can take minutes", gpu.name, batch
    )
    timings = cache / f"timings-{trt.__version__}-{sha256_bytes(str(gpu).encode())[:12]}.bin"
    plan, timed = _plan(model if batch == 1 else _batched(model, batch), trt, _known(timings))
    facts = {
        "sha256": sha256_bytes(plan),
        "onnx_sha256": sha256_bytes(model),
        "tensorrt": trt.__version__,
        "gpu": asdict(gpu),
        "batch": batch,
        "metadata": _metadata(model),
    }
    try:
        write_atomic(timings, timed)
        write_json(path.with_suffix(".json"), facts)
        write_atomic(path, plan)  # last: an engine in the cache has its facts beside it
    except OSError as error:
        raise EnvironmentMissing(f"The folder {cache} cannot be written ({error}).") from error
    return path


def _metadata(model: bytes) -> dict[str, str]:
    """Return what an engine has to know and TensorRT does not keep."""
    ladder = [rung.as_dict() for rung in OnnxEngine(model).ladder]
    return {
        "schema": SCHEMA,
        "ladder": json.dumps(ladder, sort_keys=True),
        "preprocess_sha256": spec_sha256(),
    }


def _batched(model: bytes, batch: int) -> bytes:
    try:
        import onnx  # only for this: a device that serves one picture at a time does without
    except ImportError as error:
        raise EnvironmentMissing(
            f"an engine for {batch} pictures at once needs onnx ({error}); `pip install onnx`."
        ) from error
    from export.tidy import with_batch

    return bytes(with_batch(onnx.load_model_from_string(model), batch).SerializeToString())


def _known(timings: Path) -> bytes:
    """Return what earlier builds measured on this GPU, which makes this one faster."""
    with suppress(OSError):
        return timings.read_bytes()
    return b""


def _plan(model: bytes, trt: Any, timed: bytes) -> tuple[bytes, bytes]:
    """Return the serialised engine and the timing cache."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise EnvironmentMissing(f"TensorRT {trt.__version__} cannot parse the engine: {reasons}.")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    config.progress_monitor = _progress(trt)
    # A cache that does not match is ignored by TensorRT, not an error.
    config.set_timing_cache(config.create_timing_cache(timed), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EnvironmentMissing(
            f"TensorRT {trt.__version__} could not build the engine; its log above says why."
        )
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _network_flags(trt: Any) -> int:
    """Ask 10.x for a strongly typed network; 11 knows no other and dropped the flag."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _progress(trt: Any) -> Any:
    """Return a monitor that logs the builder's outer phases."""

    class Progress(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self._outer: set[str] = set()

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._outer.add(phase)
                _log.info("TensorRT: %s, %d steps", phase, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self._outer:
                _log.info("TensorRT: %s, step %d", phase, step + 1)
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            self._outer.discard(phase)

    return Progress()
