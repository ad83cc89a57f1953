"""A codec's two sides: shapes, integers within their limit, and the same numbers as ONNX files."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export.feature_network import (
    Adapter,
    Bottleneck,
    Decoder,
    DeviceSide,
    ServerSide,
    Shape,
    Viewer,
)
from export.feature_onnx import encoder_onnx, prefix_onnx, server_onnx, tail_onnx
from export.onnx_graph import Graph

SHAPE = Shape(channels=4, codes=6, rates=3, limit=5, fold=2, hidden=8)
MAPS = (4, 8, 8)


def _alive(module: nn.Module) -> nn.Module:
    """Give the branches that start at zero something to say."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for one in module.parameters():
            one.copy_(0.3 * torch.randn(one.shape, generator=generator))
    return module.eval()


def _part(node: onnx.NodeProto, weights: dict[str, np.ndarray], shapes: list[list[object]],
          kinds: tuple[int, int]) -> onnx.ModelProto:  # fmt: skip
    """A user's graph, one node of it, in another operator set than ours."""
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(node.input[0], kinds[0], shapes[0])],
        [helper.make_tensor_value_info(node.output[0], kinds[1], shapes[1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _run(data: bytes, **given: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(None, given)[0]
    return answer


def test_integers_are_whole_and_within_the_limit() -> None:
    bottleneck = _alive(Bottleneck(SHAPE))
    with torch.no_grad():
        integers = bottleneck.integers(bottleneck(40 * torch.randn(2, *MAPS)))
    assert integers.shape == (2, 3, 6, 4, 4)
    assert integers.abs().max() == 5
    assert torch.equal(integers, integers.round())


def test_the_device_side_is_the_same_as_an_onnx_file() -> None:
    class Prefix(nn.Module):  # type: ignore[misc]
        def forward(self, view: torch.Tensor) -> torch.Tensor:
            pixels = view.permute(0, 3, 1, 2).to(torch.float32) / 60.0
            return nn.functional.avg_pool2d(pixels, 2)

    adapter, bottleneck = _alive(Adapter(3, 4, 5)), _alive(Bottleneck(SHAPE))
    both = nn.Sequential(Prefix(), adapter)
    view = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = DeviceSide(both, bottleneck)(torch.from_numpy(view)).numpy()
    data = encoder_onnx(prefix_onnx(Prefix(), 16), bottleneck, adapter, (3, 8, 8), {"schema": "x"})
    assert (_run(data, view=view) == wanted).all()
    assert {one.key: one.value for one in onnx.load_from_string(data).metadata_props}[
        "schema"
    ] == "x"


@pytest.mark.parametrize("pictures", [1, 3])
def test_the_server_side_is_the_same_as_an_onnx_file(pictures: int) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (4 * 64, 5)).astype(np.float32)
    flat = helper.make_node("Flatten", ["inner"], ["flat"])
    back = _part(flat, {}, [["n", 4, 8, 8], ["n", 256]], (TensorProto.FLOAT,) * 2)
    back.graph.node.append(helper.make_node("MatMul", ["flat", "w"], ["answer"]))
    back.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    del back.graph.output[:]
    back.graph.output.append(helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 5]))
    decoder = _alive(Decoder(SHAPE))
    rng = np.random.default_rng(1)
    integers = rng.integers(-5, 6, (pictures, 6, 4, 4), dtype=np.int8)
    rate = rng.integers(0, 3, pictures)
    for tuned in (None, {"w": 2.0 * weight}):
        data = tail_onnx(decoder, back, (6, 4, 4), {}, tuned)
        with torch.no_grad():
            side = ServerSide(decoder, Graph(back))
            wanted = side(torch.from_numpy(integers), torch.from_numpy(rate)).numpy()
        scores = _run(data, integers=integers, rate=rate)
        times = 1 if tuned is None else 2
        np.testing.assert_allclose(scores, times * wanted, rtol=1e-4, atol=1e-2)


def test_the_viewer_makes_a_picture() -> None:
    viewer = Viewer(SHAPE, doublings=2, hidden=4)
    data = server_onnx(viewer, (6, 4, 4), "image", {})
    image = _run(data, integers=np.ones((2, 6, 4, 4), np.int8), rate=np.array([0, 2]))
    assert image.shape == (2, 16, 16, 3)
    assert image.dtype == np.uint8
