"""The user's classifier, opened and cut in two: the first blocks, and the tail that answers.

Not here: running an ONNX graph in torch (``export.onnx_graph``), or serving one
(``training.cloud``).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.classes import NAMES_KEY
from edge_sdk.view import View
from export.onnx_graph import Graph, Place, parts, places
from model_store.errors import UsageError
from model_store.files import sha256_file
from training.cloud.models import cached_onnx
from training.cloud.zoo import MODELS

__all__ = ["Classifier", "Cut", "default_cut", "open_classifier"]

#: Where the default cut is: maps this much smaller than the picture, this far into the network.
_REDUCTION = 16
_SHARE = 0.42

#: Cuts that an error message lists.
_LISTED = 12


@dataclass(frozen=True)
class Classifier:
    """A classifier as ONNX: ``image`` uint8 (N, S, S, 3) to scores (N, classes).

    Attributes:
        name: for reports.
        version: name and the beginning of the weights' or the file's hash.
        view: how it looks at a picture.
        names: of the classes.
        model: ``onnx.ModelProto``.
        places: where it can be cut, in order.
        macs: multiplications for one picture.
    """

    name: str
    version: str
    view: View
    names: tuple[str, ...]
    model: Any
    places: tuple[Place, ...]
    macs: int

    def at(self, cut: str | None) -> Cut:
        """Cut it.

        Args:
            cut: name of a tensor; None for the default.

        Raises:
            UsageError: there is no such cut; the message lists those there are.
        """
        place = default_cut(self) if cut is None else self._named(cut)
        front, back = parts(_copied(self.model), place.name)
        return Cut(self, place, front, back)

    def _named(self, cut: str) -> Place:
        for place in self.places:
            if place.name == cut:
                return place
        worth = [place for place in self.places if place.shape[1] > 1]
        narrow = sorted(worth, key=lambda place: int(np.prod(place.shape)))[:_LISTED]
        listing = "\n".join(
            f"  {place.name}  {'x'.join(map(str, place.shape))}, {place.macs / self.macs:.0%}"
            for place in worth
            if place in narrow
        )
        close = difflib.get_close_matches(cut, [place.name for place in worth], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(
            f"{self.name} cannot be cut at {cut!r}: no tensor of this name carries all of its "
            f"answer.{hint} Its narrowest cuts (shape, share of the work before it) are:\n{listing}"
        )


@dataclass(frozen=True)
class Cut:
    """A classifier in two parts.

    Attributes:
        whole: the classifier.
        place: where.
        front, back: ``onnx.ModelProto`` of the first blocks and of the tail.
    """

    whole: Classifier
    place: Place
    front: Any
    back: Any

    def prefix(self) -> Graph:
        """Return the first blocks as a frozen torch module."""
        return Graph(self.front).eval()

    def tail(self) -> Graph:
        """Return the tail as a frozen torch module."""
        return Graph(self.back).eval()


def default_cut(classifier: Classifier) -> Place:
    """Return the narrowest place a sixteenth of the picture wide, nearest to the middle.

    Raises:
        UsageError: the graph has no place with a map at all.
    """
    maps = [place for place in classifier.places if place.shape[1] > 1 and place.macs]
    if not maps:
        raise UsageError(
            f"{classifier.name} has no tensor with a map of positions that all of the answer goes "
            "through, so there is nowhere to cut it."
        )
    side = classifier.view.side / _REDUCTION
    near = min(abs(place.shape[1] - side) for place in maps)
    maps = [place for place in maps if abs(place.shape[1] - side) == near]
    fewest = min(place.shape[0] for place in maps)
    narrow = [place for place in maps if place.shape[0] == fewest]
    return min(narrow, key=lambda place: abs(place.macs / classifier.macs - _SHARE))


def open_classifier(
    spec: str,
    *,
    view: View | None = None,
    mean: Sequence[float] | None = None,
    deviation: Sequence[float] | None = None,
) -> Classifier:
    """Open a model of the local cloud, or an ONNX file.

    Args:
        spec: a classifier of ``training.cloud.zoo.MODELS``, or the path of an ONNX file.
        view: how it looks at a picture; None for the local model's own, for a file's side out of
            8/7 of it, bilinear.
        mean: of a file whose input is float (N, 3, S, S): what is subtracted from the pixels (0
            to 255); one number or three.
        deviation: what divides them then.

    Raises:
        UsageError: there is no such model, or it is no classifier of pictures.
    """
    if spec in MODELS:
        if MODELS[spec].boxes:
            raise UsageError(f"{spec} finds objects; a feature codec is learnt for classifiers.")
        path, sha256 = cached_onnx(spec)
        return _opened(spec, f"{spec}@{sha256[:8]}", onnx.load(path), MODELS[spec].input)
    path = Path(spec)
    if not path.is_file():
        known = ", ".join(name for name, entry in MODELS.items() if not entry.boxes)
        raise UsageError(
            f"There is no classifier {spec!r}: no file of this name, and the local ones are "
            f"{known}."
        )
    model = _pixels(_loaded(path), path, mean, deviation)
    side = _side(model, path)
    # A codec finds a local model by its name, and a file of that name is not that model.
    name = f"{path.stem}-file" if path.stem in MODELS else path.stem
    return _opened(
        name,
        f"{name}@{sha256_file(path)[:8]}",
        model,
        view or View(side=side, resized=round(side * 8 / 7)),
    )


def _opened(name: str, version: str, model: Any, view: View) -> Classifier:
    side = _side(model, Path(name))
    if view.side != side:
        raise UsageError(
            f"{name} takes pictures of {side} x {side} and the view has {view.side}; give the "
            f"view's side as {side}."
        )
    example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    found, macs = places(model, example)
    scores = _answer(name, model, example)
    properties = {one.key: one.value for one in model.metadata_props}
    names = json.loads(properties.get(NAMES_KEY, "null"))
    names = tuple(names or (f"class {number}" for number in range(scores.shape[1])))
    if len(names) != scores.shape[1]:
        raise UsageError(f"{name} has {scores.shape[1]} scores and names for {len(names)} classes.")
    return Classifier(name, version, view, names, model, tuple(found), macs)


def _answer(name: str, model: Any, example: torch.Tensor) -> torch.Tensor:
    """Return the scores of two pictures: of one, a fixed number of them would go unnoticed."""
    try:
        with torch.inference_mode():
            scores: torch.Tensor = Graph(model)(example.repeat(2, 1, 1, 1))
    except RuntimeError as error:
        raise UsageError(
            f"{name} does not take two pictures at once ({error}); export it with a free first "
            "size."
        ) from error
    if scores.dim() != 2 or len(scores) != 2 or scores.shape[1] < 2:
        raise UsageError(
            f"{name} answers two pictures with the shape {tuple(scores.shape)}; a classifier's is "
            "(2, classes)."
        )
    return scores


def _loaded(path: Path) -> Any:
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own class
        raise UsageError(f"{path} is no ONNX model ({error}).") from error
    if not model.graph.node:
        raise UsageError(f"{path} is no ONNX model with a graph.")
    return model


def _picture(model: Any, where: Path) -> tuple[str, int, list[int]]:
    """Return the input's name, ONNX type and shape (0 for a size that is free)."""
    stored = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in stored]
    if len(inputs) != 1:
        raise UsageError(
            f"{where} has the inputs {[one.name for one in inputs]}; a classifier has one, the "
            "picture."
        )
    kind = inputs[0].type.tensor_type
    return inputs[0].name, kind.elem_type, [size.dim_value for size in kind.shape.dim]


