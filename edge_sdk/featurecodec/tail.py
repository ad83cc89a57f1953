"""The service's side of a codec: streams in, labels out, without a picture ever being there.

    tail = Tail.open("codec")
    tail.answer_many([stream])        # labels, or what is wrong with the stream
    tail.show(stream)                 # what was sent, made visible, if the codec has a viewer

The tail is the owner's own model, so it may have any operator that ONNX Runtime knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edge_sdk.backends.base import Label
from edge_sdk.classes import best_classes, class_names
from edge_sdk.engine import metadata_of, open_session
from edge_sdk.errors import EngineError, FeatureStreamError
from edge_sdk.featurecodec.artefact import Artefact
from edge_sdk.featurecodec.codec import Wire
from edge_sdk.view import View
from model_store.errors import UsageError

__all__ = ["CLASSIFIER", "TAIL", "VIEWER", "Tail", "Whole"]

#: Names of the server side's files in a codec's folder; the viewer and the whole classifier, which
#: answers pictures, need not be there.
TAIL, VIEWER, CLASSIFIER = "tail.onnx", "viewer.onnx", "classifier.onnx"

Labels = tuple[Label, ...]


class Whole:
    """A classifier as it was before it was cut: views of pictures in, labels out. Thread-safe.

    Args:
        model: ONNX, ``image`` uint8 (N, S, S, 3) to ``scores`` (N, classes) before softmax, the
            names of the classes in its metadata.
        view: how a picture becomes its input.
        threads: of the runtime.

    Raises:
        EngineError: it is something else.
        EnvironmentMissing: no ONNX Runtime is installed.
    """

    def __init__(self, model: bytes, view: View, *, threads: int = 1) -> None:
        self.view = view
        self._session: Any = open_session(model, threads=threads)
        _check(self._session, "classifier", {"image": ("uint8", [view.side, view.side, 3])})
        self.names = class_names(metadata_of(self._session))
        nothing = np.zeros((view.side, view.side, 3), np.uint8)
        _check_scores("classifier", self.names, 1, self._scores(nothing))

    def answer(self, pixels: npt.NDArray[np.uint8]) -> Labels:
        """Return the best labels of what ``view`` made of a picture, uint8 (S, S, 3)."""
        return best_classes(self.names, self._scores(pixels)[0])

    def _scores(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        feeds = {"image": pixels[None]}
        scores: npt.NDArray[np.float32] = _run(self._session, "classifier", "scores", feeds)
        return scores


class Tail:
    """A codec's server side; safe to call from several threads.

    Args:
        wire: what both sides share.
        tail: ONNX, ``integers`` int8 (N, C, H, W) and ``rate`` int64 (N,) to ``scores``
            (N, classes) before softmax, the names of the classes in its metadata.
        viewer: ONNX of the same inputs to ``image`` uint8 (N, S', S', 3), or None.
        threads: of the runtime.

    Attributes:
        id: of the codec.
        names: of the classes, by number.

    Raises:
        EngineError: a graph is none of ``adacompress.codec/1``, or another codec's.
        EnvironmentMissing: no ONNX Runtime is installed.
    """

    def __init__(
        self, wire: Wire, tail: bytes, viewer: bytes | None = None, *, threads: int = 1
    ) -> None:
        self.id, self._wire = wire.id, wire
        self._viewer: Any = None
        inputs = {"integers": ("int8", [*wire.shape]), "rate": ("int64", [])}
        self._tail: Any = open_session(tail, threads=threads)
        _check(self._tail, "tail", inputs)
        self.names = class_names(metadata_of(self._tail))
        nothing = (0, np.zeros(wire.shape, np.int8))
        for count in (1, 2):  # a graph may say that N is open and compute with one
            _check_scores("tail", self.names, count, self._scores([nothing] * count))
        if viewer is not None:
            self._viewer = open_session(viewer, threads=threads)
            _check(self._viewer, "viewer", inputs)

    def __repr__(self) -> str:
        return f"Tail({self.id!r})"

    @classmethod
    def open(cls, folder: str | Path, *, threads: int = 1) -> Self:
        """Open a codec's folder.

        Raises:
            UsageError: there is no codec in it, or its server side is missing.
            CorruptAgent, ManifestInvalid, SchemaTooNew, EngineError: see :meth:`Artefact.open`.
            EnvironmentMissing: no ONNX Runtime is installed.
        """
        folder = Path(folder)
        wire = Wire(Artefact.open(folder))
        if not (folder / TAIL).is_file():
            raise UsageError(
                f"The codec in {folder} has no {TAIL}: it is a device's copy. Name the folder that "
                "`python -m training codec` wrote."
            )
        viewer = folder / VIEWER
        shown = viewer.read_bytes() if viewer.is_file() else None
        return cls(wire, (folder / TAIL).read_bytes(), shown, threads=threads)

    @property
    def shows(self) -> bool:
        """Whether there is a viewer."""
        return self._viewer is not None

    def answer(self, stream: bytes) -> Labels:
        """Return the best labels of one stream.

        Raises:
            FeatureStreamError: it is none of this codec's.
        """
        (labels,) = self.answer_many([stream])
        if isinstance(labels, FeatureStreamError):
            raise labels
        return labels

    def answer_many(self, streams: Sequence[bytes]) -> list[Labels | FeatureStreamError]:
        """Answer streams in one run; an error stands in its stream's place."""
        decoded = [self._decoded(stream) for stream in streams]
        good = [one for one in decoded if not isinstance(one, FeatureStreamError)]
        labels = iter(self.answer_integers(good))
        return [each if isinstance(each, FeatureStreamError) else next(labels) for each in decoded]

    def answer_integers(self, received: Sequence[tuple[int, npt.NDArray[np.int8]]]) -> list[Labels]:
        """Return the labels of integers (C, H, W) with the number of their rate."""
        if not received:
            return []
        return [best_classes(self.names, each) for each in self._scores(received)]

    def show(self, stream: bytes) -> npt.NDArray[np.uint8]:
        """Return what a stream tells of its picture, uint8 (S', S', 3).

        Raises:
            FeatureStreamError: it is none of this codec's.
            UsageError: the codec has no viewer.
        """
        received = self._wire.decode(stream)
        if self._viewer is None:
            raise UsageError(f"Codec {self.id} has no viewer; train it with one.")
        image: npt.NDArray[np.uint8] = _run(self._viewer, "viewer", "image", _feeds([received]))[0]
        return image

    def _scores(
        self, received: Sequence[tuple[int, npt.NDArray[np.int8]]]
    ) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = _run(self._tail, "tail", "scores", _feeds(received))
        return scores

    def _decoded(self, stream: bytes) -> tuple[int, npt.NDArray[np.int8]] | FeatureStreamError:
        try:
            return self._wire.decode(stream)
        except FeatureStreamError as error:
            return error


