"""INT8: the pixels go in as they are, what harms stays fp32, what decides otherwise is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_sdk.agent import Agent
from edge_sdk.engine import OnnxEngine
from edge_sdk.ladder import PAPER
from edge_sdk.policy import OperatingPoint, choose
from export.calibrate import calibrate
from export.fuse import export_prefix, fuse
from export.int8 import quantize
from export.network import FactoredHead
from export.run import TrainingRun
from export.tidy import initializers
from model_store.errors import GateFailed, UsageError

Pictures = Callable[..., NDArray[np.uint8]]


class TwoBlocks(nn.Module):  # type: ignore[misc]
    """Two convolutions; ``outlier`` lifts the range of the second one's first channel."""

    def __init__(self, outlier: float) -> None:
        super().__init__()
        self.cut, self.side, self.confidence = 2, 16, False
        torch.manual_seed(3)
        self.blocks = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 1))
        with torch.no_grad():
            self.blocks[2].bias[0] += outlier
        self.register_buffer("mean", torch.tensor([123.7, 116.3, 103.5]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([58.4, 57.1, 57.4]).view(1, 3, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:  # (N, S, S, 3) uint8 -> (N, 8) float32
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        pooled: Tensor = self.blocks((pixels - self.mean) / self.std).mean(dim=(2, 3))
        return pooled


def _engine(outlier: float, sharpness: float) -> bytes:
    prefix = TwoBlocks(outlier)
    torch.manual_seed(4)
    head = FactoredHead(8, PAPER)
    with torch.no_grad():
        head.agreement_logit.weight.mul_(sharpness)
        head.agreement_logit.weight[:, 0] = 0.0  # what is lifted tells nothing
        head.log_size.weight.mul_(0.01)
        head.log_size.weight[:, 0] = 0.0
        head.log_size.bias.copy_(torch.linspace(-2.0, 0.3, len(PAPER)))
    return fuse(export_prefix(prefix), head, PAPER)


def _agent(engine: bytes) -> Agent:
    return Agent("a", OnnxEngine(engine), OperatingPoint(trade_off=2.0))


@pytest.fixture(scope="module")
def tame() -> bytes:
    return _engine(outlier=0.0, sharpness=1.0)


@pytest.fixture(scope="module")
def wild() -> bytes:
    return _engine(outlier=1e5, sharpness=4.0)


def _nodes(model: bytes) -> list[Any]:
    return list(onnx.load_model_from_string(model).graph.node)


def test_the_pixels_are_the_quantised_input(tame: bytes, pictures: Pictures) -> None:
    calibration = calibrate(tame, pictures(20))
    first, second, *_ = _nodes(calibration.quantized(tuple(calibration.blocks)))
    graph = onnx.load_model_from_string(calibration.quantized(tuple(calibration.blocks))).graph
    readers = [node for node in graph.node if "image" in node.input]
    assert [node.op_type for node in readers] == ["Transpose"]
    (reader,) = [node for node in graph.node if readers[0].output[0] in node.input]
    constants = initializers(onnx.load_model_from_string(calibration.quantized(["blocks.0"])))
    assert reader.op_type == "DequantizeLinear"
    assert (constants[reader.input[1]], constants[reader.input[2]]) == (1.0, calibration.zero_point)
    assert {first.op_type, second.op_type} <= {"Transpose", "DequantizeLinear"}
    assert not {"Cast", "Sub", "Div"} & {node.op_type for node in graph.node[:6]}


def test_weights_are_quantised_per_channel(tame: bytes, pictures: Pictures) -> None:
    calibration = calibrate(tame, pictures(20))
    constants = initializers(
        onnx.load_model_from_string(calibration.quantized(tuple(calibration.blocks)))
    )
    (scales,) = [v for k, v in constants.items() if k.endswith("blocks.0.weight_scale")]
    (weights,) = [v for k, v in constants.items() if k.endswith("blocks.0.weight_quantized")]
    assert (scales.shape, weights.dtype) == ((8,), np.int8)


def test_a_tame_network_is_quantised_whole_and_decides_the_same(
    tame: bytes, pictures: Pictures
) -> None:
    agent, inputs = _agent(tame), pictures(64)
    made = quantize(agent, tame, pictures(32), inputs)
    assert made.blocks == ("blocks.0", "blocks.2")
    assert made.kept == ()
    assert made.parity.same_rung >= 0.995
    variant = OnnxEngine(made.model)
    assert (variant.side, variant.ladder, variant.factored) == (16, PAPER, True)
    assert made.parity.pictures == 64
    same = choose(variant.run(inputs), agent.operating_point) == choose(
        agent.engine.run(inputs), agent.operating_point
    )
    assert same.mean() == made.parity.same_rung
    facts = {entry.key: entry.value for entry in _model(made.model).metadata_props}
    assert facts["precision"] == "int8"


def _model(data: bytes) -> Any:
    return onnx.load_model_from_string(data)


def test_a_block_that_changes_decisions_stays_fp32(
    wild: bytes, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.gate.MIN_SAME", 0.9)
    said: list[str] = []
    made = quantize(_agent(wild), wild, pictures(64), pictures(64), tell=said.append)
    assert made.whole.same_rung < 0.9
    assert (made.blocks, made.kept) == (("blocks.0",), ("blocks.2",))
    assert made.parity.same_rung >= 0.9
    assert "All in INT8" in said[0]
    facts = {entry.key: entry.value for entry in _model(made.model).metadata_props}
    assert facts["precision"] == "int8+fp32"


def test_where_no_block_bears_it_int8_is_refused_with_the_pictures(
    wild: bytes, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.gate.MIN_SAME", 1.1)
    with pytest.raises(GateFailed, match=r"INT8 is refused.*pictures \[.*the fp32 engine stays"):
        quantize(_agent(wild), wild, pictures(64), pictures(64))


def test_the_probe_set_has_the_last_word(tame: bytes, pictures: Pictures) -> None:
    agent = _agent(tame)
    broken = replace(agent, operating_point=OperatingPoint(trade_off=2.0))
    with pytest.raises(GateFailed, match="no pictures"):
        quantize(broken, tame, pictures(16), pictures(16)[:0])


def test_the_form_for_tensorrt_is_symmetric(tame: bytes, pictures: Pictures) -> None:
    calibration = calibrate(tame, pictures(20))
    model = _model(calibration.quantized(tuple(calibration.blocks), symmetric=True))
    constants = initializers(model)
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [constants[node.input[2]] for node in pairs if len(node.input) > 2]
    assert pairs
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert not any(value.dtype == np.int32 and value.size == 8 for value in constants.values())
    OnnxEngine(model.SerializeToString()).run(pictures(2))


def test_calibration_needs_pictures(tame: bytes, pictures: Pictures) -> None:
    with pytest.raises(UsageError, match="--calibration DIR"):
        calibrate(tame, pictures(1)[:0])


def test_a_graph_that_begins_otherwise_is_told(
    run_of_training: TrainingRun, pictures: Pictures
) -> None:
    model = _model(fuse(run_of_training.prefix, run_of_training.head, PAPER))
    for node in model.graph.node:
        if node.op_type == "Sub":
            node.op_type = "Add"
            break
    with pytest.raises(UsageError, match="does not begin with pixels, a subtraction"):
        calibrate(model.SerializeToString(), pictures(4))
