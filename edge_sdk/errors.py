"""What can go wrong on a device, as leaves of the product's one error tree.

UsageError
└── ImageError               a picture that cannot be read, or that no rung can encode
    └── FeatureStreamError   a feature stream that is damaged, hostile or another codec's
StoreError
└── EngineError              an engine that cannot be loaded or does not keep its contract
EnvironmentMissing
└── ProviderMissing          ONNX Runtime gave another execution provider than asked for
BackendError
├── BackendUnavailable       connection, time-out, 5xx, open circuit: try again later
├── BackendThrottled         the service's rate limit
│   └── BackendQuota         the account's quota; waiting a moment does not help
├── BackendAuth              missing, wrong or expired keys
├── BackendRejected          the service refuses this picture (format, sides)
│   └── BackendTooLarge      too many bytes or pixels
└── BackendProtocol          an answer that is not of the service's dialect
AdaCompressError
├── ClosedError              a client used after ``close``
└── DroppedError             a submitted picture that was given up; ``reason`` says why
"""

from __future__ import annotations

from model_store.errors import (
    AdaCompressError,
    BackendError,
    EnvironmentMissing,
    StoreError,
    UsageError,
)

__all__ = [
    "BackendAuth",
    "BackendProtocol",
    "BackendQuota",
    "BackendRejected",
    "BackendThrottled",
    "BackendTooLarge",
    "BackendUnavailable",
    "ClosedError",
    "DroppedError",
    "EngineError",
    "FeatureStreamError",
    "ImageError",
    "ProviderMissing",
]


class ImageError(UsageError):
    """A picture that cannot be read, or that no rung can encode."""


class FeatureStreamError(ImageError):
    """A feature stream that is damaged, hostile or another codec's; nothing was decoded."""


class EngineError(StoreError):
    """An engine that cannot be loaded, or that does not keep ``adacompress.engine/1``."""


class ProviderMissing(EnvironmentMissing):
    """ONNX Runtime runs on another execution provider than the one asked for."""


class BackendUnavailable(BackendError, ConnectionError):
    """The service could not be reached or failed on its side; trying later may help."""

    transient = True


class BackendThrottled(BackendError):
    """The service's rate limit is reached; trying again slower helps."""

    transient = True


class BackendQuota(BackendThrottled):
    """The account's quota is spent; nothing but time or money helps."""

    transient = False


class BackendAuth(BackendError, PermissionError):
    """The service does not accept the keys, or there are none."""


class BackendRejected(BackendError, ValueError):
    """The service refuses this picture; sending it again will not help."""


class BackendTooLarge(BackendRejected):
    """The picture has more bytes or pixels than the service accepts."""


class BackendProtocol(BackendError):
    """The service answered something that is not of its dialect."""


class ClosedError(AdaCompressError, RuntimeError):
    """A client was used after ``close``."""


class DroppedError(AdaCompressError):
    """A submitted picture was given up before it was answered; ``reason`` is what is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
