"""The networks of a feature codec: what a device sends of a picture, what a service makes of it.

Device side: the service's view of a picture, a frozen prefix, a bottleneck, and one gain per rate
and channel; out come integers. Server side: integers and the number of their rate, a decoder, the
frozen rest of the classifier (its *tail*). Everything between them is integers, which is why the
two sides need not run on the same hardware. Not here: how they are learnt (``training.codec``) and
how integers become bytes (``edge_sdk.featurecodec``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Adapter",
    "Bottleneck",
    "Decoder",
    "DeviceSide",
    "Segmenter",
    "ServerSide",
    "Shape",
    "Viewer",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Sizes of a codec.

    Attributes:
        channels: D, of the features that the tail takes.
        codes: C, channels of the integers.
        rates: R.
        limit: L; integers are in [-L, L].
        fold: squares of ``fold`` x ``fold`` positions become channels before the bottleneck.
        hidden: channels inside the residual branches.
    """

    channels: int
    codes: int
    rates: int = 7
    limit: int = 31
    fold: int = 1
    hidden: int = 64


class Residual(nn.Module):
    """x + branch(x), where the branch (3x3, ReLU, 3x3 or 1x1) starts at zero.

    With ``rates`` the branch knows the rate: a bias of its own for each.
    """

    def __init__(
        self, width: int, hidden: int, *, out: int | None = None, last: int = 3, rates: int = 0
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, out or width, last, padding=last // 2)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)
        self.of_rate = nn.Parameter(torch.zeros(rates, hidden)) if rates else None

    def forward(self, x: Tensor, rate: Tensor | None = None) -> Tensor:
        """Return the branch alone; who calls adds what it belongs to."""
        inner = self.first(x)
        if self.of_rate is not None and rate is not None:
            inner = inner + self.of_rate[rate][:, :, None, None]
        answer: Tensor = self.second(F.relu(inner))
        return answer


class Bottleneck(nn.Module):
    """Features (N, D, h, w) to codes (N, C, H, W), and codes to integers of every rate."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.channels * shape.fold**2
        self.linear = nn.Conv2d(width, shape.codes, 1)
        self.branch = Residual(width, shape.hidden, out=shape.codes, last=1)
        self.log_gain = nn.Parameter(torch.zeros(shape.rates, shape.codes))

    def forward(self, features: Tensor) -> Tensor:
        """Return the codes, before any rate's gain."""
        folded = F.pixel_unshuffle(features, self.shape.fold)
        codes: Tensor = self.linear(folded) + self.branch(folded)
        return codes

    def gained(self, codes: Tensor, rate: Tensor) -> Tensor:
        """Return codes in steps of their rate (N,), not rounded."""
        return codes * torch.exp(self.log_gain)[rate][:, :, None, None]

    def integers(self, codes: Tensor) -> Tensor:  # (N, C, H, W) -> (N, R, C, H, W)
        """Return the integers of all rates, as float."""
        steps = codes[:, None] * torch.exp(self.log_gain)[None, :, :, None, None]
        return torch.clamp(torch.round(steps), -self.shape.limit, self.shape.limit)


class Decoder(nn.Module):
    """Integers (N, C, H, W) and rates (N,) to features (N, D, h, w)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.channels
        self.log_step = nn.Parameter(torch.zeros(shape.rates, shape.codes))
        self.of_code = Residual(shape.codes, shape.hidden, rates=shape.rates)
        self.linear = nn.Conv2d(shape.codes, width * shape.fold**2, 1)
        self.blocks = nn.ModuleList(
            Residual(width, shape.hidden, rates=shape.rates) for _ in range(2)
        )

    def forward(self, integers: Tensor, rate: Tensor) -> Tensor:
        """Return the features."""
        codes = integers * torch.exp(self.log_step)[rate][:, :, None, None]
        codes = codes + self.of_code(codes, rate)
        features = F.pixel_shuffle(self.linear(codes), self.shape.fold)
        for block in self.blocks:
            features = features + block(features, rate)
        return features


class Adapter(nn.Module):
    """One network's features to another's of the same map size: a 3x3 linear map and a branch."""

    def __init__(self, given: int, wanted: int, hidden: int = 64) -> None:
        super().__init__()
        self.linear = nn.Conv2d(given, wanted, 3, padding=1)
        self.branch = Residual(given, hidden, out=wanted, last=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features as the other network would have made them."""
        made: Tensor = self.linear(features) + self.branch(features)
        return made


class DeviceSide(nn.Module):
    """uint8 view (1, S, S, 3) to int8 integers (R, C, H, W) of all rates."""

    def __init__(self, prefix: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.prefix, self.bottleneck = prefix, bottleneck

    def forward(self, view: Tensor) -> Tensor:
        """Return the integers of one picture."""
        return self.bottleneck.integers(self.bottleneck(self.prefix(view)))[0].to(torch.int8)


class ServerSide(nn.Module):
    """int8 integers (N, C, H, W) and int64 rates (N,) to scores (N, classes)."""

    def __init__(self, decoder: Decoder, tail: nn.Module) -> None:
        super().__init__()
        self.decoder, self.tail = decoder, tail

    def forward(self, integers: Tensor, rate: Tensor) -> Tensor:
        """Return the scores."""
        scores: Tensor = self.tail(self.decoder(integers.to(torch.float32), rate))
        return scores


class Segmenter(nn.Module):
    """Integers and rates to a class of every place, from the features that the tail takes.

    Atrous pyramid pooling as in DeepLab: branches of different reach, joined; the maps stay as
    large as they are.

    Args:
        decoder: learnt, frozen.
        classes: of places.
        scale: the answer's side is the features' side times this.
    """

    def __init__(self, decoder: Decoder, classes: int, *, scale: int = 4, hidden: int = 48) -> None:
        super().__init__()
        width = decoder.shape.channels
        self.decoder, self.scale = decoder, scale
        self.near = nn.Conv2d(width, hidden, 1)
        self.far = nn.ModuleList(
            nn.Conv2d(width, hidden, 3, padding=reach, dilation=reach) for reach in (1, 2, 4)
        )
        self.joined = nn.Conv2d(4 * hidden, classes, 1)

    def scores(self, integers: Tensor, rate: Tensor) -> Tensor:
        """Return scores (N, classes, h·scale, w·scale)."""
        with torch.no_grad():
            maps = self.decoder(integers.to(torch.float32), rate)
        seen = torch.cat([F.relu(one(maps)) for one in (self.near, *self.far)], dim=1)
        return F.interpolate(self.joined(seen), scale_factor=self.scale, mode="bilinear")

    def forward(self, integers: Tensor, rate: Tensor) -> Tensor:
        """Return uint8 classes (N, h·scale, w·scale)."""
        return self.scores(integers, rate).argmax(dim=1).to(torch.uint8)


class Viewer(nn.Module):
    """Integers and rates to a small picture: what was sent, made visible.

    Args:
        shape: of the codec.
        doublings: the picture's side is the integers' side times 2 to this.
    """

    def __init__(self, shape: Shape, doublings: int, hidden: int = 64) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.zeros(shape.rates, shape.codes))
        # Half as wide at every doubling: a map of four times the positions costs as much again.
        widths = [max(8, hidden >> number) for number in range(doublings + 1)]
        self.first = nn.Conv2d(shape.codes, widths[0], 3, padding=1)
        self.ups = nn.ModuleList(
            nn.Conv2d(wide, 4 * narrow, 3, padding=1) for wide, narrow in pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, integers: Tensor, rate: Tensor) -> Tensor:
        """Return uint8 pictures (N, S', S', 3)."""
        pixels = torch.clamp(torch.round(255.0 * self.light(integers, rate)), 0.0, 255.0)
        return pixels.permute(0, 2, 3, 1).to(torch.uint8)

    def light(self, integers: Tensor, rate: Tensor) -> Tensor:
        """Return pictures (N, 3, S', S') around [0, 1]."""
        x = integers.to(torch.float32) * torch.exp(self.log_step)[rate][:, :, None, None]
        x = F.relu(self.first(x))
        for up in self.ups:
            x = F.relu(F.pixel_shuffle(up(x), 2))
        return 0.5 + self.last(x)
