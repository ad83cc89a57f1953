"""Torfason et al.'s losses as written in the paper, and their joint training in small."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from model_store.errors import UsageError
from training.codec.torfason import (
    Configuration,
    Torfason,
    entropy,
    joint_loss,
    learn,
    parse,
    rate_loss,
)


def test_the_entropy_is_that_of_the_symbols() -> None:
    soft = torch.nn.functional.one_hot(torch.arange(4).repeat(1, 2, 3, 1), 4).float()
    assert entropy(soft).item() == pytest.approx(2.0, abs=1e-4)
    assert entropy(torch.ones(1, 2, 3, 4, 1)).item() == pytest.approx(0.0, abs=1e-4)


def test_only_bits_above_the_target_cost() -> None:
    pictures, made = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert rate_loss(pictures, made, torch.tensor(0.9), 3.0, 1.0).item() == pytest.approx(0.25)
    dear = rate_loss(pictures, made, torch.tensor(1.5), 3.0, 1.0)
    assert dear.item() == pytest.approx(0.25 + 3.0 * 0.5)
    joint = joint_loss(dear, torch.zeros(1, 8), torch.tensor([2]), 0.5)
    assert joint.item() == pytest.approx(0.5 * 1.75 + math.log(8.0))


def test_operating_points_are_the_paper_s() -> None:
    assert parse("torfason-28x28x8").target * 8 / 64 == pytest.approx(0.0983)
    assert parse("torfason-28x28x32:cResNet-72").network == "cResNet-72"
    assert parse("torfason-28x28x16").network == "cResNet-51"


@pytest.mark.parametrize(
    "text", ["torfason", "torfason-28x28x0", "torfason-28x28x8:ResNet-50", "theirs"]
)
def test_other_architectures_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"torfason-28x28xC"):
        parse(text)


def test_joint_training_moves_every_part() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    small = Configuration(codes=2, network="cResNet-39", width=8, blocks=1, batch=2, steps=1)
    learnt = learn(small, pixels, torch.eye(3)[torch.arange(4) % 3])
    torch.manual_seed(0)
    start = Torfason(small, 3)
    for part in ("compressor", "quantiser", "decompressor", "classifier"):
        pairs = zip(
            getattr(learnt, part).parameters(), getattr(start, part).parameters(), strict=True
        )
        assert any(not torch.equal(one, other) for one, other in pairs), part
