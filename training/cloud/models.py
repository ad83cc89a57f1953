"""Pretrained EfficientNet-Lite classifiers, the models behind the local cloud.

    >>> from training.cloud.models import open_classifier           # doctest: +SKIP
    >>> open_classifier("efficientnet-lite0").answer(jpeg)[0]       # doctest: +SKIP
    Label(name='tabby', score=0.62)

Serving needs ONNX Runtime, numpy and Pillow; torch is imported once per model, to convert it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_sdk import codec
from edge_sdk.backends.base import Label
from model_store.errors import EnvironmentMissing, UsageError
from model_store.files import sha256_file
from training.assets import cache_dir, find
from training.cloud.convert import NAMES_KEY, SIDE_KEY, convert

__all__ = ["SIDES", "TOP", "Classifier", "Model", "cached_onnx", "open_classifier", "preprocess"]

#: Model -> side of its input in pixels.
SIDES: Mapping[str, int] = {
    "efficientnet-lite0": 224,
    "efficientnet-lite1": 240,
    "efficientnet-lite2": 260,
}

#: Labels in an answer.
TOP = 5

#: The model sees the middle square that is ``side / (side + 32)`` of the short side.
_MARGIN = 32
_MEAN, _DEVIATION = 127.0, 128.0


class Model(Protocol):
    """What the local cloud serves; safe to call from several threads."""

    #: The architecture's name.
    name: str
    #: Changes whenever answers may change.
    version: str

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        """Return the labels of one picture, best first.

        Raises:
            ImageError: the bytes are no picture.
        """


class Classifier:
    """A converted classifier in ONNX Runtime on the CPU; safe to call from several threads.

    Args:
        name: the architecture's name.
        version: the name and the beginning of the weights' hash.
        onnx: a file that ``training.cloud.convert`` wrote.
    """

    def __init__(self, name: str, version: str, onnx: Path) -> None:
        self.name, self.version = name, version
        self._session = _session(onnx)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._names: list[str] = json.loads(metadata[NAMES_KEY])
        self._side = int(metadata[SIDE_KEY])

    def __repr__(self) -> str:
        return f"Classifier({self.version!r})"

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        """Return the best ``TOP`` labels with their probabilities.

        Raises:
            ImageError: the bytes are no picture.
        """
        image = preprocess(codec.load(jpeg).image, self._side)
        scores = self._session.run(None, {"image": image})[0][0].astype(np.float64)
        probabilities = np.exp(scores - scores.max())
        probabilities /= probabilities.sum()
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        return tuple(Label(self._names[i], float(probabilities[i])) for i in best)


def open_classifier(name: str) -> Classifier:
    """Open a classifier of ``SIDES``, converting it first if it is not in the cache.

    Raises:
        UsageError: there is no such model.
        EnvironmentMissing: its weights are not installed.
    """
    if name not in SIDES:
        close = difflib.get_close_matches(name, SIDES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"There is no model {name!r}; known: {', '.join(SIDES)}.{hint}")
    onnx, sha256 = cached_onnx(name)
    return Classifier(name, f"{name}@{sha256[:8]}", onnx)


def cached_onnx(name: str) -> tuple[Path, str]:
    """Return the converted file of a model and the SHA-256 of the weights it was made from."""
    weights = find(name)
    sha256 = sha256_file(weights)
    target = cache_dir() / f"{name}-{sha256[:8]}.onnx"
    if not target.exists():
        convert(name, weights, find("efficientnet_lite_pytorch"), SIDES[name], target)
    return target, sha256


def preprocess(image: Image.Image, side: int) -> npt.NDArray[np.float32]:
    """Return the model's input (1, 3, side, side): bicubic resize, centre crop, (x - 127) / 128."""
    scale = (side + _MARGIN) / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    crop = scaled.crop((left, top, left + side, top + side))
    pixels = (np.asarray(crop, dtype=np.float32) - _MEAN) / _DEVIATION
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)


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
