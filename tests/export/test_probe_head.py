"""What a second look measures, what it predicts, and that the exported graph says the same."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax

from edge_sdk.errors import EngineError
from edge_sdk.ladder import REFERENCE, Ladder, Rung
from edge_sdk.preprocess import spec_sha256
from edge_sdk.second_look import SCHEMA, OnnxProbe
from edge_sdk.view import View
from export.fuse import OPSET, export_probe
from export.parity import check_probe
from export.probe_head import STATISTICS, ProbeHead
from export.run import state_to_bytes

LADDER: Ladder = (Rung(10, scale=0.5), Rung(20, scale=0.75), Rung(45), Rung(75))
POOLED, DIMENSION, CLASSES = 6, 9, 8  # three features of confidence follow the pooled ones
NAMES = [*STATISTICS]

Array = NDArray[np.float32]


def make_head(ladder: Ladder = LADDER, classes: int = CLASSES) -> ProbeHead:
    torch.manual_seed(3)
    classifier = (torch.randn(classes, POOLED), torch.randn(classes))
    sizes = torch.linspace(-2.5, -0.2, len(ladder))
    head = ProbeHead(classifier, torch.rand(POOLED) + 0.2, ladder, sizes)
    with torch.no_grad():
        head.mean.normal_()
        head.scale.uniform_(0.5, 3.0)
        head.weight.normal_(std=0.3)
        head.bias.fill_(0.5)
    head.eval()
    return head


@pytest.fixture(scope="module")
def head() -> ProbeHead:
    return make_head()


@pytest.fixture(scope="module")
def exported(head: ProbeHead) -> bytes:
    return export_probe(head, DIMENSION, LADDER)


@pytest.fixture(scope="module")
def probe(exported: bytes) -> OnnxProbe:
    return OnnxProbe(exported)


def pairs(count: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    original = rng.normal(0.0, 1.0, (count, DIMENSION))
    candidate = original + rng.normal(0.0, 1.0, (count, 1)) * rng.normal(0.0, 1.0, original.shape)
    return original.astype(np.float32), candidate.astype(np.float32)


def asked(head: ProbeHead, original: Array, candidate: Array, rung: int, size: float) -> Array:
    with torch.inference_mode():
        answer: Array = head(
            torch.from_numpy(original[None]),
            torch.from_numpy(candidate[None]),
            torch.tensor([rung]),
            torch.tensor([size]),
        ).numpy()[0]
    return answer


def measured(head: ProbeHead, original: Array, candidate: Array, size: float = 0.3) -> Array:
    with torch.inference_mode():
        values: Array = head.statistics(
            torch.from_numpy(original),
            torch.from_numpy(candidate),
            torch.full((len(original),), size),
        ).numpy()
    return values


# --- the statistics ---------------------------------------------------------------------------


def test_the_statistics_are_what_their_names_say(head: ProbeHead) -> None:
    original, candidate = pairs(50)
    got = dict(zip(NAMES, measured(head, original, candidate).T, strict=True))
    weight, bias = head.class_weight.numpy(), head.class_bias.numpy()
    for row in range(50):
        before, after = original[row, :POOLED], candidate[row, :POOLED]
        said, says = log_softmax(weight @ before + bias), log_softmax(weight @ after + bias)
        best = int(said.argmax())
        others = np.sort(np.delete(says, best))[::-1]
        top_before, top_after = (set(np.argsort(-one)[:5].tolist()) for one in (said, says))
        survival = np.exp(said)[list(top_after)].sum()
        moved = (after - before) / head.spread.numpy()
        lengths = np.linalg.norm(after.astype(float)) * np.linalg.norm(before.astype(float))
        cosine = after.astype(float) @ before.astype(float) / lengths
        expected = {
            "log_p": says[best],
            "margin_1": says[best] - others[0],
            "margin_5": says[best] - others[4],
            "same_best": float(says.argmax() == best),
            "log_kl": np.log((np.exp(said) * (said - says)).sum() + 1e-4),
            "entropy": -(np.exp(says) * says).sum(),
            "survival": survival,
            "log_loss_of_mass": np.log(1.0 - survival + 1e-3),
            "overlap": len(top_before & top_after) / 5,
            "log_displacement": 0.5 * np.log((moved**2).mean() + 1e-6),
            "log_angle": np.log(1.0 - cosine + 1e-5),
            "original_log_p": said[best],
            "original_margin_1": said[best] - np.sort(said)[-2],
            "original_margin_5": said[best] - np.sort(said)[-6],
            "original_entropy": -(np.exp(said) * said).sum(),
            "log_size": np.log(0.3),
        }
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            assert got[name][row] == pytest.approx(value, abs=2e-3), name


def test_an_encoding_that_changes_nothing_measures_nothing(head: ProbeHead) -> None:
    original, _ = pairs(20)
    got = dict(zip(NAMES, measured(head, original, original).T, strict=True))
    assert got["same_best"].tolist() == got["overlap"].tolist() == [1.0] * 20
    np.testing.assert_allclose(got["log_p"], got["original_log_p"], atol=1e-6)
    np.testing.assert_allclose(got["margin_5"], got["original_margin_5"], atol=1e-5)
    np.testing.assert_allclose(got["log_displacement"], 0.5 * math.log(1e-6), rtol=1e-5)
    np.testing.assert_allclose(got["log_kl"], math.log(1e-4), rtol=1e-3)


@pytest.mark.parametrize("classes", [2, 3, 5, 6])
def test_few_classes_are_enough(classes: int) -> None:
    original, candidate = pairs(8)
    small = make_head(classes=classes)
    assert np.isfinite(measured(small, original, candidate)).all()


def test_features_of_confidence_are_left_alone(head: ProbeHead) -> None:
    original, candidate = pairs(5)
    other = original.copy()
    other[:, POOLED:] += 100.0
    np.testing.assert_array_equal(
        measured(head, original, candidate), measured(head, other, candidate)
    )


# --- the columns and the answer ---------------------------------------------------------------


def test_a_rung_is_seen_from_itself_without_any_distance(head: ProbeHead) -> None:
    statistics = torch.randn(3, len(NAMES))
    with torch.inference_mode():
        columns = head.columns(statistics, torch.tensor([0, 2, 3])).numpy()
    assert columns.shape[:2] == (3, len(LADDER))
    width = len(NAMES)
    for row, rung in enumerate((0, 2, 3)):
        np.testing.assert_array_equal(columns[row, :, :width], [statistics[row].numpy()] * 4)
        assert not columns[row, rung, width : width + 6].any()
        others = [other for other in range(4) if other != rung]
        assert (np.abs(columns[row, others, width : width + 6]).sum(axis=1) > 0).all()


def test_what_has_the_references_pixels_agrees_and_nothing_else_surely(head: ProbeHead) -> None:
    original, candidate = pairs(30)
    for rung in range(len(LADDER)):
        told = np.stack(
            [asked(head, *pair, rung, 0.5) for pair in zip(original, candidate, strict=True)]
        )
        assert (told[:, 3] == 1.0).all()
        assert ((told[:, :3] > 0.0) & (told[:, :3] < 1.0)).all()


def test_an_untrained_head_knows_nothing() -> None:
    fresh = ProbeHead(
        (torch.randn(6, POOLED), torch.zeros(6)), torch.ones(POOLED), LADDER, torch.zeros(4)
    )
    original, candidate = pairs(1)
    assert asked(fresh, original[0], candidate[0], 1, 0.5).tolist() == [0.5, 0.5, 0.5, 1.0]


def test_a_head_comes_back_from_its_parameters(head: ProbeHead) -> None:
    again = ProbeHead.from_state(head.state_dict(), LADDER)
    original, candidate = pairs(1)
    assert not again.training
    assert state_to_bytes(again) == state_to_bytes(head)
    np.testing.assert_array_equal(
        asked(again, original[0], candidate[0], 2, 0.4),
        asked(head, original[0], candidate[0], 2, 0.4),
    )


# --- the graph --------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000),
    rung=st.integers(0, len(LADDER) - 1),
    size_ratio=st.floats(0.015625, 3.0, width=32),
    strength=st.sampled_from([0.01, 1.0, 30.0]),
    damage=st.sampled_from([0.0, 1e-4, 1e-2, 1.0]),
)
@settings(max_examples=150)
def test_the_graph_answers_what_the_head_does(
    head: ProbeHead,
    probe: OnnxProbe,
    seed: int,
    rung: int,
    size_ratio: float,
    strength: float,
    damage: float,
) -> None:
    original, other = (strength * one[0] for one in pairs(1, seed))
    candidate = original + np.float32(damage) * (other - original)
    told = probe.run(original, candidate, rung, size_ratio)
    assert told.shape == (len(LADDER),)
    np.testing.assert_allclose(told, asked(head, original, candidate, rung, size_ratio), atol=5e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_the_graph_answers_something_finite_to_odd_features(value: float, probe: OnnxProbe) -> None:
    flat = np.full(DIMENSION, value, dtype=np.float32)
    assert np.isfinite(probe.run(flat, flat, 0, 1e-3)).all()
    assert np.isfinite(probe.run(flat, -flat, 0, 10.0)).all()


def test_the_graph_keeps_its_contract(exported: bytes, probe: OnnxProbe) -> None:
    model = onnx.load_model_from_string(exported)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts == {
        "schema": SCHEMA,
        "ladder": json.dumps([rung.as_dict() for rung in LADDER], sort_keys=True),
        "preprocess_sha256": spec_sha256(),
        "precision": "fp32",
        "opset": "18",
    }
    assert [entry.version for entry in model.opset_import if not entry.domain] == [OPSET]
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "original": [1, DIMENSION],
        "candidate": [1, DIMENSION],
        "rung": [1],
        "size_ratio": [1],
        "agreement": [1, len(LADDER)],
    }
    assert probe.ladder == LADDER


def test_features_of_another_engine_are_refused(probe: OnnxProbe) -> None:
    other = np.zeros(DIMENSION + 1, dtype=np.float32)
    with pytest.raises(EngineError, match=r"compares 9 features.*another engine"):
        probe.run(other, other, 0, 0.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("schema", "adacompress.engine/1", "schema is 'adacompress.engine/1'"),
        ("preprocess_sha256", "f" * 64, "another pre-processing"),
        ("ladder", json.dumps([REFERENCE.as_dict()]), r"\[1, 4\].*ladder of 1 "),
    ],
)
def test_another_contract_is_refused(name: str, value: str, message: str, exported: bytes) -> None:
    model = onnx.load_model_from_string(exported)
    for entry in model.metadata_props:
        if entry.key == name:
            entry.value = value
    with pytest.raises(EngineError, match=message):
        OnnxProbe(model.SerializeToString())


# --- several kinds of rungs -------------------------------------------------------------------

VIEW = View(side=48, resized=64)
MIXED: Ladder = (
    Rung(format="features", codec="0" * 16, rate=0),
    Rung(format="webp", quality=30, view=VIEW),
    *LADDER,
    Rung(format="webp", quality=60, view=VIEW),
)


def test_a_head_of_frames_says_the_same_of_other_kinds_with_the_same_place() -> None:
    """WebP of the view at quality 45 is what JPEG at 45 is, until answers say otherwise."""
    head = make_head()
    with torch.no_grad():
        head.sizes.zero_()
        head.place.copy_(ProbeHead.from_state(head.state_dict(), LADDER).place)
        head.place[:, 2] = 0.0
    twins = (*LADDER, Rung(format="webp", quality=45, view=VIEW))
    moved = head.moved_to(twins)
    rng = np.random.default_rng(1)
    looks = [torch.from_numpy(rng.random((5, DIMENSION)).astype(np.float32)) for _ in range(2)]
    ratio = torch.full((5,), 0.3)
    known = head(*looks, torch.full((5,), 2), ratio)
    told = moved(*looks, torch.full((5,), 2), ratio)
    assert torch.allclose(told[:, :4], known, atol=1e-6)
    own = moved(*looks, torch.full((5,), 4), ratio)
    assert torch.allclose(own[:, 4], known[:, 2], atol=1e-6)


def test_the_graph_of_several_kinds_says_what_its_head_says() -> None:
    head = make_head().moved_to(MIXED)
    probe = OnnxProbe(export_probe(head, DIMENSION, MIXED))
    assert probe.ladder == MIXED
    features = np.random.default_rng(0).random((8, DIMENSION)).astype(np.float32)
    check_probe(head, probe, features)
