"""Files that a runtime must never see, and those that it may; against the ``onnx`` package."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from model_store import Draft, Store, UnsafeModel, UsageError
from model_store.onnx_safety import OnnxLimits, Tensor, check, fits
from model_store.operators import OPERATORS

MakeModel = Callable[..., bytes]
Change = Callable[[Any], None]

#: Multiplied by hand, the suite's own number keeps it fast.
EXAMPLES = int(os.environ.get("ADACOMPRESS_FUZZ", "150"))


def changed(model: bytes, change: Change) -> bytes:
    made = onnx.load_model_from_string(model)
    change(made)
    return bytes(made.SerializeToString())


def subgraph() -> Any:
    return helper.make_graph([], "inner", [], [])


def add_loop(model: Any) -> None:
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["x"], body=subgraph()))


def add_custom(model: Any) -> None:
    model.graph.node.append(helper.make_node("Relu", ["real"], ["x"], domain="evil"))


def hide_a_subgraph(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", subgraph()))


def hide_subgraphs(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("bodies", [subgraph()]))


def add_function(model: Any) -> None:
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("", "Cast", ["a"], ["b"], [], opsets))


def point_outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def point_outside_in_a_constant(model: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32))
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["x"], value=tensor))


def point_outside_in_a_list(model: Any) -> None:
    tensor = TensorProto(data_location=TensorProto.EXTERNAL)
    model.graph.node[0].attribute.append(helper.make_attribute("tensors", [tensor]))


def add_training(model: Any) -> None:
    model.training_info.add().initialization.CopyFrom(subgraph())


def forget_the_opset(model: Any) -> None:
    del model.opset_import[:]


def choose_a_future_opset(model: Any) -> None:
    model.opset_import[0].version = 999


def import_twice(model: Any) -> None:
    model.opset_import.append(helper.make_opsetid("ai.onnx", 18))


def forget_the_shape(model: Any) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def take_texts(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def take_a_sequence(model: Any) -> None:
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(inner))


def add_sparse(model: Any) -> None:
    model.graph.sparse_initializer.add().dims.append(3)


REFUSED: dict[Change, str] = {
    add_loop: "operator 'Loop'",
    add_custom: r"operator 'evil\.Relu'",
    hide_a_subgraph: "a subgraph",
    hide_subgraphs: "subgraphs",
    add_function: "functions",
    point_outside: "data outside of the file|elsewhere",
    point_outside_in_a_constant: "data outside of the file",
    point_outside_in_a_list: "elsewhere",
    add_training: "training information",
    forget_the_opset: "operator set is none",
    choose_a_future_opset: "operator set is 999",
    import_twice: "two versions",
    forget_the_shape: "not one tensor with a shape",
    take_texts: "type 8",
    take_a_sequence: "field 4",
    add_sparse: "sparse weights",
}


@pytest.mark.parametrize("change", REFUSED)
def test_what_no_engine_needs_is_refused_by_name(make_model: MakeModel, change: Change) -> None:
    with pytest.raises(UnsafeModel, match=REFUSED[change]):
        check(changed(make_model(), change))


def test_the_summary_says_what_the_file_is(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model("word", domains=[("com.microsoft", 1)])
    path = tmp_path / "engine.onnx"
    path.write_bytes(model)
    summary = check(path)
    assert summary == check(model)
    assert (summary.size, summary.ir_version, summary.opset, summary.nodes) == (
        *(len(model), 8, 17),
        3,
    )
    assert summary.opsets == {"": 17, "com.microsoft": 1}
    assert summary.operators == (("", "Cast"), ("", "MatMul"), ("", "ReduceMean"))
    assert summary.inputs == (Tensor("image", "uint8", (1, 224, 224, 3)),)
    assert summary.outputs == (Tensor("q_values", "float32", (1, 2)),)


def test_the_engine_of_the_other_packages_may_pass(make_engine: MakeModel) -> None:
    assert {tensor.name for tensor in check(make_engine()).outputs} >= {"features", "q_values"}


def test_every_allowed_operator_is_one_of_onnx() -> None:
    assert OPERATORS[""] <= {schema.name for schema in onnx.defs.get_all_schemas()}


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (OnnxLimits(max_bytes=10), "more than 10 bytes"),
        (OnnxLimits(max_nodes=2), "3 nodes; allowed are 2"),
        (OnnxLimits(max_fields=5), "more than 5 fields"),
        (OnnxLimits(opsets=(18, 20)), "allowed are 18 to 20"),
        (OnnxLimits(operators={"": frozenset({"Cast"})}), "operator 'ReduceMean'"),
    ],
)
def test_limits_are_kept(
    make_model: MakeModel, tmp_path: Path, limits: OnnxLimits, said: str
) -> None:
    path = tmp_path / "engine.onnx"
    path.write_bytes(make_model())
    for model in (make_model(), path):
        with pytest.raises(UnsafeModel, match=said):
            check(model, limits)


def test_half_a_million_empty_fields_are_given_up_soon() -> None:
    with pytest.raises(UnsafeModel, match="more than 300000 fields"):
        check(b"\x12\x00" * 500_000)


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        check(tmp_path / "none.onnx")


def test_a_second_graph_cannot_hide_behind_the_first(make_model: MakeModel) -> None:
    with pytest.raises(UnsafeModel, match="2 graphs"):
        check(make_model("a") + make_model("b"))


@pytest.mark.parametrize("data", [b"", b"\0", b"\x0b", b"\xff" * 40, b"no ONNX file", b"\x3a\x05a"])
def test_what_is_no_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(UnsafeModel):
        check(data)


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_damaged_files_are_read_as_onnx_reads_them_or_refused(
    make_model: MakeModel, data: st.DataObject
) -> None:
    model = bytearray(make_model())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(model)))
        end = data.draw(st.integers(start, min(start + 8, len(model))))
        model[start:end] = data.draw(st.binary(max_size=8))
    try:
        summary = check(bytes(model))
    except UnsafeModel:
        return
    read = onnx.load_model_from_string(bytes(model))
    assert [node.op_type for node in read.graph.node] == [
        node.op_type for node in read.graph.node if node.op_type in OPERATORS.get(_domain(node), ())
    ]
    assert len(read.graph.node) == summary.nodes
    assert [value.name for value in read.graph.input] == [one.name for one in summary.inputs]
    assert not read.functions
    assert not any(tensor.external_data for tensor in read.graph.initializer)


def _domain(node: Any) -> str:
    return "" if node.domain == "ai.onnx" else str(node.domain)


SIGNATURE = {
    "inputs": [{"name": "image", "dtype": "uint8", "shape": [1, 224, 224, 3]}],
    "outputs": [{"name": "q_values", "dtype": "float32", "shape": [1, 2]}],
}


def _with_batch(size: Any) -> Change:
    def change(model: Any) -> None:
        for value in (model.graph.input[0], model.graph.output[0]):
            dim = value.type.tensor_type.shape.dim[0]
            dim.Clear()
            if size:
                dim.dim_value = size

    return change


def test_a_graph_that_fits_its_manifest_passes(make_model: MakeModel) -> None:
    fits(check(make_model()), SIGNATURE)
    fits(check(changed(make_model(), _with_batch(8))), SIGNATURE)
    fits(check(make_model()), SIGNATURE | {"outputs": []})


@pytest.mark.parametrize(
    ("side", "wrong"),
    [
        ("inputs", [{"name": "picture", "dtype": "uint8", "shape": [1, 224, 224, 3]}]),
        ("inputs", [{"name": "image", "dtype": "float32", "shape": [1, 224, 224, 3]}]),
        ("inputs", [{"name": "image", "dtype": "uint8", "shape": [1, 192, 192, 3]}]),
        ("inputs", []),
        ("outputs", [{"name": "q_values", "dtype": "float32", "shape": [1, 9]}]),
        ("outputs", [*SIGNATURE["outputs"], {"name": "more", "dtype": "float32", "shape": [1]}]),
    ],
)
def test_a_graph_that_does_not_is_refused(
    make_model: MakeModel, side: str, wrong: list[dict[str, Any]]
) -> None:
    with pytest.raises(UnsafeModel, match=f"The model's {side} are"):
        fits(check(make_model()), SIGNATURE | {side: wrong})


def test_an_open_batch_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(UnsafeModel, match=r"image uint8\[None, 224"):
        fits(check(changed(make_model(), _with_batch(None))), SIGNATURE)


def test_the_store_takes_and_gives_no_unsafe_model(
    store: Store, make_draft: Callable[..., Draft], make_model: MakeModel
) -> None:
    bad = changed(make_model(), add_loop)
    for role in ("engine", "engine-int8", "probe"):
        with pytest.raises(UnsafeModel, match="operator 'Loop'"):
            store.publish(make_draft(), {"a.onnx": (role, bad)})
    assert store.ids() == ()
    # As an older version, which did not look, would have left it:
    draft = make_draft(scenery={"name": "old", "signature": None})
    name = store.publish(draft, {"a.onnx": ("card", bad)}, aliases=["current"]).id
    entry = store.manifest(name).files[0]
    document = store.manifest(name).to_json()
    document["files"][0]["role"] = "engine"
    renamed = _rename(store, name, document)
    with pytest.raises(UnsafeModel):
        store.load(renamed).file("engine")
    assert [problem.kind for problem in store.verify(renamed)[renamed]] == ["unsafe"]
    assert (store.root / "blobs" / "sha256" / entry.sha256[:2] / entry.sha256).exists()


def _rename(store: Store, name: str, document: dict[str, Any]) -> str:
    from model_store.files import write_json
    from model_store.manifest import content_id

    document["id"] = content_id(document)
    write_json(store.root / "agents" / str(document["id"]) / "manifest.json", document)
    return str(document["id"])
