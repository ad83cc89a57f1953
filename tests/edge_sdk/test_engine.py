"""The engine contract on ONNX Runtime: what is accepted, what is refused, what providers do."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from edge_sdk.engine import PROVIDERS, SCHEMA, OnnxEngine
from edge_sdk.errors import EngineError, ProviderMissing
from edge_sdk.ladder import FULL, PAPER
from model_store.errors import EnvironmentMissing, UsageError

MakeEngine = Callable[..., bytes]

no_cuda = pytest.mark.skipif(
    PROVIDERS["cuda"] in onnxruntime.get_available_providers(), reason="this build has CUDA"
)


def pictures(count: int, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_a_factored_engine_answers_features_and_three_scores(make_engine: MakeEngine) -> None:
    engine = OnnxEngine(make_engine(FULL))
    scores = engine.run(pictures(3))
    assert (engine.side, engine.ladder, engine.provider) == (8, FULL, "CPUExecutionProvider")
    assert scores.agreement is not None
    assert scores.size_ratio is not None
    np.testing.assert_allclose(scores.features, pictures(3).mean(axis=(1, 2)) / 255, rtol=1e-5)
    np.testing.assert_allclose(scores.q_values, scores.agreement - scores.size_ratio, atol=1e-6)
    assert scores.q_values.shape == (3, len(FULL))
    assert scores.q_values.dtype == np.float32


def test_a_dqn_engine_answers_q_values_alone(make_engine: MakeEngine) -> None:
    scores = OnnxEngine(make_engine(factored=False)).run(pictures(2))
    assert scores.q_values.shape == (2, len(PAPER))
    assert scores.agreement is None
    assert scores.size_ratio is None


def test_a_batch_is_scored_as_its_pictures_one_by_one(make_engine: MakeEngine) -> None:
    engine, images = OnnxEngine(make_engine()), pictures(4)
    alone = np.concatenate([engine.run(image[np.newaxis]).q_values for image in images])
    np.testing.assert_array_equal(engine.run(images).q_values, alone)


def test_outputs_of_a_later_version_are_ignored(make_engine: MakeEngine) -> None:
    engine = OnnxEngine(make_engine(extra=["saliency"]))
    assert engine.run(pictures(1)).features.shape == (1, 3)


@pytest.mark.parametrize(
    "images",
    [
        pictures(1).astype(np.float32),
        pictures(1).astype(np.int8),
        pictures(1, side=9),
        pictures(1)[0],
        pictures(1)[:, :, :, :1],
        pictures(1).transpose(0, 3, 1, 2),
        pictures(0),
        np.zeros(3, dtype=np.uint8),
    ],
)
def test_wrong_input_is_refused_with_the_right_one(
    images: NDArray[Any], make_engine: MakeEngine
) -> None:
    engine = OnnxEngine(make_engine())
    with pytest.raises(EngineError, match=r"takes uint8 \(N > 0, 8, 8, 3\).*to_input"):
        engine.run(images)


def test_what_the_runtime_raises_becomes_an_engine_error(make_engine: MakeEngine) -> None:
    engine = OnnxEngine(make_engine())
    engine._session.run = _fail  # no input that passes the checks makes this graph fail
    with pytest.raises(EngineError, match=r"failed on CPUExecutionProvider: out of memory"):
        engine.run(pictures(1))


def _fail(*_: Any) -> None:
    raise RuntimeError("out of memory")


def test_four_threads_get_what_one_gets(make_engine: MakeEngine) -> None:
    engine, images = OnnxEngine(make_engine()), pictures(64)
    expected = engine.run(images)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: engine.run(images), range(8)):
            np.testing.assert_array_equal(got.q_values, expected.q_values)
            np.testing.assert_array_equal(got.features, expected.features)


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(range(256)) * 8])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(EngineError, match=r"no ONNX|wire type|empty|too small|loaded"):
        OnnxEngine(data)


def test_every_truncation_is_refused(make_engine: MakeEngine) -> None:
    whole = make_engine()
    for kept in range(0, len(whole), 97):
        with pytest.raises(EngineError):
            OnnxEngine(whole[:kept])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema", "", rf"schema is ''; this code runs '{SCHEMA}'"),
        ("schema", "adacompress.engine/2", r"schema is 'adacompress\.engine/2'"),
        ("preprocess_sha256", "0" * 64, r"another pre-processing \(000000000000….*train it again"),
        ("preprocess_sha256", "", r"another pre-processing \(none…"),
        ("ladder", "", "ladder cannot be read"),
        ("ladder", "[{]", "ladder cannot be read"),
        ("ladder", "[]", "at least one rung"),
        ("ladder", '[{"quality": 300}]', "quality 300"),
        ("ladder", "7", "ladder cannot be read"),
        ("ladder", json.dumps([rung.as_dict() for rung in FULL]), r"is \[1, 10\].*ladder has 18"),
    ],
)
def test_other_metadata_is_refused(
    name: str, value: str, message: str, make_engine: MakeEngine
) -> None:
    with pytest.raises(EngineError, match=message):
        OnnxEngine(make_engine(PAPER, metadata={name: value}))


@pytest.mark.parametrize("missing", ["features", "q_values"])
def test_an_engine_needs_its_outputs(missing: str, make_engine: MakeEngine) -> None:
    with pytest.raises(EngineError, match=rf"lacks the output '{missing}'"):
        OnnxEngine(make_engine(drop=[missing]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": (1, 8, 9, 3)}, r"input is \[\('image', \[1, 8, 9, 3\]\)\]"),
        ({"image": (1, "S", "S", 3)}, r"must be uint8, static"),
        ({"image": (2, 8, 8, 3)}, r"N = 1"),
        ({"dtype": TensorProto.FLOAT}, r"tensor\(float\).*must be uint8"),
    ],
)
def test_other_inputs_are_refused(
    changes: dict[str, Any], message: str, make_engine: MakeEngine
) -> None:
    with pytest.raises(EngineError, match=message):
        OnnxEngine(make_engine(**changes))


def test_an_unknown_provider_is_refused_with_the_known_ones(make_engine: MakeEngine) -> None:
    with pytest.raises(UsageError, match=r"'npu' is unknown; allowed are cpu, cuda, tensorrt"):
        OnnxEngine(make_engine(), provider="npu")


@no_cuda
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_missing_provider_is_one_warning_and_the_cpu(
    provider: str,
    make_engine: MakeEngine,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.WARNING):
        engine = OnnxEngine(make_engine(), provider=provider)
    assert engine.provider == "CPUExecutionProvider"
    assert [record.name for record in caplog.records] == ["edge_sdk.engine"]
    assert f"although {PROVIDERS[provider]} was asked for" in caplog.text
    assert engine.run(pictures(1)).q_values.shape == (1, len(PAPER))
    assert capfd.readouterr() == ("", "")


@no_cuda
def test_a_missing_provider_is_an_error_where_it_must_be_that_one(make_engine: MakeEngine) -> None:
    with pytest.raises(ProviderMissing, match=r"CUDAExecutionProvider was asked for; install"):
        OnnxEngine(make_engine(), provider="cuda", strict=True)


def test_the_cpu_is_no_fall_back(make_engine: MakeEngine, caplog: pytest.LogCaptureFixture) -> None:
    OnnxEngine(make_engine(), strict=True)
    assert not caplog.records


def test_without_a_runtime_the_command_that_installs_one_is_named(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EnvironmentMissing, match=r"pip install adacompress\[cpu\]"):
        OnnxEngine(make_engine())