def _feeds(received: Sequence[tuple[int, npt.NDArray[np.int8]]]) -> dict[str, Any]:
    rates, integers = zip(*received, strict=True)
    return {"integers": np.stack(integers), "rate": np.array(rates, np.int64)}


def _run(session: Any, what: str, output: str, feeds: Mapping[str, Any]) -> Any:
    try:
        return session.run([output], feeds)[0]
    except Exception as error:  # the runtime raises its own unrelated classes
        raise EngineError(f"The codec's {what} failed: {error}") from error


def _check_scores(
    what: str, names: Sequence[str], count: int, scores: npt.NDArray[np.float32]
) -> None:
    if scores.shape != (count, len(names)):
        raise EngineError(
            f"The codec's {what} gives scores {scores.shape} for {count} picture(s); it names "
            f"{len(names)} classes. Export the codec again."
        )


def _check(session: Any, what: str, inputs: Mapping[str, tuple[str, list[int]]]) -> None:
    """Check the inputs' types and shapes, all but N, which has to be open."""
    found = {one.name: (one.type, list(one.shape)) for one in session.get_inputs()}
    wanted = {name: (f"tensor({kind})", shape) for name, (kind, shape) in inputs.items()}
    fits = found.keys() == wanted.keys() and all(
        found[name] == (kind, [found[name][1][0], *shape])
        and not isinstance(found[name][1][0], int)
        for name, (kind, shape) in wanted.items()
    )
    if not fits:
        raise EngineError(
            f"The codec's {what} takes {found}; it has to take {wanted}, each with an open number "
            "of pictures before that shape. Export the codec again."
        )
