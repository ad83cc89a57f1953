"""The feature codec at work: a picture to integers, integers to a stream, and back to integers.

codec = FeatureCodec.open("codec")
integers = codec.integers(picture)      # one run of the device side: all rates at once
stream = codec.encode(integers, 2)
rate, received = codec.decode(stream)   # what the service's tail gets, bit for bit
"""

from __future__ import annotations

import json
import math
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_sdk.engine import check_graph, metadata_of, open_session
from edge_sdk.errors import EngineError, FeatureStreamError
from edge_sdk.featurecodec.artefact import SCHEMA, Artefact, Source, encoder_metadata
from edge_sdk.featurecodec.bitstream import OVERHEAD, Stream
from edge_sdk.view import View
from model_store.errors import UsageError

__all__ = ["FeatureCodec", "Wire"]

Integers = npt.NDArray[np.int8]

#: A symbol's table gives it 16 bits at most; what the coder rounds is less than one. It ends within
#: a word.
_MOST_BITS, _END = 17, 4


class Wire:
    """What device and service share: integers of a rate, and their stream. Thread-safe.

    Attributes:
        id: 16 hexadecimal digits.
        rates: R, cheapest first.
        view: what is looked at of a picture.
        shape: (C, H, W) of the integers.
        max_bytes: of a stream.
    """

    def __init__(self, artefact: Artefact) -> None:
        self.id, self.rates = artefact.id, artefact.rates
        self.view: View = artefact.view
        self.shape = artefact.shape
        self.max_bytes = OVERHEAD + _END + math.prod(self.shape) * _MOST_BITS // 8
        self._entropy = artefact.entropy

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def encode(self, integers: Integers, rate: int) -> bytes:
        """Return the stream of one rate.

        Args:
            integers: (R, C, H, W), of all rates.
            rate: which of them.

        Raises:
            UsageError: there is no such rate, or the integers are not this codec's.
        """
        if integers.shape != (self.rates, *self.shape):
            raise UsageError(
                f"The integers are {integers.shape}; those of codec {self.id} are "
                f"{(self.rates, *self.shape)}."
            )
        if not 0 <= rate < self.rates:
            raise UsageError(f"There is no rate {rate}; the codec has 0 to {self.rates - 1}.")
        payload = self._entropy.encode(integers[rate], rate)
        return Stream(self.id[:8], rate, payload).pack()

    def sizes(self, integers: Integers) -> list[int]:
        """Return the bytes of every rate's stream, of integers (R, C, H, W)."""
        return [len(self.encode(integers, rate)) for rate in range(self.rates)]

    def decode(self, stream: bytes) -> tuple[int, Integers]:
        """Return the rate and the integers (C, H, W) of a stream from anywhere.

        Raises:
            FeatureStreamError: it is none, damaged, of another codec, or nonsense.
        """
        found = Stream.parse(stream, self.max_bytes)
        if found.codec != self.id[:8]:
            raise FeatureStreamError(
                f"The feature stream is of codec {found.codec}…; here is {self.id}. Device and "
                "service need the same codec."
            )
        if found.rate >= self.rates:
            raise FeatureStreamError(
                f"The feature stream has the rate {found.rate}; codec {self.id} has 0 to "
                f"{self.rates - 1}."
            )
        return found.rate, self._entropy.decode(found.payload, found.rate, self.shape)


class FeatureCodec(Wire):
    """The device side too: the network that makes the integers, on ONNX Runtime.

    Args:
        artefact: the codec's files.
        threads: of the runtime.
        int8: take the INT8 form where the codec has one; it passed a gate on its answers, and both
            give integers that the service decodes exactly.

    Raises:
        EngineError: the graph is none of ``adacompress.codec/1``, or not this codec's.
        EnvironmentMissing: no ONNX Runtime is installed.
    """

    def __init__(self, artefact: Artefact, *, threads: int = 1, int8: bool = True) -> None:
        super().__init__(artefact)
        graph = artefact.int8 if int8 and artefact.int8 is not None else artefact.encoder
        self._limit = artefact.entropy.limit
        check_graph(graph)
        self._session: Any = open_session(graph, threads=threads)
        self._check_metadata()
        self._check_signature()

    @classmethod
    def open(cls, source: Source, *, threads: int = 1, int8: bool = True) -> Self:
        """Open a codec's folder, or its files' bytes by their roles.

        Raises:
            UsageError, CorruptAgent, ManifestInvalid, SchemaTooNew, EngineError: see
                :meth:`Artefact.open`.
            EnvironmentMissing: no ONNX Runtime is installed.
        """
        return cls(Artefact.open(source), threads=threads, int8=int8)

    def integers(self, image: Image.Image) -> Integers:
        """Return the integers (R, C, H, W) of an RGB picture, for all rates.

        Raises:
            UsageError: the picture is not RGB.
            EngineError: the runtime failed, or an integer is beyond the codec's limit.
        """
        if image.mode != "RGB":
            raise UsageError(f"Features are made from RGB, not {image.mode!r}; use reading.load.")
        return self.of_pixels(self.view.pixels(image))

    def of_pixels(self, pixels: npt.NDArray[np.uint8]) -> Integers:
        """Return the integers (R, C, H, W) of what ``view`` made of a picture, uint8 (S, S, 3)."""
        try:
            (integers,) = self._session.run(["integers"], {"view": pixels[None]})
        except Exception as error:  # the runtime raises its own unrelated classes
            raise EngineError(f"The codec's encoder failed: {error}") from error
        if np.abs(integers.astype(np.int16)).max() > self._limit:
            raise EngineError(f"The codec's encoder gave integers beyond ±{self._limit}.")
        made: Integers = integers
        return made

    def _check_metadata(self) -> None:
        found = metadata_of(self._session)
        for name, text in encoder_metadata(self.view, self.shape).items():
            if not _same(found.get(name, ""), text):
                raise EngineError(
                    f"The codec's encoder says {name} {found.get(name, '')[:200]!r}, but its "
                    f"codec.json {text!r} ({SCHEMA}); export the codec again."
                )

    def _check_signature(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = [(one.name, one.type, list(one.shape)) for one in (*inputs, *outputs)]
        side = self.view.side
        wanted = [
            ("view", "tensor(uint8)", [1, side, side, 3]),
            ("integers", "tensor(int8)", [self.rates, *self.shape]),
        ]
        if found != wanted:
            raise EngineError(f"The codec's encoder has {found}; its codec.json says {wanted}.")


def _same(found: str, wanted: str) -> bool:
    """Compare two texts, as JSON where they are that: spaces and order do not matter."""
    try:
        return bool(json.loads(found) == json.loads(wanted))
    except (ValueError, RecursionError):
        return found == wanted
