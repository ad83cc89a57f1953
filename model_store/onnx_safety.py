"""Is this ONNX file one that a session may be made of? Asked before any runtime sees it.

What is checked: the size, the operator set, that every operator is one of ``operators``, that
no tensor lives in another file, that there are no subgraphs and no functions, and the names, types
and shapes of inputs and outputs. The fields are those of ``onnx.proto``
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); a field that is not known here is refused.

Not a defence against somebody who may choose the weights: a graph of allowed operators can still
ask for much memory or time, and decide wrongly. Against that there are signatures.

    summary = check(Path("engine.onnx"))
    fits(summary, manifest.signature)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_store.errors import UnsafeModel, UsageError
from model_store.operators import OPERATORS
from model_store.protobuf import Field, Reader

__all__ = ["OnnxLimits", "OnnxSummary", "Tensor", "check", "fits"]


#: Numpy's names of ``TensorProto.DataType``.
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}

# The fields of each message that may be there. Those with a meaning of their own are named below.
_MODEL = {1: "ir_version", 7: "graph", 8: "opset_import"} | dict.fromkeys((2, 3, 4, 5, 6, 14), "")
_GRAPH = {1: "node", 5: "initializer", 11: "input", 12: "output"} | dict.fromkeys(
    (2, 10, 13, 14, 16), ""
)
_NODE = {4: "op_type", 5: "attribute", 7: "domain"} | dict.fromkeys((1, 2, 3, 6, 9), "")
_ATTRIBUTE = {5: "tensor", 10: "tensor"} | dict.fromkeys((1, 2, 3, 4, 7, 8, 9, 13, 20), "")
_TENSOR = {14: "data_location"} | dict.fromkeys((1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16), "")


@dataclass(frozen=True, kw_only=True)
class OnnxLimits:
    """What a file may be.

    Attributes:
        max_bytes: of the file; an engine with a MobileNetV2 has 14 MB.
        max_nodes: of the graph; ours have some hundred.
        max_fields: of protobuf, which bounds the time of the check to a second.
        opsets: first and last version of ONNX's own operators.
        operators: allowed names by domain.
    """

    max_bytes: int = 256 << 20
    max_nodes: int = 20_000
    max_fields: int = 300_000
    opsets: tuple[int, int] = (11, 25)
    operators: Mapping[str, frozenset[str]] = field(default_factory=lambda: OPERATORS)


@dataclass(frozen=True)
class Tensor:
    """An input or an output; a dimension that is not fixed is None."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class OnnxSummary:
    """What a file turned out to be.

    Attributes:
        size: bytes.
        ir_version: of the file format.
        opsets: domain to version; ONNX's own domain is "".
        operators: the distinct (domain, operator) pairs, sorted.
        nodes: number of them.
        inputs: of the graph.
        outputs: of the graph.
    """

    size: int
    ir_version: int
    opsets: Mapping[str, int]
    operators: tuple[tuple[str, str], ...]
    nodes: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return self.opsets[""]


def check(model: bytes | Path, limits: OnnxLimits | None = None) -> OnnxSummary:
    """Read an ONNX file without a runtime and refuse what no engine or probe needs.

    Args:
        model: its bytes, or where it is.
        limits: default :class:`OnnxLimits`.

    Raises:
        UnsafeModel: it is no ONNX file, or breaks a limit.
        UsageError: the file cannot be read.
    """
    limits = limits or OnnxLimits()
    data = model if isinstance(model, bytes) else _contents(model, limits.max_bytes)
    if len(data) > limits.max_bytes:
        raise UnsafeModel(
            f"The model has more than {limits.max_bytes} bytes, which is the limit; "
            "export a smaller one."
        )
    return _Inspection(limits).model(memoryview(data))


def fits(summary: OnnxSummary, signature: Mapping[str, Any]) -> None:
    """Compare a graph's inputs and outputs with a manifest's ``signature``.

    The inputs are those promised, and every promised output is there. The first dimension may be
    another, but is fixed: an agent may have an engine for one picture and one for several.

    Raises:
        UnsafeModel: they differ in a name, a type or a shape.
    """
    for side, found in (("inputs", summary.inputs), ("outputs", summary.outputs)):
        promised = [Tensor(one["name"], one["dtype"], (*one["shape"],)) for one in signature[side]]
        names = {one.name for one in promised}
        actual = [one for one in found if side == "inputs" or one.name in names]
        if sorted(map(_per_picture, promised)) != sorted(map(_per_picture, actual)):
            raise UnsafeModel(
                f"The model's {side} are {_listed(found)}, but its manifest says "
                f"{_listed(promised)}; publish the agent again."
            )


def _per_picture(tensor: Tensor) -> tuple[str, str, int, str]:
    first = "" if not tensor.shape or tensor.shape[0] is not None else "open"
    return tensor.name, tensor.dtype, len(tensor.shape), f"{first}{tensor.shape[1:]}"


def _listed(tensors: Iterable[Tensor]) -> str:
    listed = ", ".join(f"{one.name} {one.dtype}{list(one.shape)}" for one in tensors) or "none"
    return listed if len(listed) <= 500 else f"{listed[:500]} …"


def _contents(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"The file {path} cannot be read ({error.strerror}).") from error


