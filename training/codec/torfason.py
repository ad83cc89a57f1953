"""Torfason et al. (ICLR 2018) as they did it: an autoencoder, and a classifier of its codes.

    D + βR:   MSE(x, x̂) + β · max(H(q) − H_t, 0)
    jointly:  γ · (MSE(x, x̂) + β · max(H(q) − H_t, 0)) + cross-entropy(y, ŷ)

H(q) is the entropy of the symbols in bits, each channel for itself, and H_t the rate that is aimed
at; there is one network for a rate. Without labels, y is what the user's classifier answers. It is
the faithful opponent of our own codec, which keeps the classifier's blocks and learns in minutes
what this one learns from a million pictures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge_sdk.featurecodec.artefact import encoder_metadata
from export.feature_onnx import device_onnx, server_onnx
from export.torfason import BLOCKS, Compressor, Decompressor, Quantiser, ResNet
from model_store.errors import UsageError
from training.codec.artefact import Files, names_of
from training.codec.classifier import Classifier
from training.codec.tables import factorised_arrays
from training.learn.compute import CPU

__all__ = [
    "Configuration",
    "Torfason",
    "entropy",
    "files",
    "joint_loss",
    "learn",
    "parse",
    "rate_loss",
]

#: Mean bits of a symbol at the paper's operating points, by channels: 0.0983, 0.330 and 0.635 bits
#: a pixel, and 64 pixels to a position.
_TARGETS = {8: 0.0983 * 64 / 8, 16: 0.330 * 64 / 16, 32: 0.635 * 64 / 32}

_NAME = re.compile(r"torfason-28x28x(\d+)(?::(cResNet-\d+))?")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One operating point.

    Attributes:
        codes: C.
        network: classifier of the codes, one of ``export.torfason.BLOCKS`` that take codes.
        levels: centres of the quantiser.
        target: H_t, bits a symbol.
        beta: β.
        gamma: γ, pictures against answers.
        width: of the autoencoder.
        blocks: residual blocks on each side of it.
        learning_rate: Adam's.
        steps: of the joint training.
        batch: pictures a step.
        seed: of everything random.
    """

    codes: int
    network: str = "cResNet-51"
    levels: int = 6
    target: float = 1.0
    beta: float = 0.05
    gamma: float = 1.0
    width: int = 128
    blocks: int = 3
    learning_rate: float = 1e-3
    steps: int = 400
    batch: int = 8
    seed: int = 0


