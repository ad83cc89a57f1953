"""A classifier's ONNX graph as differentiable torch operations, cut at a named tensor.

What is sent over the wire is learnt by what it does to the classifier's answers, so gradients must
pass through a graph that arrives as a file. The interpreter knows the operators of ordinary
convolutional classifiers and names the first one it does not know. It changes nothing: batch
normalisation keeps its stored statistics. Not here: choosing a cut (``training.codec.classifier``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.onnx_operators import OPERATORS, Attributes, Operator, convolve, gemm, pad
from model_store.errors import UsageError

__all__ = ["Graph", "Place", "parts", "places"]

#: (tensor's name, value, multiplications) of one step.
Seen = Callable[[str, Any, int], None]


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor that all of the answer goes through.

    Attributes:
        name: the tensor's.
        shape: (D, h, w).
        macs: multiplications of everything before it, for one picture.
    """

    name: str
    shape: tuple[int, int, int]
    macs: int


class Graph(nn.Module):
    """An ONNX graph with one input that matters and one output.

    Its float initializers are parameters that do not learn until somebody lets them; their ONNX
    names are the keys of ``names``.

    Args:
        model: ``onnx.ModelProto``; constants are folded when the module is made.

    Raises:
        UsageError: the graph has an operator that is not known here.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        unknown = sorted({node.op_type for node in model.graph.node} - OPERATORS.keys())
        if unknown:
            raise UsageError(
                f"The graph uses the operator {unknown[0]}, which cannot be differentiated here; "
                f"known are {', '.join(sorted(OPERATORS))}. Export the classifier without it."
            )
        stored = {one.name for one in model.graph.initializer}
        (self.input,) = (one.name for one in model.graph.input if one.name not in stored)
        self.output: str = model.graph.output[0].name
        self.weights = nn.ParameterList()
        #: ONNX name -> number of the parameter.
        self.names: dict[str, int] = {}
        self._constants: dict[str, Tensor] = {}
        for tensor in model.graph.initializer:
            self._keep(tensor.name, torch.from_numpy(numpy_helper.to_array(tensor).copy()))
        self._steps: list[tuple[Operator, tuple[str, ...], tuple[str, ...], Attributes]] = []
        with torch.no_grad():
            for node in model.graph.node:
                self._take(node)
        self._merge_pads()

    def forward(self, values: Tensor, seen: Seen | None = None) -> Tensor:
        """Return the output for the input.

        Args:
            values: the input.
            seen: is told every step: the tensor's name, its value, the multiplications behind it.
        """
        known: dict[str, Any] = {self.input: values}
        for operator, inputs, outputs, attributes in self._steps:
            given = [self._value(name, known) for name in inputs]
            known[outputs[0]] = made = operator(given, attributes)
            if seen is not None:
                seen(outputs[0], made, _multiplications(operator, given, made))
        answer: Tensor = known[self.output]
        return answer

    def folded(self, model: Any) -> Any:
        """Return the model without the nodes that do not depend on the input.

        Args:
            model: the one that this module was made from.
        """
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        kept = [node for node in copy.graph.node if node.output[0] not in self._constants]
        stored = {one.name for one in copy.graph.initializer}
        used = {name for node in kept for name in node.input} - stored
        for name in sorted(used & self._constants.keys()):
            array = self._constants[name].numpy()
            copy.graph.initializer.append(numpy_helper.from_array(array, name))
        del copy.graph.node[:]
        copy.graph.node.extend(kept)
        return copy

    def tuned(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the float weights by their ONNX names."""
        return {name: self.weights[i].detach().numpy() for name, i in self.names.items()}

    def alone(self) -> set[str]:
        """Return the tensors that nothing on the way to the answer passes by.

        The number of pictures does not count: it can be read off any of them.
        """
        last: dict[str, int] = {self.output: len(self._steps)}
        sizes = {outs[0] for operator, _, outs, _ in self._steps if operator is OPERATORS["Shape"]}
        for number, (operator, inputs, outputs, _) in enumerate(self._steps):
            if sizes.intersection(inputs):
                sizes.update(outputs[:1])
            if operator is not OPERATORS["Shape"]:
                last.update(dict.fromkeys(inputs, number))
        dynamic = {self.input, *(outs[0] for _, _, outs, _ in self._steps)} - sizes
        found, open_ = set(), {self.input}
        for number, (_, _, outputs, _) in enumerate(self._steps):
            open_ = {name for name in open_ if last.get(name, -1) > number}
            if outputs[0] in dynamic:
                open_.add(outputs[0])
                if open_ == {outputs[0]}:
                    found.add(outputs[0])
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the weights to another device; numbers alone may stay where they are."""
        super()._apply(fn, recurse)
        device = fn(torch.empty(0)).device
        for name, value in self._constants.items():
            if value.is_floating_point() and value.dim() > 0:
                self._constants[name] = value.to(device)
        return self

    def _keep(self, name: str, value: Tensor) -> None:
        if value.is_floating_point() and value.numel() > 1:
            self.names[name] = len(self.weights)
            self.weights.append(nn.Parameter(value, requires_grad=False))
        else:
            self._constants[name] = value

    def _value(self, name: str, known: Mapping[str, Any]) -> Any:
        if name in known:
            return known[name]
        if name in self.names:
            return self.weights[self.names[name]]
        return self._constants[name] if name else None

    def _take(self, node: Any) -> None:
        """Add a node, or its result where nothing in it depends on the input."""
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        operator, inputs = OPERATORS[node.op_type], tuple(node.input)
        if all(not name or name in self._constants for name in inputs):
            made = operator([self._value(name, {}) for name in inputs], attributes)
            self._constants[node.output[0]] = torch.as_tensor(made)
        else:
            self._steps.append((operator, inputs, tuple(node.output), attributes))

    def _merge_pads(self) -> None:
        """Let convolutions pad by themselves where the exporter put a step before them.

        That saves a copy each way; it is done where the edge is even, of zeros, and used once.
        """
        users = Counter(name for _, inputs, _, _ in self._steps for name in inputs)
        pads = {
            outputs[0]: (inputs[0], edge)
            for operator, inputs, outputs, attributes in self._steps
            if operator is pad and users[outputs[0]] == 1
            if (edge := self._even_edge(inputs, attributes))
        }
        steps: list[Any] = []
        for operator, inputs, outputs, attributes in self._steps:
            if operator is convolve and inputs[0] in pads and not any(attributes.get("pads", [])):
                source, edge = pads.pop(inputs[0])
                steps = [step for step in steps if step[2][0] != inputs[0]]
                inputs, attributes = (source, *inputs[1:]), {**attributes, "pads": edge}
            steps.append((operator, inputs, outputs, attributes))
        self._steps = steps

    def _even_edge(self, inputs: tuple[str, ...], attributes: Attributes) -> list[int] | None:
        """Return a convolution's ``pads`` that do what a Pad of zeros does, if there are any."""
        if attributes.get("mode", b"constant") != b"constant" or inputs[1] not in self._constants:
            return None
        value = self._constants.get(inputs[2]) if len(inputs) > 2 and inputs[2] else None
        pads = self._constants[inputs[1]].tolist()
        even = len(pads) == 8 and pads[:4] == pads[4:] and not any(pads[:2])
        return pads[2:4] * 2 if even and not (value is not None and float(value)) else None