class _Inspection:
    """One file's check."""

    def __init__(self, limits: OnnxLimits) -> None:
        self._limits = limits
        self._reader = Reader(limits.max_fields)
        self._nodes = 0
        self._operators: set[tuple[str, str]] = set()

    def model(self, data: memoryview) -> OnnxSummary:
        found = self._sorted(data, _MODEL, "model")
        graphs = found["graph"]
        if len(graphs) != 1:  # protobuf would merge several, and so hide one
            raise UnsafeModel(f"The model has {len(graphs)} graphs; it is no ONNX file.")
        opsets = self._opsets(found["opset_import"])
        inputs, outputs = self._graph(graphs[0].message())
        versions = [item.signed() for item in found["ir_version"]]
        return OnnxSummary(
            size=len(data),
            ir_version=versions[-1] if versions else 0,
            opsets=opsets,
            operators=tuple(sorted(self._operators)),
            nodes=self._nodes,
            inputs=inputs,
            outputs=outputs,
        )

    def _opsets(self, imports: Iterable[Field]) -> dict[str, int]:
        opsets: dict[str, int] = {}
        for item in imports:
            found = self._sorted(item.message(), {1: "domain", 2: "version"}, "operator set")
            domain = _domain(found["domain"])
            version = found["version"][-1].signed() if found["version"] else 0
            if opsets.setdefault(domain, version) != version:
                raise UnsafeModel(f"The model has two versions of the operators {domain[:80]!r}.")
        lowest, highest = self._limits.opsets
        if not lowest <= opsets.get("", 0) <= highest:
            raise UnsafeModel(
                f"The model's operator set is {opsets.get('', 'none')}; allowed are {lowest} to "
                f"{highest}. Export it again."
            )
        return opsets

    def _graph(self, data: memoryview) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        found = self._sorted(data, _GRAPH, "graph")
        self._nodes = len(found["node"])
        if self._nodes > self._limits.max_nodes:
            raise UnsafeModel(
                f"The model has {self._nodes} nodes; allowed are {self._limits.max_nodes}."
            )
        for node in found["node"]:
            self._node(node.message())
        for tensor in found["initializer"]:
            self._tensor(tensor.message())
        inputs, outputs = (
            tuple(self._value(item.message()) for item in found[name])
            for name in ("input", "output")
        )
        return inputs, outputs

    def _node(self, data: memoryview) -> None:
        found = self._sorted(data, _NODE, "node")
        names = [item.text() for item in found["op_type"]]
        operator = (_domain(found["domain"]), names[0] if len(names) == 1 else "")
        if operator[1] not in self._limits.operators.get(operator[0], ()):
            shown = ".".join(filter(None, (operator[0], *names)))[:80]
            raise UnsafeModel(
                f"The model uses the operator {shown!r}, which no engine needs; allowed are those "
                "of model_store.operators. Export it without."
            )
        self._operators.add(operator)
        for item in found["attribute"]:
            attribute = self._sorted(item.message(), _ATTRIBUTE, "attribute")
            for tensor in attribute["tensor"]:
                self._tensor(tensor.message())

    def _tensor(self, data: memoryview) -> None:
        found = self._sorted(data, _TENSOR, "tensor")
        if any(item.signed() for item in found["data_location"]):
            raise UnsafeModel("A tensor of the model is said to be elsewhere; keep it in the file.")

    def _value(self, data: memoryview) -> Tensor:
        found = self._sorted(data, {1: "name", 2: "type", 3: "", 4: ""}, "input or output")
        name, kind = self._single(found["name"]).text(), self._single(found["type"]).message()
        types = self._sorted(kind, {1: "tensor", 6: ""}, "type")
        tensor = self._sorted(
            self._single(types["tensor"]).message(), {1: "dtype", 2: "shape"}, "tensor type"
        )
        code = self._single(tensor["dtype"]).signed()
        if code not in _DTYPES:
            raise UnsafeModel(
                f"The model's {name[:80]!r} has the type {code}, which no engine has."
            )
        shape = self._sorted(self._single(tensor["shape"]).message(), {1: "dim"}, "shape")
        dims = tuple(self._dimension(item.message()) for item in shape["dim"])
        return Tensor(name, _DTYPES[code], dims)

    def _dimension(self, data: memoryview) -> int | None:
        found = self._sorted(data, {1: "value", 2: "", 3: ""}, "dimension")
        return found["value"][-1].signed() if found["value"] else None

    def _single(self, found: list[Field]) -> Field:
        if len(found) != 1:
            raise UnsafeModel("An input or output of the model is not one tensor with a shape.")
        return found[0]

    def _sorted(
        self, data: memoryview, known: Mapping[int, str], what: str
    ) -> dict[str, list[Field]]:
        """Return the fields of a message by the names in ``known``, and refuse other fields."""
        found: dict[str, list[Field]] = {name: [] for name in known.values()}
        for item in self._reader.fields(data):
            if item.number not in known:
                raise UnsafeModel(
                    f"The model's {what} has the field {item.number}, which no engine needs "
                    f"({_FORBIDDEN.get((what, item.number), 'unknown')}); export it without."
                )
            if known[item.number]:
                found[known[item.number]].append(item)
        return found


#: What the fields are that a hostile or a careless exporter uses most.
_FORBIDDEN = {
    ("model", 20): "training information",
    ("model", 25): "functions",
    ("model", 26): "a configuration of devices",
    ("graph", 15): "sparse weights",
    ("node", 8): "an overload of a function",
    ("attribute", 6): "a subgraph",
    ("attribute", 11): "subgraphs",
    ("attribute", 21): "a reference into a function",
    ("attribute", 22): "sparse weights",
    ("attribute", 23): "sparse weights",
    ("tensor", 3): "a segment",
    ("tensor", 13): "data outside of the file",
}


def _domain(found: list[Field]) -> str:
    if len(found) > 1:
        raise UnsafeModel("The model names the domain of an operator twice.")
    name = found[0].text() if found else ""
    return "" if name == "ai.onnx" else name
