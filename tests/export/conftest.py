"""A prefix that exports in a moment, a training run made of it, and what TorchServe gives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from edge_sdk.ladder import PAPER
from edge_sdk.policy import OperatingPoint
from export.fuse import export_prefix
from export.network import FactoredHead, Network
from export.parity import scores_of
from export.probe_head import ProbeHead
from export.publish import publish_run
from export.run import TrainingRun
from model_store import Store, StoredAgent

FACTS: dict[str, Any] = {
    "reward": {"alpha": 1.0, "beta": 0.0},
    "backend": {"name": "fake://", "model_version": "7", "min_score": 0.2},
    "training": {
        "fingerprint": "f" * 8,
        "photos": 1,
        "images": 1,
        "labels_bought": 1,
        "seed": 0,
    },
    "scenery": {"name": "day", "signature": None},
    "metrics": {"size_ratio": 0.4},
    "versions": {"adacompress": "0"},
}


class TinyPrefix(nn.Module):  # type: ignore[misc]
    """What of ``Prefix`` exporting needs: a convolution, pooled."""

    def __init__(self, side: int = 16) -> None:
        super().__init__()
        self.cut, self.side, self.confidence = 1, side, False
        self.blocks = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU6())
        self.eval()

    def forward(self, image: Tensor) -> Tensor:  # (N, S, S, 3) uint8 -> (N, 8) float32
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        pooled: Tensor = self.blocks((pixels - 127.0) / 60.0).mean(dim=(2, 3))
        return pooled


def _images(count: int, side: int = 16) -> NDArray[np.uint8]:
    """Return pictures of one colour each with some noise, so that they differ in their means."""
    rng = np.random.default_rng(5)
    colours = rng.integers(30, 226, (count, 1, 1, 3))
    return (colours + rng.integers(-30, 30, (count, side, side, 3))).astype(np.uint8)


def _head() -> FactoredHead:
    head = FactoredHead(8, PAPER)
    with torch.no_grad():
        head.agreement_logit.weight.mul_(8.0)
        head.log_size.bias.copy_(torch.linspace(-2.0, 0.3, len(PAPER)))
    return head


@pytest.fixture(scope="session")
def tiny_prefix() -> TinyPrefix:
    torch.manual_seed(0)
    return TinyPrefix()


@pytest.fixture(scope="session")
def tiny_onnx(tiny_prefix: TinyPrefix) -> bytes:
    """The tiny prefix as ONNX; exported once."""
    return export_prefix(tiny_prefix)


@pytest.fixture(scope="session")
def pictures() -> Callable[..., NDArray[np.uint8]]:
    return _images


@pytest.fixture(scope="session")
def run_of_training(tiny_prefix: TinyPrefix, tiny_onnx: bytes) -> TrainingRun:
    """What a learner leaves; nothing in it may be changed."""
    torch.manual_seed(1)
    head, inputs = _head(), _images(64)
    return TrainingRun(
        prefix=tiny_onnx,
        head=head,
        ladder=PAPER,
        operating_point=OperatingPoint(trade_off=2.0, target=0.9, n=64),
        inputs=inputs,
        expected=scores_of(Network(tiny_prefix, head), inputs),
        facts=FACTS,
    )


@pytest.fixture(scope="session")
def probing_run(run_of_training: TrainingRun) -> TrainingRun:
    """The same with a probe head, and a point without looks for devices that cannot afford them."""
    torch.manual_seed(2)
    classifier, sizes = (torch.randn(6, 8), torch.randn(6)), torch.linspace(-2.0, 0.3, len(PAPER))
    head = ProbeHead(classifier, torch.rand(8) + 0.1, PAPER, sizes)
    with torch.no_grad():
        head.weight.normal_(std=0.2)
        head.bias.fill_(0.3)
    return replace(
        run_of_training,
        operating_point=replace(run_of_training.operating_point, max_probes=3),
        points=(OperatingPoint(trade_off=7.0, target=0.9, note="Not certified."),),
        probe=head.eval(),
    )


@pytest.fixture(scope="session")
def make_jpegs() -> Callable[..., list[bytes]]:
    """Make files of such pictures."""

    def make(count: int, side: int) -> list[bytes]:
        found = []
        for pixels in _images(count, side):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
            found.append(buffer.getvalue())
        return found

    return make


# --- TorchServe -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(probing_run: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> StoredAgent:
    """The probing run, published."""
    store = Store(tmp_path_factory.mktemp("store"))
    return store.load(publish_run(probing_run, store)[0].id)


@pytest.fixture(scope="module")
def unpack(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    """Unpack an archive as TorchServe does."""

    def unpacked(mar: bytes) -> Path:
        folder = tmp_path_factory.mktemp("unpacked")
        with zipfile.ZipFile(io.BytesIO(mar)) as files:
            files.extractall(folder)
        return folder

    return unpacked


class ServerContext:
    """What of TorchServe's context handlers use."""

    def __init__(self, folder: Path, headers: dict[str, str] | None = None) -> None:
        self.system_properties = {"model_dir": str(folder)}
        self.states: list[tuple[int, str, int]] = []
        self._headers = headers or {}

    def get_all_request_header(self, _: int) -> dict[str, str]:
        return self._headers

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.states.append((code, phrase, idx))


@pytest.fixture(scope="session")
def make_context() -> type[ServerContext]:
    """Make what TorchServe hands to a handler, of an unpacked archive and a request's headers."""
    return ServerContext
