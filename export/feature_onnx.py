"""The files of a feature codec's two sides: what was learnt, joined to the classifier's own graph.

The classifier's blocks stay the very nodes of its file; only what was learnt is exported anew. Not
here: the entropy model, which is arrays (``training.codec.tables``), and how a service runs this.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import compose, numpy_helper, version_converter
from torch import Tensor, nn

from export.feature_network import Bottleneck, Decoder
from export.fuse import OPSET, finished
from export.onnx_graph import Graph
from model_store.errors import UsageError

__all__ = ["device_onnx", "encoder_onnx", "prefix_onnx", "server_onnx", "tail_onnx"]

#: Of every file here; what opset ``OPSET`` needs.
_IR_VERSION = 9


class _Coding(nn.Module):
    def __init__(self, adapter: nn.Module | None, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.adapter, self.bottleneck = adapter, bottleneck

    def forward(self, features: Tensor) -> Tensor:
        maps = features if self.adapter is None else self.adapter(features)
        return self.bottleneck.integers(self.bottleneck(maps))[0].to(torch.int8)


class _Decoding(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, integers: Tensor, rate: Tensor) -> Tensor:
        maps: Tensor = self.decoder(integers.to(torch.float32), rate)
        return maps


def prefix_onnx(prefix: nn.Module, side: int) -> Any:
    """Return a torch prefix, uint8 view (1, S, S, 3) to maps, as ``onnx.ModelProto``."""
    view = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    return _exported(prefix.eval(), "prefix", (view,), ("view",), "features")


def encoder_onnx(
    front: Any,
    bottleneck: Bottleneck,
    adapter: nn.Module | None,
    maps: tuple[int, int, int],
    properties: Mapping[str, str],
) -> bytes:
    """Return the device side: ``view`` uint8 (1, S, S, 3) to ``integers`` int8 (R, C, H, W).

    Args:
        front: ``onnx.ModelProto`` from a picture to the prefix's maps.
        bottleneck: learnt.
        adapter: between the two, if the prefix is not the service's own.
        maps: (D, h, w) of the prefix.
        properties: the file's metadata.
    """
    coding = _Coding(adapter, bottleneck).eval()
    back = _exported(coding, "bottleneck", (torch.zeros(1, *maps),), ("maps",), "integers")
    # Devices refuse operators that no engine needs; exporters leave sums of constants behind.
    front = _one_picture(_ready(Graph(front).folded(front)))
    return finished(_joined(front, back), properties)


def tail_onnx(
    decoder: Decoder,
    back: Any,
    shape: tuple[int, int, int],
    properties: Mapping[str, str],
    tuned: Mapping[str, NDArray[Any]] | None = None,
) -> bytes:
    """Return the server side: ``integers`` int8 (N, C, H, W), ``rate`` int64 (N,) to ``scores``.

    Args:
        decoder: learnt.
        back: ``onnx.ModelProto`` from maps to scores.
        shape: (C, H, W) of the integers.
        properties: the file's metadata.
        tuned: weights of ``back`` that learnt as well, by name.
    """
    example = (torch.zeros(2, *shape, dtype=torch.int8), torch.zeros(2, dtype=torch.long))
    names = ("integers", "rate")
    front = _exported(_Decoding(decoder).eval(), "decoder", example, names, "maps", free=True)
    back = _ready(back)
    for weight in back.graph.initializer:
        if tuned and weight.name in tuned:
            weight.CopyFrom(numpy_helper.from_array(np.asarray(tuned[weight.name]), weight.name))
    _rename(back, back.graph.output[0].name, "scores")
    return finished(_joined(front, back), properties)


def device_onnx(device: nn.Module, side: int, properties: Mapping[str, str]) -> bytes:
    """Return a device side that is one module, uint8 view (1, S, S, 3) to int8 integers."""
    view = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    model = _exported(device.eval(), "device", (view,), ("view",), "integers")
    return finished(_ready(model), properties)


def server_onnx(
    server: nn.Module, shape: tuple[int, int, int], output: str, properties: Mapping[str, str]
) -> bytes:
    """Return a module of integers (N, C, H, W) and rates (N,).

    Its output is ``scores``, a viewer's ``image`` uint8 (N, S', S', 3), or a segmenter's
    ``classes`` uint8 (N, H', W').
    """
    example = (torch.zeros(2, *shape, dtype=torch.int8), torch.zeros(2, dtype=torch.long))
    names = ("integers", "rate")
    model = _exported(server.eval(), "server", example, names, output, free=True)
    return finished(_ready(model), properties)


def _exported(
    module: nn.Module,
    part: str,
    example: tuple[Tensor, ...],
    inputs: tuple[str, ...],
    output: str,
    *,
    free: bool = False,
) -> Any:
    """Export a module as ``onnx.ModelProto``; names that are not given begin with ``part``.

    ``free`` lets the first size of inputs and output be any number of pictures.
    """
    names = (*inputs, output)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The older exporter announces its successor, which takes ten times as long for these few
        # layers, and notes that sizes become constant, which they are.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        torch.onnx.export(
            module,
            example,
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={name: {0: "pictures"} for name in names} if free else None,
        )
    model = onnx.load_from_string(buffer.getvalue())
    return compose.add_prefix(model, f"{part}/", rename_inputs=False, rename_outputs=False)


def _joined(front: Any, back: Any) -> Any:
    joint = (front.graph.output[0].name, back.graph.input[0].name)
    front.ir_version = back.ir_version = _IR_VERSION
    joined = compose.merge_models(front, back, io_map=[joint])
    del joined.opset_import[1:]  # joining lists the other's once more
    return joined


def _ready(model: Any) -> Any:
    """Return a copy of the model in our operator set."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (opset,) = [entry.version for entry in model.opset_import if entry.domain == ""]
    if opset != OPSET:
        try:
            copy = version_converter.convert_version(copy, OPSET)
        except Exception as error:  # the converter's own classes
            raise UsageError(
                f"The classifier is in ONNX operator set {opset} and cannot be brought to {OPSET} "
                f"({error}); export it in {OPSET}."
            ) from error
    own = [entry for entry in copy.opset_import if entry.domain == ""]
    del copy.opset_import[:]
    copy.opset_import.extend(own)
    del copy.metadata_props[:]
    copy.ir_version = _IR_VERSION
    return copy


def _one_picture(model: Any) -> Any:
    """Let the picture be called ``view``, and be one."""
    stored = {one.name for one in model.graph.initializer}
    (picture,) = (one for one in model.graph.input if one.name not in stored)
    _rename(model, picture.name, "view")
    first = picture.type.tensor_type.shape.dim[0]
    first.Clear()
    first.dim_value = 1
    del model.graph.value_info[:]
    output = model.graph.output[0].type.tensor_type.shape.dim[0]
    output.Clear()
    output.dim_value = 1
    return model


def _rename(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    for value in (*model.graph.input, *model.graph.output):
        if value.name == old:
            value.name = new