def _side(model: Any, where: Path) -> int:
    _, _, shape = _picture(model, where)
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or shape[1] < 1:
        raise UsageError(
            f"{where} takes the shape {shape}; allowed are uint8 (N, S, S, 3) and float32 "
            "(N, 3, S, S) with a fixed S."
        )
    return int(shape[1])


def _pixels(
    model: Any, path: Path, mean: Sequence[float] | None, deviation: Sequence[float] | None
) -> Any:
    """Return the model with uint8 (N, S, S, 3) as its input."""
    name, kind, shape = _picture(model, path)
    if kind == TensorProto.UINT8:
        return model
    if kind != TensorProto.FLOAT or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise UsageError(
            f"{path} takes ONNX type {kind} of shape {shape}; allowed are uint8 (N, S, S, 3) and "
            "float32 (N, 3, S, S) with a fixed S."
        )
    if mean is None or deviation is None:
        raise UsageError(
            f"{path} takes float32; say how its numbers come from pixels (0 to 255) with --mean "
            "and --deviation, such as --mean 123.7,116.3,103.5 --deviation 58.4,57.1,57.4."
        )
    return _behind_pixels(model, name, shape[2], (mean, deviation))


def _behind_pixels(model: Any, name: str, side: int, units: tuple[Sequence[float], ...]) -> Any:
    graph = model.graph
    for label, values in zip(("pixel_mean", "pixel_deviation"), units, strict=True):
        array = np.array(values, dtype=np.float32).reshape(1, -1, 1, 1)
        graph.initializer.append(numpy_helper.from_array(array, label))
    nodes = [
        helper.make_node("Transpose", ["image"], ["pixel_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pixel_planes"], ["pixel_numbers"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixel_numbers", "pixel_mean"], ["pixel_centred"]),
        helper.make_node("Div", ["pixel_centred", "pixel_deviation"], [name]),
    ]
    for place, node in enumerate(nodes):
        graph.node.insert(place, node)
    kept = [one for one in graph.input if one.name != name]
    del graph.input[:]
    graph.input.append(
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["pictures", side, side, 3])
    )
    graph.input.extend(kept)
    return model


def _copied(model: Any) -> Any:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
