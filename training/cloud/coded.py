"""A model of the local cloud that reads feature streams too: the owner's classifier and its tail.

Streams and pictures come to one address, as they would to a service of the owner's: the reference
stays a JPEG. Both are answered under the model's own name and version, with the same class names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_sdk.backends.base import Label
from edge_sdk.errors import ImageError
from edge_sdk.featurecodec import Artefact, is_stream
from edge_sdk.featurecodec.artefact import FILES
from edge_sdk.featurecodec.tail import CLASSIFIER, Tail
from model_store.errors import UsageError
from training.cloud.models import OnnxModel, open_model
from training.cloud.zoo import MODELS, Entry

__all__ = ["CodecModel", "is_codec", "open_codec"]


class CodecModel:
    """Answers pictures with a classifier and feature streams with its tail.

    Args:
        model: the whole classifier.
        tail: the codec's server side.

    Raises:
        UsageError: they name other classes.
    """

    boxes = False

    def __init__(self, model: OnnxModel, tail: Tail) -> None:
        if model.names != tail.names:
            raise UsageError(
                f"The codec {tail.id} answers {len(tail.names)} classes ({tail.names[0]!r}, …) and "
                f"{model.name} {len(model.names)} others ({model.names[0]!r}, …); name the model "
                "that the codec was trained for."
            )
        self.name, self.version, self.codecs = model.name, model.version, (tail.id,)
        self._model, self._tail = model, tail

    def __repr__(self) -> str:
        return f"CodecModel({self.version!r}, {self._tail!r})"

    def answer(self, jpeg: bytes) -> tuple[Label, ...]:
        """Return the best labels of one picture or stream.

        Raises:
            ImageError: it is neither, or another codec's stream.
        """
        return self._tail.answer(jpeg) if is_stream(jpeg) else self._model.answer(jpeg)

    def answer_many(self, jpegs: Sequence[bytes]) -> list[tuple[Label, ...] | ImageError]:
        """Answer a batch of pictures and streams."""
        streams = iter(self._tail.answer_many([one for one in jpegs if is_stream(one)]))
        pictures = iter(self._model.answer_many([one for one in jpegs if not is_stream(one)]))
        return [next(streams) if is_stream(one) else next(pictures) for one in jpegs]


def is_codec(path: str) -> bool:
    """Tell whether a path is a codec's folder, where a model's name could stand too."""
    return (Path(path) / FILES["codec-json"]).is_file()


def open_codec(folder: Path) -> CodecModel:
    """Open a codec with the classifier it was trained for.

    That is ``classifier.onnx`` beside it, else the model of ``training.cloud.zoo.MODELS`` that
    ``codec.json`` names.

    Raises:
        UsageError: there is no codec in the folder, or no such classifier.
        StoreError: a file of the codec is damaged, or breaks its contract.
        EnvironmentMissing: the model's weights, or ONNX Runtime, are not installed.
    """
    tail, artefact = Tail.open(folder), Artefact.open(folder)
    return CodecModel(_classifier(folder, artefact), tail)


def _classifier(folder: Path, artefact: Artefact) -> OnnxModel:
    stated = artefact.document.get("classifier")
    named: Mapping[str, Any] = stated if isinstance(stated, dict) else {"name": stated}
    name = str(named.get("name") or "classifier")
    version = str(named.get("version") or name)
    if (folder / CLASSIFIER).is_file():
        return OnnxModel(name, version, Entry(input=artefact.view), folder / CLASSIFIER)
    if name not in MODELS:
        raise UsageError(
            f"The codec in {folder} is for the classifier {name!r}, which is not there: put its "
            f"{CLASSIFIER} beside it, so that references can be answered."
        )
    model = open_model(name)
    if version not in (name, model.version):
        raise UsageError(
            f"The codec in {folder} is for {version}, but the weights here are {model.version}; "
            "train the codec again, or install the other weights."
        )
    return model
