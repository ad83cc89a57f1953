"""Make a served classifier from pretrained weights: one ONNX file that says all about itself.

The only module of the local cloud that imports torch, and only when a file is not yet in the cache.
The label names travel in the file's metadata, so that serving needs ONNX Runtime alone.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_store.files import write_atomic

__all__ = ["NAMES_KEY", "SIDE_KEY", "convert", "distinct_names"]

NAMES_KEY = "adacompress.names"
SIDE_KEY = "adacompress.side"
_OPSET = 18


def convert(model: str, weights: Path, code: Path, side: int, target: Path) -> None:
    """Write ``target``: input ``image`` float32 (1, 3, side, side), output ``scores`` (1, 1000).

    Args:
        model: the architecture's name, such as ``efficientnet-lite0``.
        weights: its ``.pth`` file.
        code: the folder that holds the package ``efficientnet_lite_pytorch``.
        side: the input's side in pixels.
        target: replaced atomically.
    """
    import onnx
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    graph = onnx.load_from_string(_export(_network(model, weights, code), side))
    metadata = {
        NAMES_KEY: json.dumps(distinct_names(_IMAGENET_CATEGORIES)),
        SIDE_KEY: str(side),
    }
    onnx.helper.set_model_props(graph, metadata)
    write_atomic(target, graph.SerializeToString())


def distinct_names(categories: Sequence[str]) -> list[str]:
    """Return the names with the class number behind those that several classes share.

    >>> distinct_names(["crane", "dog", "crane"])
    ['crane (0)', 'dog', 'crane (2)']
    """
    count = Counter(categories)
    return [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(categories)]


def _network(model: str, weights: Path, code: Path) -> Any:
    import torch

    with _importable(code):
        from efficientnet_lite_pytorch import EfficientNet
    network = EfficientNet.from_name(model)
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    return network.eval()


def _export(network: Any, side: int) -> bytes:
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The older exporter announces its successor, tracing notes that sizes become constant
        # (they are), and a slice that is not folded costs nothing: ONNX Runtime folds it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            buffer,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["image"],
            output_names=["scores"],
        )
    return buffer.getvalue()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put ``folder`` last on the import path for one import, so that it shadows nothing."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
