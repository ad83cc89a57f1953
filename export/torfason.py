"""The networks of Torfason et al. (ICLR 2018): a 28x28xC autoencoder, and classifiers of its codes.

*Towards Image Understanding from Deep Compression Without Decoding*: pictures of 224 pixels become
28 x 28 x C symbols; a cResNet answers from them without ever making the picture again, and a
decoder makes it where somebody wants to see it. A cResNet is a ResNet whose root and 56 x 56 stage
are left out, because what it takes is that small already; -51 and -72 give the work saved back as
depth. The autoencoder is that of Theis et al. (2017), which the paper builds on: strides of 2, then
residual blocks. Not here: learning (``training.codec.torfason``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_store.errors import UsageError

__all__ = [
    "BLOCKS",
    "Compressor",
    "Decompressor",
    "Quantiser",
    "ResNet",
    "macs",
]

#: Network -> bottleneck blocks of the stages 56x56, 28x28, 14x14 and 7x7; the paper's table 1.
BLOCKS: Mapping[str, tuple[int, int, int, int]] = {
    "ResNet-50": (3, 4, 6, 3),
    "ResNet-71": (3, 4, 13, 3),
    "cResNet-39": (0, 4, 6, 3),
    "cResNet-51": (0, 4, 10, 3),
    "cResNet-72": (0, 4, 17, 3),
}

_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut; the first block of a stage may halve the map."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.layers = nn.Sequential(
            nn.Conv2d(given, width, 1, stride=stride, bias=False),  # as first published
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = (
            nn.Identity()
            if given == out and stride == 1
            else nn.Sequential(
                nn.Conv2d(given, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


class ResNet(nn.Module):
    """A classifier of pictures (N, 3, 224, 224), or of codes (N, C, 28, 28) if its name says so.

    Args:
        name: one of ``BLOCKS``.
        codes: C, for the networks that take codes.
        classes: to tell apart.

    Raises:
        UsageError: there is no such network.
    """

    def __init__(self, name: str, *, codes: int = 32, classes: int = 1000) -> None:
        super().__init__()
        if name not in BLOCKS:
            raise UsageError(f"There is no network {name!r}; known are {', '.join(BLOCKS)}.")
        self.name, stages = name, BLOCKS[name]
        self.of_codes = not stages[0]
        if self.of_codes:
            # The 28 x 28 stage takes the codes as they are: so the paper's count comes out.
            given, self.root = codes, nn.Identity()
        else:
            given = _WIDTHS[0]
            self.root = nn.Sequential(
                nn.Conv2d(3, given, 7, stride=2, padding=3, bias=False),
                nn.BatchNorm2d(given),
                nn.ReLU(),
                nn.MaxPool2d(3, stride=2, padding=1),
            )
        self.stages = nn.ModuleList()
        for number, (count, width) in enumerate(zip(stages, _WIDTHS, strict=True)):
            blocks = []
            for place in range(count):
                halves = place == 0 and number > (1 if self.of_codes else 0)
                blocks.append(_Bottleneck(given, width, 2 if halves else 1))
                given = width * _EXPANSION
            self.stages.append(nn.Sequential(*blocks))
        self.answer = nn.Linear(given, classes)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps of the stages that there are, largest first."""
        x, maps = self.root(x), []
        for stage in self.stages:
            if len(stage):
                x = stage(x)
                maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores (N, classes)."""
        scores: Tensor = self.answer(self.features(x)[-1].mean(dim=(2, 3)))
        return scores


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Compressor(nn.Module):
    """Pictures (N, 3, S, S) in [0, 1] to codes (N, C, S/8, S/8), not rounded."""

    def __init__(self, codes: int, *, width: int = 128, blocks: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 2, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 5, stride=2, padding=2),
            nn.ReLU(),
            *(_Block(width) for _ in range(blocks)),
            nn.Conv2d(width, codes, 5, stride=2, padding=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes."""
        codes: Tensor = self.layers(x - 0.5)
        return codes


class Decompressor(nn.Module):
    """The image decoder D: codes (N, C, h, w) to pictures (N, 3, 8h, 8w)."""

    def __init__(self, codes: int, *, width: int = 128, blocks: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(codes, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            *(_Block(width) for _ in range(blocks)),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(width // 2, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Return the pictures, around [0, 1]."""
        pictures: Tensor = self.layers(codes) + 0.5
        return pictures


class Quantiser(nn.Module):
    """Codes to the nearest of L learnt centres: hard forwards, soft backwards.

    As in Agustsson et al. (2017), from where the paper takes it.

    Args:
        levels: L.
        hardness: σ of the soft assignment that gradients go through.
    """

    def __init__(self, levels: int = 6, hardness: float = 1.0) -> None:
        super().__init__()
        self.hardness = hardness
        self.centres = nn.Parameter(torch.linspace(-2.0, 2.0, levels))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return quantised codes, symbols and soft assignments (…, L)."""
        away = (codes[..., None] - self.centres).square()
        soft = torch.softmax(-self.hardness * away, dim=-1)
        symbols = away.argmin(dim=-1)
        smooth = (soft * self.centres).sum(dim=-1)
        return smooth + (self.centres[symbols] - smooth).detach(), symbols, soft


def macs(network: nn.Module, example: Tensor) -> int:
    """Return the multiplications of one pass, of convolutions and linear layers alone."""
    spent = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal spent
        spent += made[0].numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    network.eval()
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    return spent
