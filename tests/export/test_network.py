"""The torch modules: the prefix on real weights where they are installed, the heads always."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from edge_sdk.ladder import FULL, PAPER, REFERENCE, Rung
from export.network import (
    CONFIDENCE,
    MAX_LOGIT,
    WHOLE,
    DQNHead,
    FactoredHead,
    Network,
    Prefix,
    always_agrees,
)
from model_store.errors import EnvironmentMissing, UsageError
from training import assets


@cache
def real_prefix(cut: int = WHOLE, *, confidence: bool = False) -> Prefix:
    try:
        weights = assets.find("mobilenet-v2")
    except EnvironmentMissing as error:
        pytest.skip(str(error))
    return Prefix(weights, cut=cut, side=64, confidence=confidence)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8))


def test_the_prefix_is_torchvisions_network_on_normalised_pixels(images: torch.Tensor) -> None:
    from torchvision.models import mobilenet_v2

    prefix, whole = real_prefix(), mobilenet_v2().eval()
    whole.load_state_dict(torch.load(assets.find("mobilenet-v2"), weights_only=True))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = ((images / 255.0 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = prefix(images)
        torch.testing.assert_close(prefix.logits(features), whole(normalised), rtol=1e-3, atol=1e-3)
    assert features.shape == (3, 1280) == (3, prefix.dimension)
    assert prefix.feature_map(images).shape == (3, 1280, 2, 2)


def test_the_prefix_is_frozen() -> None:
    prefix = real_prefix()
    assert not any(parameter.requires_grad for parameter in prefix.parameters())
    assert not prefix.training


@pytest.mark.parametrize(("cut", "dimension"), [(1, 32), (7, 32), (14, 96), (19, 1280)])
def test_a_cut_prefix_has_the_features_of_its_last_block(cut: int, dimension: int) -> None:
    assert real_prefix(cut).dimension == dimension


def test_confidence_follows_the_pooled_activations(images: torch.Tensor) -> None:
    plain, sure = real_prefix(), real_prefix(confidence=True)
    with torch.inference_mode():
        features, longer = plain(images), sure(images)
        p = torch.softmax(plain.logits(features), dim=1)
    assert longer.shape == (3, 1280 + CONFIDENCE)
    torch.testing.assert_close(longer[:, :1280], features)
    best = p.topk(5, dim=1).values
    columns = longer[:, 1280:]
    torch.testing.assert_close(columns[:, 0], best[:, 0].log())
    torch.testing.assert_close(columns[:, 1], (best[:, 0] / best[:, 1]).log())
    torch.testing.assert_close(columns[:, 2], (best[:, 0] / best[:, 4]).log())
    torch.testing.assert_close(columns[:, 3], torch.special.entr(p).sum(dim=1))
    torch.testing.assert_close(columns[:, 4], (1 - best[:, 0]).log())
    torch.testing.assert_close(columns[:, 5], features.mean(dim=1).log())
    energy = features.square().mean(dim=1).log()
    torch.testing.assert_close(columns[:, 6], energy, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(longer).all()


def test_a_cut_prefix_has_no_classifier() -> None:
    with pytest.raises(UsageError, match="cut after block 7 has no classifier; use 19"):
        real_prefix(7).logits(torch.zeros(1, 32))


@pytest.mark.parametrize("cut", [0, 20, -1])
def test_a_cut_outside_the_network_is_refused(cut: int) -> None:
    with pytest.raises(UsageError, match=rf"after block {cut}; allowed are 1 to 19"):
        Prefix(None, cut=cut)


def test_confidence_needs_the_whole_network() -> None:
    with pytest.raises(UsageError, match="no classifier to take confidence from; use 19"):
        Prefix(None, cut=7, confidence=True)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (2.5, -0.25)])
def test_the_factored_q_value_is_the_papers_reward(alpha: float, beta: float) -> None:
    head = FactoredHead(6, FULL, alpha=alpha, beta=beta)
    q_values, agreement, size_ratio = head(torch.randn(4, 6))
    torch.testing.assert_close(q_values, alpha * agreement - size_ratio + beta)
    assert q_values.shape == agreement.shape == size_ratio.shape == (4, len(FULL))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e6])
def test_agreement_is_certain_only_where_the_pixels_are_the_references(scale: float) -> None:
    _, agreement, size_ratio = FactoredHead(6, FULL)(scale * torch.randn(32, 6).abs())
    learnt = agreement[:, :-1]
    bound = 1.0 / (1.0 + math.exp(-MAX_LOGIT))
    assert (agreement[:, -1] == 1.0).all()
    assert learnt.max() <= bound < 1.0
    assert learnt.min() >= (1.0 - bound) * 0.99
    assert (size_ratio >= 0.0).all()


def test_which_rungs_agree_always_is_read_from_their_pixels() -> None:
    assert always_agrees(PAPER) == [rung.quality == 75 for rung in PAPER]
    assert always_agrees((REFERENCE, Rung(75, scale=0.5), Rung(75, subsampling="4:4:4"))) == [
        True,
        False,
        False,
    ]


def test_alpha_beta_and_the_certain_rungs_travel_with_the_parameters() -> None:
    state = FactoredHead(2, PAPER, alpha=3.0, beta=0.5).state_dict()
    assert state["alpha"] == 3.0
    assert state["beta"] == 0.5
    assert state["always"].tolist() == always_agrees(PAPER)


@pytest.mark.parametrize("hidden", [(), (8,), (64, 32, 32)])
def test_the_dqn_head_is_a_perceptron(hidden: tuple[int, ...]) -> None:
    head = DQNHead(6, 10, hidden)
    linear = [layer for layer in head.layers if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [*hidden, 10]
    assert sum(isinstance(layer, nn.ReLU) for layer in head.layers) == len(hidden)
    (q_values,) = head(torch.randn(4, 6))
    assert q_values.shape == (4, 10)


@pytest.mark.parametrize("head", [DQNHead(8, 10), FactoredHead(8, PAPER)])
def test_the_network_answers_features_then_the_heads_outputs(
    head: DQNHead | FactoredHead, tiny_prefix: nn.Module
) -> None:
    images = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    features, *outputs = Network(tiny_prefix, head)(images)
    torch.testing.assert_close(features, tiny_prefix(images))
    assert len(outputs) == len(head.outputs)
    torch.testing.assert_close(outputs[0], head(features)[0])
