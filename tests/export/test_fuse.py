"""Torch modules to one ONNX engine, and the prefix back out of it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edge_sdk.engine import SCHEMA, OnnxEngine
from edge_sdk.errors import EngineError
from edge_sdk.ladder import FULL, PAPER
from edge_sdk.policy import OperatingPoint
from edge_sdk.preprocess import spec_sha256
from export.fuse import OPSET, export_prefix, fuse, prefix_of
from export.network import WHOLE, DQNHead, FactoredHead, Network, Prefix
from export.parity import check_parity, scores_of
from export.run import TrainingRun
from model_store.errors import EnvironmentMissing, UsageError
from training import assets

Pictures = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="module")
def engine(run_of_training: TrainingRun) -> bytes:
    return fuse(run_of_training.prefix, run_of_training.head, PAPER)


def test_the_engine_computes_what_the_network_does(
    engine: bytes, run_of_training: TrainingRun
) -> None:
    got = OnnxEngine(engine).run(run_of_training.inputs)
    for name in ("features", "q_values", "agreement", "size_ratio"):
        expected = getattr(run_of_training.expected, name)
        np.testing.assert_allclose(getattr(got, name), expected, rtol=1e-3, atol=1e-4)


def test_the_engine_keeps_its_contract(engine: bytes) -> None:
    model = onnx.load_model_from_string(engine)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts.keys() == {"schema", "ladder", "preprocess_sha256", "precision", "opset"}
    assert (facts["precision"], facts["opset"]) == ("fp32", str(OPSET))
    assert (facts["schema"], facts["preprocess_sha256"]) == (SCHEMA, spec_sha256())
    assert json.loads(facts["ladder"]) == [rung.as_dict() for rung in PAPER]
    assert [entry.version for entry in model.opset_import if not entry.domain] == [OPSET]
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == [
        "features",
        "q_values",
        "agreement",
        "size_ratio",
    ]
    assert OnnxEngine(engine).side == 16


def test_nothing_of_the_machine_that_exported_it_is_in_the_engine(engine: bytes) -> None:
    for trace in (str(Path.home()), str(Path(__file__).parents[2]), "site-packages", ".py"):
        assert trace.encode() not in engine


def test_the_same_parts_make_the_same_engine(engine: bytes, run_of_training: TrainingRun) -> None:
    assert fuse(run_of_training.prefix, run_of_training.head, PAPER) == engine


def test_a_dqn_head_makes_an_engine_with_q_values_alone(
    tiny_onnx: bytes, tiny_prefix: nn.Module, pictures: Pictures
) -> None:
    torch.manual_seed(0)
    head, images = DQNHead(8, len(PAPER), (5,)).eval(), pictures(20)
    made = OnnxEngine(fuse(tiny_onnx, head, PAPER))
    expected = scores_of(Network(tiny_prefix, head), images)
    report = check_parity(expected, made, images, OperatingPoint(trade_off=None))
    assert report.same_rung == 1.0
    assert made.run(images).agreement is None


def test_the_prefix_comes_out_as_it_went_in(
    engine: bytes, tiny_onnx: bytes, run_of_training: TrainingRun
) -> None:
    out = prefix_of(engine)
    graph = onnx.load_model_from_string(out).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["image", "features"]
    assert abs(len(out) - len(tiny_onnx)) < 2000
    again = fuse(out, run_of_training.head, PAPER)
    np.testing.assert_array_equal(
        OnnxEngine(again).run(run_of_training.inputs).q_values,
        OnnxEngine(engine).run(run_of_training.inputs).q_values,
    )


def test_a_ladder_that_the_head_does_not_fit_is_caught_when_loaded(
    tiny_onnx: bytes, run_of_training: TrainingRun
) -> None:
    with pytest.raises(EngineError, match="the ladder has 18"):
        OnnxEngine(fuse(tiny_onnx, run_of_training.head, FULL))


@pytest.mark.parametrize("data", [b"", b"\xff" * 50])
def test_what_is_no_prefix_is_refused(data: bytes, run_of_training: TrainingRun) -> None:
    with pytest.raises(UsageError, match="ONNX model"):
        fuse(data, run_of_training.head, PAPER)
    with pytest.raises(UsageError, match="ONNX model"):
        prefix_of(data)


def test_exporting_is_quiet_and_leaves_warnings_and_loggers_as_they_were(
    tiny_onnx: bytes, run_of_training: TrainingRun, capfd: pytest.CaptureFixture[str]
) -> None:
    levels = [logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fuse(tiny_onnx, run_of_training.head, PAPER)
    assert not caught
    assert capfd.readouterr() == ("", "")
    assert levels == [logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")]


def test_a_cached_prefix_is_not_exported_again(
    tiny_prefix: Prefix, tiny_onnx: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.fuse._export", lambda *_: onnx.load_model_from_string(tiny_onnx))
    first = export_prefix(tiny_prefix, tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"from the cache")
    assert first == tiny_onnx
    assert export_prefix(tiny_prefix, tmp_path) == b"from the cache"


def test_other_weights_are_another_prefix_in_the_cache(
    tiny_prefix: Prefix, tiny_onnx: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.fuse._export", lambda *_: onnx.load_model_from_string(tiny_onnx))
    export_prefix(tiny_prefix, tmp_path)
    other = type(tiny_prefix)(16)  # type: ignore[arg-type]
    export_prefix(other, tmp_path)
    other.side = 32
    export_prefix(other, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("cut", "confidence"), [(7, False), (WHOLE, True)])
def test_mobilenet_decides_in_the_engine_as_in_torch(
    cut: int, confidence: bool, pictures: Pictures
) -> None:
    try:
        weights = assets.find("mobilenet-v2")
    except EnvironmentMissing as error:
        pytest.skip(str(error))
    prefix = Prefix(weights, cut=cut, side=64, confidence=confidence)
    images = pictures(24, 64)
    with torch.inference_mode():
        features = prefix(torch.from_numpy(images))
    head = _spread(FactoredHead(features.shape[1], FULL), features)
    engine = fuse(export_prefix(prefix), head, FULL)
    expected, point = scores_of(Network(prefix, head), images), OperatingPoint(trade_off=2.0)

    report = check_parity(expected, OnnxEngine(engine), images, point)

    assert report.same_rung == 1.0
    assert report.max_difference < 1e-3
    assert len(set(expected.q_values.argmax(axis=1))) > 1, "the pictures must be told apart"
    session = onnxruntime.InferenceSession(prefix_of(engine), providers=["CPUExecutionProvider"])
    (got,) = session.run(["features"], {"image": images[:1]})
    np.testing.assert_allclose(got, features[:1], rtol=1e-3, atol=1e-3)


def _spread(head: FactoredHead, features: torch.Tensor) -> FactoredHead:
    """Give a head weights whose decisions differ between these features."""
    torch.manual_seed(0)
    std = features.std(dim=0).clamp(min=1e-3)
    with torch.no_grad():
        width, rungs = features.shape[1], len(head.always)
        weight = torch.randn(rungs, width) / std / width**0.5
        head.agreement_logit.weight.copy_(weight)
        head.agreement_logit.bias.copy_(-(weight @ features.mean(dim=0)))
        head.log_size.weight.zero_()
        head.log_size.bias.copy_(torch.linspace(-2.0, 0.5, rungs))
    return head
