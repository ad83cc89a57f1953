"""Make a served model from pretrained weights: one ONNX file that says all about itself.

With ``training.cloud.networks`` the only part of the local cloud that imports torch, and only when
a file is not yet in the cache. The label names travel in the file's metadata, so that serving needs
ONNX Runtime alone.
"""

from __future__ import annotations

import io
import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from edge_sdk.classes import NAMES_KEY
from model_store.files import write_atomic
from training.assets import find
from training.cloud.networks import dogs, imagenet, ssd
from training.cloud.zoo import MODELS

__all__ = ["build", "convert", "distinct_names"]

_OPSET = 18


def convert(model: str, weights: Path, target: Path) -> None:
    """Write ``target``: input ``image`` uint8 (N, S, S, 3), RGB, for any N.

    A classifier's output is ``scores`` (N, classes), before softmax; a detector's are ``boxes``
    (N, A, 4) and ``scores`` (N, A, classes), as ``training.cloud.networks.ssd`` says.

    Args:
        model: one of ``training.cloud.zoo.MODELS``.
        weights: its asset.
        target: replaced atomically.
    """
    network, names = build(model, weights)
    graph = onnx.load_from_string(_export(model, network))
    onnx.helper.set_model_props(graph, {NAMES_KEY: json.dumps(names)})
    write_atomic(target, graph.SerializeToString())


def build(model: str, weights: Path) -> tuple[nn.Module, list[str]]:
    """Return the network of a model, ready to answer, and the names of its classes."""
    network, names = _BUILDERS[model](weights)
    return network.eval(), distinct_names(names)


def distinct_names(categories: Sequence[str]) -> list[str]:
    """Return the names with the class number behind those that several classes share.

    >>> distinct_names(["crane", "dog", "crane"])
    ['crane (0)', 'dog', 'crane (2)']
    """
    count = Counter(categories)
    return [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(categories)]


def _lite(name: str) -> Callable[[Path], tuple[nn.Module, Sequence[str]]]:
    def build_lite(weights: Path) -> tuple[nn.Module, Sequence[str]]:
        code = find("efficientnet_lite_pytorch")
        return imagenet.efficientnet_lite(name, weights, code), imagenet.CATEGORIES

    return build_lite


_BUILDERS: Mapping[str, Callable[[Path], tuple[nn.Module, Sequence[str]]]] = {
    **{name: _lite(name) for name in MODELS if name.startswith("efficientnet-lite")},
    "mobilenet-v2": lambda weights: (imagenet.mobilenet_v2(weights), imagenet.CATEGORIES),
    "squeezenet": lambda weights: (imagenet.squeezenet(weights), imagenet.CATEGORIES),
    "ssd-mobilenet-v2": lambda weights: (ssd.ssd_mobilenet_v2(weights), ssd.CLASSES),
    "dog-breeds": lambda weights: (dogs.dog_breeds(weights), dogs.BREEDS),
}


def _export(model: str, network: nn.Module) -> bytes:
    entry = MODELS[model]
    outputs = ["boxes", "scores"] if entry.boxes else ["scores"]
    pictures = torch.zeros(2, entry.input.side, entry.input.side, 3, dtype=torch.uint8)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The older exporter announces its successor, tracing notes that sizes become constant
        # (they are), and a slice that is not folded costs nothing: ONNX Runtime folds it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            network,
            (pictures,),
            buffer,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={name: {0: "pictures"} for name in ("image", *outputs)},
        )
    return buffer.getvalue()
