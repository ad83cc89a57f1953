"""A converted model in ONNX Runtime on the CPU: pictures in, arrays and class names out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.classes import NAMES_KEY, class_names
from edge_sdk.engine import metadata_of
from model_store.errors import EnvironmentMissing

__all__ = ["NAMES_KEY", "Runtime"]


class Runtime:
    """Runs a file that ``training.cloud.convert`` wrote; safe to call from several threads.

    Attributes:
        names: of the classes, by number.
    """

    def __init__(self, onnx: Path) -> None:
        self._session = _session(onnx)
        self.names = class_names(metadata_of(self._session))

    def run(self, pictures: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Return the outputs for pictures (N, S, S, 3); each has N as its first axis."""
        outputs: list[npt.NDArray[np.float32]] = self._session.run(None, {"image": pictures})
        return outputs


def _session(onnx: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentMissing(
            "The local cloud needs ONNX Runtime: pip install 'adacompress[train]'."
        ) from error
    options = onnxruntime.SessionOptions()
    # One thread per request: requests come in parallel, and results do not depend on the machine.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
