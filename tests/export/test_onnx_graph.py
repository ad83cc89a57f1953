"""ONNX graphs as torch modules: same numbers, gradients, and clear words for what is not known."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.onnx_graph import Graph, parts, places
from model_store.errors import UsageError


def _graph(nodes: list[Any], weights: dict[str, np.ndarray], shape: list[Any]) -> Any:
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", "classes"])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return model


def _network() -> Any:
    """A convolutional classifier with everything exporters do: pads apart, the batch read off."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    weights = {
        "w1": rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.3, 4).astype(np.float32),
        "w2": rng.normal(0, 0.3, (4, 1, 3, 3)).astype(np.float32),
        "scale": rng.uniform(0.5, 2, 4).astype(np.float32),
        "shift": rng.normal(0, 1, 4).astype(np.float32),
        "mean": rng.normal(0, 1, 4).astype(np.float32),
        "var": rng.uniform(0.5, 2, 4).astype(np.float32),
        "fc": rng.normal(0, 1, (5, 4)).astype(np.float32),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "odd": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "zero": np.array(0.0, dtype=np.float32),
        "six": np.array(6.0, dtype=np.float32),
        "first": np.array(0),
        "axis": np.array([0]),
        "rest": np.array([-1]),
    }
    nodes = [
        node("Shape", ["image"], ["size"]),
        node("Gather", ["size", "first"], ["pictures"]),
        node("Pad", ["image", "odd"], ["padded"]),
        node("Conv", ["padded", "w1", "b1"], ["a"], strides=[2, 2]),
        node("Clip", ["a", "zero", "six"], ["b"]),
        node("Pad", ["b", "pads", "zero"], ["c"]),
        node("Conv", ["c", "w2"], ["d"], group=4),
        node("BatchNormalization", ["d", "scale", "shift", "mean", "var"], ["e"]),
        node("Add", ["e", "b"], ["cut"]),
        node("MaxPool", ["cut"], ["f"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", ["f"], ["g"], kernel_shape=[2, 2], pads=[1, 0, 1, 0]),
        node("Sigmoid", ["g"], ["h"]),
        node("Mul", ["g", "h"], ["i"]),
        node("GlobalAveragePool", ["i"], ["j"]),
        node("Unsqueeze", ["pictures", "axis"], ["k"]),
        node("Concat", ["k", "rest"], ["l"], axis=0),
        node("Reshape", ["j", "l"], ["m"]),
        node("Gemm", ["m", "fc"], ["scores"], transB=1),
    ]
    return _graph(nodes, weights, ["n", 3, 12, 12])


def _run(model: Any, given: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answer: np.ndarray = session.run(None, {session.get_inputs()[0].name: given})[0]
    return answer


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (3, 3, 12, 12)).astype(np.float32)


def test_torch_gives_the_runtime_s_numbers(pictures: np.ndarray) -> None:
    model = _network()
    with torch.no_grad():
        scores = Graph(model)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(scores, _run(model, pictures), atol=1e-5)


def test_all_of_it_goes_to_another_device() -> None:
    weights = {
        "mean": np.full((1, 1, 1, 1), 0.5, np.float32),
        "w": np.ones((2, 3, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["image", "mean"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Flatten", ["b"], ["scores"]),
    ]
    for model in (_graph(nodes, weights, ["n", 3, 12, 12]), _network()):
        graph = Graph(model).to("meta")
        assert graph(torch.zeros(2, 3, 12, 12, device="meta")).device.type == "meta"


def test_gradients_pass_and_weights_do_not_learn() -> None:
    graph = Graph(_network())
    given = torch.zeros(2, 3, 12, 12, requires_grad=True)
    graph(given).sum().backward()
    assert given.grad is not None
    assert given.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in graph.parameters())


def test_the_parts_together_are_the_whole_though_the_batch_was_read_off_the_input(
    pictures: np.ndarray,
) -> None:
    model = _network()
    whole = _run(model, pictures)
    front, back = parts(model, "cut")
    onnx.checker.check_model(front)
    onnx.checker.check_model(back)
    features = _run(front, pictures)
    np.testing.assert_allclose(_run(back, features), whole, atol=1e-5)
    with torch.no_grad():
        again = Graph(back)(Graph(front)(torch.from_numpy(pictures))).numpy()
    np.testing.assert_allclose(again, whole, atol=1e-5)


def test_places_are_what_nothing_passes_by() -> None:
    found, total = places(_network(), torch.zeros(1, 3, 12, 12))
    names = [place.name for place in found]
    assert "cut" in names
    assert not {"d", "e"} & set(names)  # the residual passes them by
    assert total == 3 * 9 * 4 * 36 + 9 * 4 * 36 + 4 * 5
    (cut,) = (place for place in found if place.name == "cut")
    assert cut.shape == (4, 6, 6)
    assert cut.macs == total - 20


@pytest.mark.parametrize(("cut", "why"), [("nowhere", "no tensor 'nowhere'"), ("e", "passes it")])
def test_an_impossible_cut_is_refused(cut: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parts(_network(), cut)


def test_an_unknown_operator_is_named() -> None:
    model = _graph([helper.make_node("Einsum", ["image"], ["scores"], equation="nchw->nc")], {},
                   ["n", 3, 4, 4])  # fmt: skip
    with pytest.raises(UsageError, match="operator Einsum"):
        Graph(model)