def parts(model: Any, cut: str) -> tuple[Any, Any]:
    """Return the graph up to a tensor and the graph from it on, as ``onnx.ModelProto``.

    Args:
        model: the whole graph, with one output that matters, its first.
        cut: name of a float tensor (N, D, h, w).

    Raises:
        UsageError: there is no such tensor, or the rest needs more than it.
    """
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    if cut not in made:
        raise UsageError(f"The graph has no tensor {cut!r} between its input and its answer.")
    source = _source(model)
    batch_from(model, cut)
    before, after = _needed(graph, cut, set()), _needed(graph, graph.output[0].name, {cut})
    if source in after[1]:
        raise UsageError(
            f"The answer needs more than the tensor {cut!r} (another branch passes it by); "
            "cut where all of the graph goes through one tensor."
        )
    sizes = ["pictures", "features", "height", "width"]
    inner = onnx.helper.make_tensor_value_info(cut, onnx.TensorProto.FLOAT, sizes)
    whole = {one.name: one for one in graph.input}
    front = _model(model, before, [whole[source]], [inner])
    return front, _model(model, after, [inner], [graph.output[0]])


def places(model: Any, example: Tensor) -> tuple[list[Place], int]:
    """Return where a graph can be cut, in order, and the multiplications of the whole graph.

    Args:
        model: ``onnx.ModelProto``.
        example: an input of one picture.
    """
    graph = Graph(model)
    shapes: dict[str, tuple[int, ...]] = {}
    spent: dict[str, int] = {}

    def seen(name: str, value: Any, macs: int) -> None:
        shapes[name] = tuple(value.shape)
        spent[name] = macs

    with torch.no_grad():
        graph(example, seen)
    found, sofar = [], 0
    for name in spent:
        sofar += spent[name]
        if name in graph.alone() and len(shapes[name]) == 4:
            depth, height, width = shapes[name][1:]
            found.append(Place(name, (depth, height, width), sofar))
    return found, sofar


