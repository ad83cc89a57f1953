"""What ONNX operators of ordinary convolutional classifiers do, in torch: one table.

Every function takes the node's inputs (None where one is left out) and its attributes. Not here:
running a graph (``onnx_graph``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from model_store.errors import UsageError

__all__ = ["OPERATORS", "Attributes", "Operator", "convolve", "gemm", "pad"]

#: A node's attributes by name, as Python values.
Attributes = Mapping[str, Any]

Operator = Callable[[list[Any], Attributes], Any]


def _pairs(pads: Sequence[int]) -> list[int]:
    """ONNX's (begins, ends) of the last axes to torch's pairs, last axis first."""
    half = len(pads) // 2
    return [int(pads[i + side * half]) for i in reversed(range(half)) for side in (0, 1)]


def _padded(x: Tensor, attributes: Attributes, value: float = 0.0) -> Tensor:
    """Pad as a window operator's attributes say; a symmetric one pays nothing here."""
    automatic = attributes.get("auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        kernel = attributes["kernel_shape"]
        strides = attributes.get("strides", [1] * len(kernel))
        totals = [
            max((-(-size // step) - 1) * step + width - size, 0)
            for size, step, width in zip(x.shape[2:], strides, kernel, strict=True)
        ]
        small = [total // 2 for total in totals]
        large = [total - half for total, half in zip(totals, small, strict=True)]
        pads = small + large if automatic == b"SAME_UPPER" else large + small
    else:
        pads = attributes.get("pads", [0] * (2 * (x.dim() - 2)))
    return F.pad(x, _pairs(pads), value=value) if any(pads) else x


def convolve(inputs: list[Any], attributes: Attributes) -> Tensor:
    """Return Conv, in two dimensions."""
    x, weight, bias = (*inputs, None)[:3]
    strides = attributes.get("strides", [1, 1])
    dilations, group = attributes.get("dilations", [1, 1]), attributes.get("group", 1)
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or pads[:2] != pads[2:]:
        x, pads = _padded(x, attributes), [0, 0, 0, 0]
    if x.requires_grad and not weight.requires_grad and dilations == [1, 1]:
        answer: Tensor = _Frozen.apply(x, weight, bias, strides, pads[:2], group)
        return answer
    return F.conv2d(x, weight, bias, strides, pads[:2], dilations, group)


class _Frozen(torch.autograd.Function):
    """A convolution whose weights do not learn; its gradient is a convolution as well.

    The library's own backward pass has no fast path in bfloat16: this one halves a step's time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        strides: list[int],
        pads: list[int],
        group: int,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.facts = (x.shape[2:], strides, pads, group)
        return F.conv2d(x, weight, bias, strides, pads, 1, group)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        sizes, strides, pads, group = ctx.facts
        out, inner, *kernel = weight.shape
        if max(strides) > 1:
            apart = [(n - 1) * s + 1 for n, s in zip(slope.shape[2:], strides, strict=True)]
            spread = slope.new_zeros(*slope.shape[:2], *apart)
            spread[:, :, :: strides[0], :: strides[1]] = slope
            slope = spread
        before = [size - 1 - edge for size, edge in zip(kernel, pads, strict=True)]
        after = [
            size - have + width - 1 - edge
            for size, have, width, edge in zip(sizes, slope.shape[2:], kernel, before, strict=True)
        ]
        if min(*before, *after) < 0 or before != after:
            slope = F.pad(slope, (before[1], after[1], before[0], after[0]))
            before = [0, 0]
        turned = weight.view(group, out // group, inner, *kernel).transpose(1, 2).flip(3, 4)
        turned = turned.reshape(group * inner, out // group, *kernel)
        return F.conv2d(slope, turned, None, 1, before, 1, group), None, None, None, None, None


def _pool_max(inputs: list[Any], attributes: Attributes) -> Tensor:
    x = _padded(inputs[0], attributes, float("-inf"))
    return F.max_pool2d(
        x,
        attributes["kernel_shape"],
        attributes.get("strides", [1, 1]),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )


def _pool_mean(inputs: list[Any], attributes: Attributes) -> Tensor:
    kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
    x, pads = inputs[0], attributes.get("pads", [0, 0, 0, 0])
    sums = F.avg_pool2d(_padded(x, attributes), kernel, strides)
    if attributes.get("count_include_pad", 0) or not any(pads):
        return sums
    return sums / F.avg_pool2d(_padded(torch.ones_like(x[:1, :1]), attributes), kernel, strides)


def _clip(inputs: list[Any], attributes: Attributes) -> Tensor:
    x, least, most = (*inputs, None, None)[:3]
    least = attributes.get("min", least)
    most = attributes.get("max", most)
    low, high = (None if end is None else float(end) for end in (least, most))
    if low is None or high is None:
        return torch.clamp(x, low, high)
    # hardtanh is clamp with a derivative that is one pass over the memory instead of four.
    return F.hardtanh(x, low, high)


def pad(inputs: list[Any], attributes: Attributes) -> Tensor:
    """Return Pad; its pads are constants."""
    mode = attributes.get("mode", b"constant").decode()
    pads = attributes.get("pads") or inputs[1].tolist()
    value = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else 0.0
    pairs = _pairs(pads)
    while len(pairs) > 2 and pairs[-2:] == [0, 0]:  # torch reflects the last axes only
        pairs = pairs[:-2]
    if mode == "constant":
        return F.pad(inputs[0], pairs, value=value)
    return F.pad(inputs[0], pairs, mode={"edge": "replicate"}.get(mode, mode))


def _slice(inputs: list[Any], _: Attributes) -> Tensor:
    x, starts, ends = inputs[0], inputs[1].tolist(), inputs[2].tolist()
    axes = inputs[3].tolist() if len(inputs) > 3 else list(range(len(starts)))
    steps = inputs[4].tolist() if len(inputs) > 4 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        rows = range(x.shape[axis])[slice(start, end if end > -(2**31) else None, step)]
        x = x.index_select(axis, torch.tensor(list(rows), dtype=torch.long))
    return x


def _reshape(inputs: list[Any], _: Attributes) -> Tensor:
    x, wanted = inputs[0], [int(size) for size in inputs[1]]
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(wanted)])


def _axes(inputs: list[Any], attributes: Attributes) -> list[int] | None:
    if "axes" in attributes:
        return list(attributes["axes"])
    return inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else None


def _unsqueeze(inputs: list[Any], attributes: Attributes) -> Tensor:
    x = inputs[0]
    for axis in sorted(_axes(inputs, attributes) or []):
        x = x.unsqueeze(axis)
    return x


def _squeeze(inputs: list[Any], attributes: Attributes) -> Tensor:
    axes = _axes(inputs, attributes)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(axes)


def _reduce_mean(inputs: list[Any], attributes: Attributes) -> Tensor:
    x = inputs[0]
    axes = _axes(inputs, attributes) or list(range(x.dim()))
    return x.mean(dim=axes, keepdim=bool(attributes.get("keepdims", 1)))


def _normalise(inputs: list[Any], attributes: Attributes) -> Tensor:
    x, scale, bias, mean, variance = inputs
    return F.batch_norm(
        x, mean, variance, scale, bias, training=False, eps=attributes.get("epsilon", 1e-5)
    )


def gemm(inputs: list[Any], attributes: Attributes) -> Tensor:
    """Return Gemm."""
    a, b = inputs[0], inputs[1]
    a = a.T if attributes.get("transA") else a
    b = b.T if attributes.get("transB") else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if len(inputs) < 3 else product + attributes.get("beta", 1.0) * inputs[2]


_TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64}


def _cast(inputs: list[Any], attributes: Attributes) -> Tensor:
    kind = attributes["to"]
    if kind not in _TYPES:
        raise UsageError(f"The graph casts to ONNX type {kind}; known are {sorted(_TYPES)}.")
    return inputs[0].to(_TYPES[kind])


def _constant(_: list[Any], attributes: Attributes) -> Tensor:
    ((kind, value),) = attributes.items()
    return (
        torch.from_numpy(numpy_helper.to_array(value).copy())
        if kind == "value"
        else (torch.tensor(value))
    )


def _filled(inputs: list[Any], attributes: Attributes) -> Tensor:
    value = attributes.get("value")
    one = torch.zeros(1) if value is None else torch.from_numpy(numpy_helper.to_array(value).copy())
    return one.expand(*inputs[0].tolist()).clone()


def _gather(inputs: list[Any], attributes: Attributes) -> Tensor:
    x, index, axis = inputs[0], inputs[1].long(), attributes.get("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    taken = x.index_select(axis, index.reshape(-1))
    return taken.reshape([*x.shape[:axis], *index.shape, *x.shape[axis:][1:]])


def _softmax(inputs: list[Any], attributes: Attributes) -> Tensor:
    return torch.softmax(inputs[0], dim=attributes.get("axis", -1))


def _hard_sigmoid(inputs: list[Any], attributes: Attributes) -> Tensor:
    slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return torch.clamp(slope * inputs[0] + offset, 0.0, 1.0)


def _simple(function: Callable[..., Tensor]) -> Operator:
    return lambda inputs, attributes: function(*inputs)


#: ONNX operator -> what it does in torch.
OPERATORS: Mapping[str, Operator] = {
    "Add": _simple(torch.add),
    "AveragePool": _pool_mean,
    "BatchNormalization": _normalise,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda inputs, attributes: torch.cat(inputs, dim=attributes["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": convolve,
    "Div": _simple(torch.div),
    "Dropout": lambda inputs, attributes: inputs[0],
    "Elu": lambda inputs, attributes: F.elu(inputs[0], attributes.get("alpha", 1.0)),
    "Exp": _simple(torch.exp),
    "Flatten": lambda inputs, attributes: inputs[0].flatten(attributes.get("axis", 1)),
    "Gather": _gather,
    "Gemm": gemm,
    "GlobalAveragePool": lambda inputs, attributes: inputs[0].mean(dim=(2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _simple(F.hardswish),
    "Identity": lambda inputs, attributes: inputs[0],
    "LeakyRelu": lambda inputs, attributes: F.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
    "MatMul": _simple(torch.matmul),
    "MaxPool": _pool_max,
    "Mul": _simple(torch.mul),
    "PRelu": lambda inputs, attributes: torch.where(
        inputs[0] < 0, inputs[0] * inputs[1], inputs[0]
    ),
    "Pad": pad,
    "Pow": _simple(torch.pow),
    "ReduceMean": _reduce_mean,
    "Relu": _simple(torch.relu),
    "Reshape": _reshape,
    "Shape": lambda inputs, attributes: torch.tensor(inputs[0].shape),
    "Sigmoid": _simple(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _simple(F.softplus),
    "Sqrt": _simple(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _simple(torch.sub),
    "Tanh": _simple(torch.tanh),
    "Transpose": lambda inputs, attributes: inputs[0].permute(*attributes["perm"]),
    "Unsqueeze": _unsqueeze,
}
