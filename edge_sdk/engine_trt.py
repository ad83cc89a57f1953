"""TensorRT engines on the device that built them: found in its cache, checked, run.

``python -m export --trt`` builds them (see ``export.tensorrt``) into a folder of this machine,
under a key of everything that makes an engine unportable. An engine is native code in all but name,
so it is only ever taken from that folder, never from an agent's files or a bundle, and only if its
hash is the one that was noted when it was built. Nothing is built here: that takes minutes.

    engine = open_trt(model, store / "cache" / "tensorrt")     # model: the agent's ONNX
"""

from __future__ import annotations

import importlib
import logging
import math
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.cuda import Cuda
from edge_sdk.engine import Scores, check_images, ladder_of
from edge_sdk.errors import EngineError
from edge_sdk.gpu import Gpu, load_driver, visible_gpu
from model_store.errors import EnvironmentMissing
from model_store.files import read_json, sha256_bytes, to_json

__all__ = ["WORKSPACE", "TrtEngine", "cache_key", "open_trt", "plan_path", "requirements"]

#: Scratch memory that the builder may use, in bytes; part of the key.
WORKSPACE = 1 << 28

_log = logging.getLogger("edge_sdk.engine")


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


def cache_key(model: bytes, version: str, gpu: Gpu, batch: int = 1) -> str:
    """Return the hex key of an engine: the ONNX file, TensorRT, the GPU, the settings."""
    facts = {"onnx": sha256_bytes(model), "tensorrt": version, "gpu": asdict(gpu)}
    settings = {"workspace": WORKSPACE, "batch": batch}
    return sha256_bytes(to_json({**facts, **settings}).encode())[:24]


def plan_path(model: bytes, cache: Path, *, trt: Any, gpu: Gpu, batch: int = 1) -> Path:
    """Return where the engine for this machine is, or would be."""
    return cache / f"{cache_key(model, trt.__version__, gpu, batch)}.engine"


def open_trt(model: bytes, cache: Path, batch: int = 1) -> TrtEngine:
    """Open the engines that were built here for an ONNX file.

    Args:
        model: the ONNX file, verified; what the engine was built from.
        cache: this machine's folder of engines.
        batch: N, of an engine for several pictures at once, used if it is there.

    Raises:
        EnvironmentMissing: no GPU, no TensorRT, or nothing was built for this machine.
        EngineError: an engine was changed after it was built, or cannot be loaded.
    """
    trt, gpu = requirements()
    plans: dict[int, bytes] = {}
    facts: dict[str, Any] = {}
    for count in dict.fromkeys((1, batch)):
        path = plan_path(model, cache, trt=trt, gpu=gpu, batch=count)
        if path.is_file():
            plans[count], facts = _read(path)
    if 1 not in plans:
        raise EnvironmentMissing(
            f"no TensorRT {trt.__version__} engine for {gpu.name} is in {cache}; run `python -m "
            "export --trt --agent ID --store DIR` on this machine."
        )
    return TrtEngine(plans, facts["metadata"], trt=trt, cuda=Cuda(load_driver()))


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return an engine and its facts, after comparing its hash: before it is deserialised."""
    try:
        plan, facts = path.read_bytes(), read_json(path.with_suffix(".json"))
        expected, metadata = facts["sha256"], dict(facts["metadata"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"The engine {path} or its facts cannot be read ({error}).") from error
    if sha256_bytes(plan) != expected:
        raise EngineError(
            f"The engine {path} was changed after it was built; delete it and build it again."
        )
    return plan, {**facts, "metadata": metadata}


class TrtEngine:
    """An engine of ``adacompress.engine/1`` on TensorRT's own runtime; calls take turns.

    Args:
        plans: N to the serialised engine for N pictures; 1 has to be there.
        metadata: of the ONNX that they were built from.
        trt: the ``tensorrt`` module, 10.x or 11.x: what is used is the same in both.
        cuda: device memory and stream.

    Raises:
        EngineError: a plan cannot be loaded or does not keep the contract.
    """

    provider = "TensorRT"

    def __init__(
        self, plans: Mapping[int, bytes], metadata: Mapping[str, str], *, trt: Any, cuda: Any
    ) -> None:
        self.ladder = ladder_of(dict(metadata))
        self._cuda, self._lock = cuda, threading.Lock()  # one context, one thread at a time
        runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        # Largest first: a batch is run in as few calls as possible.
        self._plans = {
            count: _Plan(runtime, plans[count], trt, cuda) for count in sorted(plans, reverse=True)
        }
        shapes = self._plans[1].shapes
        image = shapes.get("image", ())
        rungs = shapes.get("q_values", (0,))[-1]
        if (
            len(image) != 4
            or image[0] != 1
            or "features" not in shapes
            or rungs != len(self.ladder)
        ):
            raise EngineError(f"The TensorRT engine has {shapes}; it does not keep the contract.")
        self.side = int(image[1])
        self.factored = {"agreement", "size_ratio"} <= shapes.keys()

    def run(self, images: NDArray[np.uint8]) -> Scores:
        """Score ``images``, uint8 (N, S, S, 3).

        Raises:
            EngineError: a wrong shape or dtype, or TensorRT failed.
        """
        check_images(images, self.side)
        rows: list[dict[str, NDArray[np.float32]]] = []
        with self._lock:
            self._cuda.use()
            done = 0
            while done < len(images):
                count = next(n for n in self._plans if n <= len(images) - done)
                rows.append(self._plans[count].run(images[done : done + count]))
                done += count
        names = [name for name in Scores.__dataclass_fields__ if name in rows[0]]
        return Scores(**{name: np.concatenate([row[name] for row in rows]) for name in names})


class _Plan:
    """One deserialised engine with its context and its device memory."""

    def __init__(self, runtime: Any, plan: bytes, trt: Any, cuda: Any) -> None:
        engine = runtime.deserialize_cuda_engine(plan)
        context = engine.create_execution_context() if engine is not None else None
        if context is None:
            raise EngineError(
                "TensorRT cannot load the engine, its log above says why; delete it and build it "
                "again with `python -m export --trt`."
            )
        self._engine, self._context, self._cuda = engine, context, cuda
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        self._dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        self._pointers = {}
        for name in names:
            size = math.prod(self.shapes[name]) * self._dtypes[name].itemsize
            self._pointers[name] = cuda.allocate(size)
            context.set_tensor_address(name, self._pointers[name])

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        given = np.ascontiguousarray(images)
        self._cuda.upload(self._pointers["image"], given)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise EngineError("TensorRT could not run the engine; its log says why.")
        outputs = {
            name: np.empty(shape, self._dtypes[name])
            for name, shape in self.shapes.items()
            if name != "image"
        }
        for name, output in outputs.items():
            self._cuda.download(output, self._pointers[name])
        self._cuda.wait()
        return {name: output.astype(np.float32, copy=False) for name, output in outputs.items()}