class Torfason(nn.Module):
    """Compressor, quantiser, image decoder and classifier of the codes."""

    def __init__(self, configuration: Configuration, classes: int) -> None:
        super().__init__()
        codes, width, blocks = configuration.codes, configuration.width, configuration.blocks
        self.compressor = Compressor(codes, width=width, blocks=blocks)
        self.quantiser = Quantiser(configuration.levels)
        self.decompressor = Decompressor(codes, width=width, blocks=blocks)
        self.classifier = ResNet(configuration.network, codes=codes, classes=classes)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pictures made again, scores, and soft assignments (N, C, h, w, L)."""
        codes, _, soft = self.quantiser(self.compressor(pictures))
        return self.decompressor(codes), self.classifier(codes), soft


class _Device(nn.Module):
    """uint8 view (1, S, S, 3) to int8 symbols (1, C, S/8, S/8) around zero."""

    def __init__(self, network: Torfason) -> None:
        super().__init__()
        self.network = network

    def forward(self, view: Tensor) -> Tensor:
        pictures = view.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        codes = self.network.compressor(pictures)
        away = torch.abs(codes[..., None] - self.network.quantiser.centres)
        middle = len(self.network.quantiser.centres) // 2
        return (torch.argmin(away, dim=-1) - middle).to(torch.int8)


class _Server(nn.Module):
    """Symbols and (one) rate to scores, or to the picture."""

    def __init__(self, network: Torfason, *, picture: bool) -> None:
        super().__init__()
        self.network, self.picture = network, picture

    def forward(self, integers: Tensor, rate: Tensor) -> Tensor:
        centres = self.network.quantiser.centres
        # The rate is an input of every codec; adding nothing of it keeps it one.
        place = integers.to(torch.long) + len(centres) // 2 + 0 * rate[:, None, None, None]
        codes = centres[place]
        if not self.picture:
            scores: Tensor = self.network.classifier(codes)
            return scores
        light = torch.clamp(torch.round(255.0 * self.network.decompressor(codes)), 0.0, 255.0)
        return light.permute(0, 2, 3, 1).to(torch.uint8)


def files(network: Torfason, pixels: npt.NDArray[np.uint8], whole: Classifier) -> Files:
    """Return what was learnt as a codec of one rate, coded without context as in the paper.

    Args:
        network: learnt.
        pixels: (N, S, S, 3), whose symbols the tables are counted on.
        whole: the classifier that taught it.
    """
    device, middle = _Device(network).eval(), len(network.quantiser.centres) // 2
    with torch.inference_mode():
        symbols = torch.cat([device(torch.from_numpy(batch)) for batch in _batches(pixels)])
    codes, height, width = symbols.shape[1:]
    shape = (int(codes), int(height), int(width))
    return Files(
        encoder=device_onnx(device, whole.view.side, encoder_metadata(whole.view, shape)),
        tail=server_onnx(_Server(network, picture=False), shape, "scores", names_of(whole)),
        viewer=server_onnx(_Server(network, picture=True), shape, "image", {}),
        entropy=factorised_arrays([(symbols, 0)], 1, shape[0], middle),
        kind="factorised",
        shape=shape,
        limit=middle,
        rates=1,
    )


def _batches(pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, len(pixels), 32):
        yield pixels[start : start + 32]


def parse(text: str, **settings: Any) -> Configuration:
    """Read "torfason-28x28xC" or "torfason-28x28xC:cResNet-39".

    Raises:
        UsageError: it is something else.
    """
    found = _NAME.fullmatch(text)
    codes, network = (int(found[1]), found[2] or "cResNet-51") if found else (0, "")
    if not 1 <= codes <= 256 or network not in BLOCKS:
        networks = ", ".join(name for name in BLOCKS if name.startswith("c"))
        raise UsageError(
            f"The architecture is {text!r}; allowed are 'ours' and 'torfason-28x28xC' with C from "
            f"1 to 256, and behind a colon one of {networks}."
        )
    target = _TARGETS.get(codes, 1.0)
    return Configuration(codes=codes, network=network, target=target, **settings)


def entropy(soft: Tensor) -> Tensor:
    """Return H(q), mean bits of a symbol, of soft assignments (N, C, h, w, L)."""
    share = soft.mean(dim=(0, 2, 3)).clamp(min=1e-9)
    return -(share * torch.log2(share)).sum(dim=-1).mean()


def rate_loss(pictures: Tensor, made: Tensor, bits: Tensor, beta: float, target: float) -> Tensor:
    """Return MSE + β · max(H(q) − H_t, 0)."""
    return F.mse_loss(made, pictures) + beta * torch.clamp(bits - target, min=0.0)


def joint_loss(rated: Tensor, scores: Tensor, wanted: Tensor, gamma: float) -> Tensor:
    """Return γ times the loss of the pictures plus the cross-entropy of the answers.

    Args:
        rated: from :func:`rate_loss`.
        scores: (N, classes).
        wanted: (N,) classes, or (N, classes) probabilities.
        gamma: γ.
    """
    return gamma * rated + F.cross_entropy(scores, wanted)


def learn(
    configuration: Configuration,
    pixels: npt.NDArray[np.uint8],
    wanted: Tensor,
    step: Callable[..., object] = lambda count, note="": None,
    device: torch.device = CPU,
) -> Torfason:
    """Learn everything jointly.

    Args:
        configuration: how.
        pixels: (N, S, S, 3).
        wanted: (N, classes) probabilities.
        step: told the steps done.
        device: where; what is returned is on the CPU.
    """
    torch.manual_seed(configuration.seed)
    network = Torfason(configuration, wanted.shape[1]).train().to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=configuration.learning_rate)
    generator = torch.Generator().manual_seed(configuration.seed)
    for _ in range(configuration.steps):
        rows = torch.randint(len(pixels), (configuration.batch,), generator=generator)
        views = torch.from_numpy(pixels[rows.numpy()]).to(device)
        pictures = views.permute(0, 3, 1, 2).float() / 255.0
        made, scores, soft = network(pictures)
        bits = entropy(soft)
        rated = rate_loss(pictures, made, bits, configuration.beta, configuration.target)
        loss = joint_loss(rated, scores, wanted[rows].to(device), configuration.gamma)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step(1, f"{bits.item():.2f} bits a symbol")
    return network.cpu().eval()
