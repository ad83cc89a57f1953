"""Pretrained models behind the local cloud: classifiers and a detector of ``training.cloud.zoo``.

    >>> from training.cloud.models import open_model                # doctest: +SKIP
    >>> open_model("efficientnet-lite0").answer(jpeg)[0]            # doctest: +SKIP
    Label(name='tabby', score=0.62, box=None)

Serving needs ONNX Runtime, numpy and Pillow; torch is imported once per model, to convert it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_sdk import reading
from edge_sdk.backends.base import Label
from edge_sdk.classes import best_classes
from edge_sdk.errors import ImageError
from model_store.errors import UsageError
from model_store.files import sha256_file
from training.assets import cache_dir, find
from training.cloud.answers import objects
from training.cloud.runtime import Runtime
from training.cloud.zoo import MODELS, Entry

__all__ = ["Model", "OnnxModel", "cached_onnx", "codecs_of", "open_model"]

#: Part of the cached files' names; another one makes every model be converted again.
_FORMAT = "v2"


class Model(Protocol):
    """What the local cloud serves; safe to call from several threads."""

    #: The architecture's name.
    name: str
    #: Changes whenever answers may change.
    version: str
    #: Labels have boxes.
    boxes: bool

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        """Return the labels of one picture, best first.

        Raises:
            ImageError: the bytes are no picture.
        """

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        """Return what ``answer`` would for each picture; an error stands in its picture's place."""


def codecs_of(model: Model) -> tuple[str, ...]:
    """Return the ids of the feature codecs that a model reads; most read pictures alone."""
    return tuple(getattr(model, "codecs", ()))


class OnnxModel:
    """A converted model in ONNX Runtime on the CPU; safe to call from several threads.

    A picture gets the same labels on every call, whatever is in the batch with it.

    Args:
        name: the architecture's name.
        version: the name and the beginning of the weights' hash.
        entry: what it is.
        onnx: a file that ``training.cloud.convert`` wrote.

    Attributes:
        names: of its classes.
    """

    def __init__(self, name: str, version: str, entry: Entry, onnx: Path) -> None:
        self.name, self.version, self.boxes = name, version, entry.boxes
        self._input, self._runtime = entry.input, Runtime(onnx)
        self.names = self._runtime.names

    def __repr__(self) -> str:
        return f"OnnxModel({self.version!r})"

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        """Return the best labels of one picture: five of a classifier, any number of a detector.

        Raises:
            ImageError: the bytes are no picture.
        """
        (labels,) = self.answer_many([jpeg])
        if isinstance(labels, ImageError):
            raise labels
        return labels

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        """Answer a batch: decoded here one after the other, then run through the network at once.

        The memory it takes grows with the batch.
        """
        pictures = [self._read(jpeg) for jpeg in jpegs]
        good = [picture for picture in pictures if not isinstance(picture, ImageError)]
        labels = iter(self._labels(good))
        return [each if isinstance(each, ImageError) else next(labels) for each in pictures]

    def _read(self, jpeg: bytes) -> tuple[npt.NDArray[np.uint8], tuple[int, int]] | ImageError:
        """Return the network's view of a picture and the picture's (width, height)."""
        try:
            image = reading.load(jpeg).image
        except ImageError as error:
            return error
        return self._input.pixels(image), image.size

    def _labels(
        self, pictures: Sequence[tuple[npt.NDArray[np.uint8], tuple[int, int]]]
    ) -> Iterable[tuple[Label, ...]]:
        if not pictures:
            return
        names = self._runtime.names
        outputs = self._runtime.run(np.stack([pixels for pixels, _ in pictures]))
        if self.boxes:
            for (_, size), boxes, scores in zip(pictures, *outputs, strict=True):
                yield objects(names, boxes, scores, size)
        else:
            yield from (best_classes(names, scores) for scores in outputs[0])


def open_model(name: str) -> OnnxModel:
    """Open a model of ``training.cloud.zoo.MODELS``; convert it first if it is not in the cache.

    Raises:
        UsageError: there is no such model.
        EnvironmentMissing: its weights are not installed.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"There is no model {name!r}; known: {', '.join(MODELS)}.{hint}")
    onnx, sha256 = cached_onnx(name)
    return OnnxModel(name, f"{name}@{sha256[:8]}", MODELS[name], onnx)


def cached_onnx(name: str) -> tuple[Path, str]:
    """Return the converted file of a model and the SHA-256 of the weights it was made from."""
    weights = find(name)
    sha256 = sha256_file(weights)
    target = cache_dir() / f"{name}-{sha256[:8]}-{_FORMAT}.onnx"
    if not target.exists():
        from training.cloud.convert import convert  # imports torch

        convert(name, weights, target)
    return target, sha256
