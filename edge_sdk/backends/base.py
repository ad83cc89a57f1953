"""What a cloud vision service looks like from here: one call, one answer, declared limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

__all__ = ["Backend", "Capabilities", "Label", "Recognition"]


class Label(NamedTuple):
    """One label of an answer; the score is normalised to [0, 1]."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a service accepts; a ladder is cut to it before anything is uploaded.

    Attributes:
        max_bytes: largest JPEG file in bytes, after undoing the request's own encoding.
        min_side: shortest allowed side in pixels.
        max_side: longest allowed side in pixels.
    """

    max_bytes: int
    min_side: int
    max_side: int


@dataclass(frozen=True, slots=True)
class Recognition:
    """The service's answer to one upload.

    Attributes:
        labels: best first; empty is a valid answer.
        wire_bytes: size of the request body that really left, encodings included.
        latency_s: seconds from sending to the parsed answer.
        model_version: what the service says about its model, or None.
        request_id: the service's own id of this request, or "".
    """

    labels: tuple[Label, ...]
    wire_bytes: int
    latency_s: float = 0.0
    model_version: str | None = None
    request_id: str = ""


@runtime_checkable
class Backend(Protocol):
    """A black-box vision service. Implementations are safe to call from several threads."""

    #: Stable identity without keys, as in ``baidu://127.0.0.1:8000``; the ledger's key.
    name: str
    capabilities: Capabilities

    def recognize(self, jpeg: bytes) -> Recognition:
        """Upload one JPEG file and return the labels.

        Raises:
            BackendError: one of the leaves in ``edge_sdk.errors``.
        """

    def wire_size(self, jpeg: bytes) -> int:
        """Return the request body's size in bytes for this file, without sending it."""

    def close(self) -> None:
        """Release connections; calling it twice is fine."""