def _multiplications(operator: Operator, given: list[Any], made: Any) -> int:
    if operator is convolve:
        return int(made[0].numel() * given[1][0].numel())
    if operator is gemm or operator is OPERATORS["MatMul"]:
        return int(made[0].numel() * given[0].shape[-1])
    return 0


def _source(model: Any) -> str:
    stored = {one.name for one in model.graph.initializer}
    inputs = [one.name for one in model.graph.input if one.name not in stored]
    if len(inputs) != 1:
        raise UsageError(f"The graph has the inputs {inputs}; a classifier has one, the picture.")
    return inputs[0]


def batch_from(model: Any, tensor: str) -> None:
    """Let the graph read the number of pictures off ``tensor``.

    Exporters read it wherever the source code did, often off the input, so that the answer would
    need the picture whatever the cut. It is the first size of every tensor on the way.
    """
    graph = model.graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    place = next(i for i, node in enumerate(graph.node) if tensor in node.output)
    for node in [node for node in graph.node if node.op_type == "Shape"]:
        users = [user for user in graph.node if node.output[0] in user.input]
        firsts = [
            user.op_type == "Gather" and np.all(constants.get(user.input[1], 1) == 0)
            for user in users
        ]
        if all(firsts) and list(graph.node).index(node) < place and node.input[0] != tensor:
            _rewire(graph, node, users, tensor)
            place = next(i for i, one in enumerate(graph.node) if tensor in one.output)


def _rewire(graph: Any, shape: Any, users: Sequence[Any], tensor: str) -> None:
    """Move ``Shape -> Gather`` behind ``tensor``, and what only depends on them with it."""
    moved = [shape, *users]
    for node in moved:
        graph.node.remove(node)
    shape.input[0] = tensor
    place = next(i for i, node in enumerate(graph.node) if tensor in node.output)
    for offset, node in enumerate(moved, start=1):
        graph.node.insert(place + offset, node)
    ordered = _sorted(graph)
    del graph.node[:]
    graph.node.extend(ordered)


def _sorted(graph: Any) -> list[Any]:
    """Return the nodes so that each comes behind what it needs, else in their old order."""
    made = {one.name for one in (*graph.input, *graph.initializer)} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = next(node for node in waiting if made.issuperset(node.input))
        waiting.remove(ready)
        ordered.append(ready)
        made.update(ready.output)
    return ordered


def _needed(graph: Any, target: str, given: set[str]) -> tuple[list[Any], set[str]]:
    """Return the nodes that make ``target`` from ``given``, and every tensor they touch."""
    maker = {name: node for node in graph.node for name in node.output}
    wanted, seen, nodes = [target], set(given), set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in maker:
            nodes.add(id(maker[name]))
            wanted += [one for one in maker[name].input if one]
    return [node for node in graph.node if id(node) in nodes], seen


def _model(model: Any, part: tuple[list[Any], set[str]], inputs: list[Any], outs: list[Any]) -> Any:
    nodes, touched = part
    weights = [one for one in model.graph.initializer if one.name in touched]
    graph = onnx.helper.make_graph(nodes, "part", inputs, outs, weights)
    return onnx.helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )
