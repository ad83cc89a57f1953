"""The error tree of the whole product.

    AdaCompressError              exit 1  anything this product raises on purpose
    ├── UsageError                exit 2  an argument, option or file that cannot be used as given
    ├── GateFailed                exit 3  a quality or parity gate said no; nothing was published
    ├── EnvironmentMissing        exit 4  a GPU, a runtime, a package, a writable folder is missing
    ├── StoreError                exit 5
    │   ├── AgentNotFound         the alias or id is not in the store
    │   ├── CorruptAgent          a file of an agent is missing or has another content
    │   ├── ManifestInvalid       a manifest that cannot be read
    │   ├── SchemaTooNew          a document of a later major version
    │   ├── BundleInvalid         a one-file agent that is not as ``pack`` writes it
    │   ├── UnsafeModel           an ONNX file that is not what an engine may be
    │   └── Untrusted             no signature of a trusted key
    ├── BackendError              exit 6  the cloud service or the way to it (``edge_sdk.errors``)
    └── BudgetReached             exit 7  the call or cost limit; what was paid for is kept

Every message is one sentence or two: what happened, the value seen, what is allowed, what to do
next. Higher floors add leaves to this tree, never a second root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "AdaCompressError",
    "AgentNotFound",
    "BackendError",
    "BudgetReached",
    "BundleInvalid",
    "CorruptAgent",
    "EnvironmentMissing",
    "GateFailed",
    "ManifestInvalid",
    "SchemaTooNew",
    "StoreError",
    "UnsafeModel",
    "Untrusted",
    "UsageError",
]


class AdaCompressError(Exception):
    """Root of every error that this product raises on purpose."""

    #: The process exit code that a command line ends with when this error reaches it.
    exit_code: ClassVar[int] = 1


class UsageError(AdaCompressError, ValueError):
    """An argument or an input file cannot be used as given."""

    exit_code = 2


class GateFailed(AdaCompressError):
    """A quality or parity gate failed, so nothing was published."""

    exit_code = 3


class EnvironmentMissing(AdaCompressError):
    """The machine lacks something that the request needs."""

    exit_code = 4


class StoreError(AdaCompressError):
    """The model store cannot do what was asked."""

    exit_code = 5


class AgentNotFound(StoreError, LookupError):
    """No agent has this id or alias; ``known`` lists what there is."""

    def __init__(self, reference: str, known: Sequence[str] = ()) -> None:
        self.reference = reference
        self.known = tuple(known)
        listed = ", ".join(self.known) if self.known else "nothing: the store is empty"
        super().__init__(f"No agent or alias named {reference!r} in the store; it holds {listed}.")


class CorruptAgent(StoreError):
    """A file of an agent is missing, or its content is not what the manifest says."""


class ManifestInvalid(StoreError, ValueError):
    """A manifest that is not valid ``adacompress.agent/1``."""


class SchemaTooNew(StoreError):
    """A document of a later major version than this code reads."""


class BundleInvalid(StoreError):
    """A one-file agent that is not as ``pack`` writes it; nothing of it was written."""


class UnsafeModel(StoreError):
    """An ONNX file that no session may be made of."""


class Untrusted(StoreError):
    """An agent without a signature of a trusted key, where trusted keys are configured."""


class BackendError(AdaCompressError):
    """The cloud service, or the way to it, failed.

    Args:
        message: one sentence or two, without keys.
        code: the service's own code, or "".
        said: the service's own message, without keys, or "".
        retry_after_s: seconds that the service asks to wait, or None.
    """

    exit_code = 6
    #: The same request may succeed a moment later.
    transient: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        code: str = "",
        said: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.said, self.retry_after_s = code, said, retry_after_s


class BudgetReached(AdaCompressError):
    """The allowed number of calls or dollars is spent; every paid answer was kept."""

    exit_code = 7
