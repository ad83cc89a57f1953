"""Graph surgery: fewer nodes, the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import PAPER
from export.fuse import fuse
from export.run import TrainingRun
from export.tidy import fold_division, initializers, merge_twins, with_batch
from model_store.errors import UsageError

Pictures = Callable[..., NDArray[np.uint8]]


def _model(nodes: list[Any], constants: dict[str, Any], shape: list[int]) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _run(model: Any, x: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_division_goes_into_the_weights_border_included() -> None:
    rng = np.random.default_rng(0)
    model = _model(
        [
            helper.make_node("Div", ["x", "std"], ["d"], name="d"),
            helper.make_node("Conv", ["d", "w", "b"], ["y"], name="c", pads=[1, 1, 1, 1]),
        ],
        {
            "std": rng.uniform(1, 9, (1, 3, 1, 1)),
            "w": rng.normal(size=(4, 3, 3, 3)),
            "b": rng.normal(size=4),
        },
        [1, 3, 6, 6],
    )
    folded, x = fold_division(model), rng.normal(size=(1, 3, 6, 6)).astype(np.float32)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]
    assert "std" not in initializers(folded)
    np.testing.assert_allclose(_run(folded, x), _run(model, x), atol=1e-5)


@pytest.mark.parametrize("divisor", [np.full((1, 3, 6, 6), 2.0), np.full((1, 1, 1, 6), 2.0)])
def test_another_division_stays(divisor: NDArray[Any]) -> None:
    nodes = [
        helper.make_node("Div", ["x", "std"], ["d"], name="d"),
        helper.make_node("Conv", ["d", "w"], ["y"], name="c"),
    ]
    model = _model(nodes, {"std": divisor, "w": np.ones((1, 3, 1, 1))}, [1, 3, 6, 6])
    assert fold_division(model) == model


def test_twins_become_one() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["a"], name="a"),
        helper.make_node("Mul", ["x", "too"], ["b"], name="b"),
        helper.make_node("Mul", ["x", "six"], ["unread"], name="u"),
        helper.make_node("Add", ["a", "b"], ["y"], name="c"),
    ]
    model = _model(nodes, {"two": [2.0] * 8, "too": [2.0] * 8, "six": [6.0] * 8}, [8])
    merged = merge_twins(model)
    assert [node.op_type for node in merged.graph.node] == ["Mul", "Add"]
    assert len(merged.graph.initializer) == 1
    x = np.arange(8, dtype=np.float32)
    np.testing.assert_array_equal(_run(merged, x), 4 * x)


def test_the_engine_has_no_division_left_and_no_twins(run_of_training: TrainingRun) -> None:
    model = onnx.load_model_from_string(fuse(run_of_training.prefix, run_of_training.head, PAPER))
    assert "Div" not in {node.op_type for node in model.graph.node}
    assert len(merge_twins(model).graph.node) == len(model.graph.node)
    values = initializers(model).values()
    assert len({(v.dtype, v.shape, v.tobytes()) for v in values}) == len(values)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_several_pictures_at_once_get_what_each_gets_alone(
    run_of_training: TrainingRun, pictures: Pictures
) -> None:
    engine = fuse(run_of_training.prefix, run_of_training.head, PAPER)
    model = with_batch(onnx.load_model_from_string(engine), 5)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes["image"] == [5, 16, 16, 3]
    assert shapes["q_values"] == [5, len(PAPER)]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    got = session.run(["q_values"], {"image": pictures(5)})[0]
    np.testing.assert_allclose(got, OnnxEngine(engine).run(pictures(5)).q_values, atol=1e-5)


def test_a_graph_for_one_picture_only_says_so() -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="r")]
    model = _model(nodes, {}, [1, 8])
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 8]), "shape"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8]))
    with pytest.raises(UsageError, match="cannot take 3 pictures"):
        with_batch(model, 3)
