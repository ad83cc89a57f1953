"""What the tests of the learners share: real weights if installed, a prefix that needs none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor, nn

from edge_sdk.ladder import PAPER
from training import assets
from training.labels.table import AnswerTable
from training.learn.features import Features
from training.learn.labelled import Labelled

MakeLabelled = Callable[..., Labelled]


@pytest.fixture(scope="session")
def installed() -> Path:
    """The folder of the real weights and photos; the test is skipped where they are missing."""
    if absent := assets.missing():
        pytest.skip(f"{', '.join(absent)} not installed; run `{assets.COMMAND}`")
    return assets.folder()


class StandIn(nn.Module):  # type: ignore[misc]
    """What of ``Prefix`` learning needs, without weights: mean colours of four quarters."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.side, self.confidence, self.classifier = 1, 16, False, None
        self.precision = "fp32"

    @property
    def dimension(self) -> int:
        return 12

    def forward(self, image: Tensor) -> Tensor:  # (N, 16, 16, 3) uint8 -> (N, 12) float32
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        quarters: Tensor = nn.functional.avg_pool2d(pixels, 8).flatten(1)
        return quarters


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    prefix = StandIn()
    prefix.eval()
    return prefix


@pytest.fixture(scope="session")
def make_labelled(stand_in: StandIn) -> MakeLabelled:
    """Make N labelled pictures of as many photos; bright ones bear more compression."""

    def make(seed: int, count: int, *, harder: float = 0.0) -> Labelled:
        rng = np.random.default_rng(seed)
        colours = rng.integers(20, 236, (count, 1, 1, 3))
        inputs = (colours + rng.integers(-20, 21, (count, 16, 16, 3))).astype(np.uint8)
        values = stand_in(torch.from_numpy(inputs)).numpy()
        kept = np.arange(min(count, 12))
        features = Features(values, inputs[kept], kept)
        return Labelled(features, _answers(values, rng, harder))

    return make


def _answers(values: np.ndarray, rng: np.random.Generator, harder: float) -> AnswerTable:
    """A service's answers to pictures with these features at the paper's rungs."""
    count, bright = len(values), values.mean(axis=1, keepdims=True)
    quality = np.log([rung.quality / 75 for rung in PAPER])
    agrees = expit(4.0 - harder + 2.0 * quality + 20.0 * (bright - 0.5))
    agrees[:, [rung.quality == 75 for rung in PAPER]] = 1.0
    shown = (rng.random(agrees.shape) < agrees).astype(float)
    sizes = np.exp(0.7 * quality + rng.normal(0.0, 0.05, agrees.shape))
    size_bytes = np.rint(20_000 * sizes).astype(np.int64)
    names = np.array([f"photo{rng.integers(2**40)}" for _ in range(count)], dtype=object)
    return AnswerTable(
        ladder=PAPER,
        keys=np.array([f"key of {name}" for name in names], dtype=object),
        groups=names,
        reference_bytes=np.full(count, 20_000),
        reference_wire=np.full(count, 20_500),
        bytes=size_bytes,
        wire=size_bytes + 500,
        agreement={"any_hit": shown, "top1": 0.0 * shown},
        reference_score=np.full(count, 0.9),
        reference_label=np.full(count, "cat", dtype=object),
        calls=count * (len(PAPER) + 1),
    )
