"""The probe graph: what the features of an encoded candidate tell about every rung's agreement.

Contract ``adacompress.probe/1``: inputs ``original`` and ``candidate`` float32 (1, D), features of
the agent's engine; ``rung`` int64 (1,), which rung the candidate is; ``size_ratio`` float32 (1,),
its bytes over the reference's. Output ``agreement`` float32 (1, K) in [0, 1].
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_sdk.engine import check_graph, ladder_of, metadata_of, open_session
from edge_sdk.errors import EngineError

__all__ = ["SCHEMA", "OnnxProbe", "Probe"]

SCHEMA = "adacompress.probe/1"

Features = NDArray[np.float32]


class Probe(Protocol):
    """Anything that compares an encoding with its original; safe to call from several threads."""

    def run(
        self, original: Features, candidate: Features, rung: int, size_ratio: float
    ) -> NDArray[np.float32]:
        """Return the agreement of every rung, float32 (K,)."""


class OnnxProbe:
    """A probe graph on ONNX Runtime, on the CPU: it is two small matrix products.

    Args:
        model: the ONNX file's bytes, already verified against the manifest's hash.

    Raises:
        EngineError: the bytes are no probe of this contract.
        EnvironmentMissing: no ONNX Runtime is installed.
    """

    def __init__(self, model: bytes) -> None:
        check_graph(model)
        self._session = open_session(model)
        self.ladder = ladder_of(metadata_of(self._session), SCHEMA)
        self._dimension = _check_signature(self._session, len(self.ladder))

    def run(
        self, original: Features, candidate: Features, rung: int, size_ratio: float
    ) -> NDArray[np.float32]:
        """Return the agreement of every rung, float32 (K,).

        Args:
            original: (D,), features of the picture.
            candidate: (D,), features of its encoding.
            rung: index of the encoding's rung.
            size_ratio: its bytes over the reference's.

        Raises:
            EngineError: other features than the graph was made for, or the runtime failed.
        """
        if original.shape != candidate.shape or original.shape != (self._dimension,):
            raise EngineError(
                f"The probe compares {self._dimension} features, given {original.shape} and "
                f"{candidate.shape}; it belongs to another engine."
            )
        feeds = {
            "original": original[None],
            "candidate": candidate[None],
            "rung": np.array([rung], dtype=np.int64),
            "size_ratio": np.array([size_ratio], dtype=np.float32),
        }
        try:
            return np.asarray(self._session.run(["agreement"], feeds)[0][0])
        except Exception as error:  # the runtime raises its own unrelated classes
            raise EngineError(f"The probe failed: {error}") from error


def _check_signature(session: Any, rungs: int) -> int:
    """Return D, after checking inputs and output."""
    inputs = {one.name: one.shape for one in session.get_inputs()}
    outputs = {one.name: one.shape for one in session.get_outputs()}
    features = inputs.get("original", ())
    fits = len(features) == 2 and isinstance(features[1], int)
    wanted = {"original": features, "candidate": features, "rung": [1], "size_ratio": [1]}
    if inputs != wanted or not fits or outputs.get("agreement") != [1, rungs]:
        raise EngineError(
            f"The probe's inputs are {inputs} and its outputs {outputs}; with a ladder of {rungs} "
            f"they are not of {SCHEMA}. Export it again."
        )
    return int(features[1])
