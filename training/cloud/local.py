"""The services ``local:MODEL`` and ``local:CODEC``: a model in this very process, without HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from edge_sdk.backends import Spec, register
from edge_sdk.backends.base import Capabilities, Recognition
from edge_sdk.backends.limits import check_upload
from edge_sdk.errors import BackendRejected, ImageError
from training.cloud.coded import is_codec, open_codec
from training.cloud.models import Model, codecs_of, open_model

__all__ = ["LocalBackend", "open_local", "register_local"]


class LocalBackend:
    """The ``Backend`` of a model in this process; its request body is the file itself."""

    def __init__(self, model: Model, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = f"local:{model.name}"
        self.capabilities = Capabilities(
            max_bytes=20 * 1024 * 1024,
            min_side=1,
            max_side=16_384,
            formats=("JPEG", "WEBP"),
            boxes=model.boxes,
            tells_version=True,
            price_usd=0.0,
            codecs=codecs_of(model),
        )
        self._model, self._clock = model, clock

    def __repr__(self) -> str:
        return f"LocalBackend({self.name!r})"

    def recognize(self, jpeg: bytes) -> Recognition:
        """Return the model's labels, with their boxes if it is a detector.

        Raises:
            BackendRejected: the bytes are no JPEG or WebP file, or outside the limits.
        """
        size = check_upload(jpeg, self.capabilities, self.name)
        started = self._clock()
        try:
            labels = self._model.answer(jpeg)
        except ImageError as error:
            raise BackendRejected(f"{self.name} refuses the upload: {error}") from error
        latency = self._clock() - started
        version = self.model_version()
        return Recognition(labels, self.wire_size(jpeg), latency, version, size=size)

    def wire_size(self, jpeg: bytes) -> int:
        """Return the file's size in bytes: nothing is wrapped around it."""
        return len(jpeg)

    def model_version(self) -> str:
        """Return the version of the model that answers."""
        return self._model.version

    def close(self) -> None:
        """Do nothing; the model goes with the last reference to it."""


def open_local(spec: Spec) -> LocalBackend:
    """Open ``local:MODEL`` or ``local:CODEC``; this is also the package's entry point for them.

    CODEC is the folder of a feature codec: the classifier that it was trained for answers pictures,
    and its tail feature streams.
    """
    model = open_codec(Path(spec.path)) if is_codec(spec.path) else open_model(spec.path)
    return LocalBackend(model)


def register_local() -> None:
    """Let ``open_backend("local:MODEL")`` work where the package runs without being installed."""
    register("local", open_local)
