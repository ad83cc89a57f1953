"""All of a codec that learns, as one pass from maps to what a loss is made of; here nothing learns.

Integers are rounded in the forward pass and passed through backwards, and their bits are counted as
they will be sent: noise in place of rounding overstates them by a third where most integers are
zero.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.feature_network import Bottleneck, Decoder, Shape
from training.codec.context import SCALES, Context, bits, index_of
from training.codec.pictures import Seen
from training.codec.start import apply, klt, sensitivity
from training.learn.compute import mixed

__all__ = ["LAMBDAS", "Network", "Recipe"]

#: What a kilobyte costs at each rate, in nats of the answer.
LAMBDAS = (20.0, 8.0, 3.5, 1.5, 0.6, 0.25, 0.1)

#: Gains of the first and the last rate at the start; the others lie between them evenly.
_GAINS = (0.25, 2.5)

#: Maps that the start is computed from.
_SENSED, _KLT = 640, 1200


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to learn.

    Attributes:
        shape: of the codec.
        lambdas: of the rates, cheapest rate first.
        context: hidden units of the context network; 0 for tables without context.
        steps: of the network.
        minutes: the network's steps are cut down to about this many, None for no limit.
        batch: pictures a step; a multiple of the rates.
        feature_error: weight of the features' relative error.
        score_error: weight of the scores' relative error, each class as much as any other.
        tail_rate: learning rate of the tail's weights; 0 keeps it frozen.
        seed: of everything random.
    """

    shape: Shape
    lambdas: tuple[float, ...] = LAMBDAS
    context: int = 48
    steps: int = 400
    minutes: float | None = None
    batch: int = 28
    learning_rate: float = 1.5e-3
    feature_error: float = 0.2
    score_error: float = 4.0
    tail_rate: float = 0.0
    seed: int = 0


class Network(nn.Module):
    """All that learns, as one pass from maps to what the loss is made of."""

    def __init__(self, tail: nn.Module, recipe: Recipe, adapter: nn.Module | None) -> None:
        super().__init__()
        shape = recipe.shape
        self.recipe, self.tail, self.adapter = recipe, tail, adapter
        self.fast_tail = None if recipe.tail_rate else deepcopy(tail).to(torch.bfloat16)
        self.bottleneck, self.decoder = Bottleneck(shape), Decoder(shape)
        self.context = Context(shape, recipe.context)

    def start(self, seen: Seen) -> None:
        """Begin as the transform that costs the answers least."""
        recipe, shape = self.recipe, self.recipe.shape
        generator = torch.Generator().manual_seed(recipe.seed)
        order = torch.randperm(len(seen.features), generator=generator)
        maps = (seen.features[rows].float() for rows in order[:_SENSED].split(32))
        weight = sensitivity(self.tail, maps, shape.fold, generator)
        transform = klt(seen.features[order[:_KLT]], weight, shape.codes, shape.fold)
        apply(transform, self.bottleneck, self.decoder)
        first, last = (math.log(gain) for gain in _GAINS)
        with torch.no_grad():
            gains = torch.linspace(first, last, shape.rates)[:, None]
            spread = 0.55 * transform.variance.sqrt() * gains.exp()
            self.bottleneck.log_gain.copy_(gains.expand_as(self.bottleneck.log_gain))
            self.decoder.log_step.copy_(-self.bottleneck.log_gain)
            self.context.log_in.copy_(-self.bottleneck.log_gain)
            self.context.log_mean_gain.copy_(self.bottleneck.log_gain)
            self.context.scale.copy_(index_of(spread).clamp(0.0, SCALES - 2.0))

    def forward(self, source: Tensor, rate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return decoded maps, scores and the bits (N,) of each picture."""
        maps = source if self.adapter is None else self.adapter(source)
        steps = self.bottleneck.gained(self.bottleneck(maps), rate)
        integers = _rounded(steps, self.recipe.shape.limit)
        mean, scale = self.context(integers, rate)
        spent = bits(integers, mean, scale).sum(dim=(1, 2, 3))
        decoded = self.decoder(integers, rate)
        return decoded, self.answers(decoded), spent

    def answers(self, maps: Tensor) -> Tensor:
        """Return the tail's scores; a frozen tail answers in bfloat16, twice as fast."""
        if self.fast_tail is None:
            with mixed(maps.device):
                return self.tail(maps).float()
        return self.fast_tail(maps.to(torch.bfloat16)).float()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.bottleneck.log_gain.device

    def groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's groups: weights; gains and tables learn faster."""
        fast = [self.bottleneck.log_gain, self.decoder.log_step, self.context.log_in]
        fast += [self.context.log_mean_gain, self.context.mean, self.context.b1]
        apart = {id(one) for one in (*fast, self.context.scale)}
        slow = [one for one in self.parameters() if one.requires_grad and id(one) not in apart]
        groups: list[dict[str, Any]] = [
            {"params": slow, "lr": self.recipe.learning_rate},
            {"params": fast, "lr": 1e-2},
            {"params": [self.context.scale], "lr": 0.1},  # in indices of the tables
        ]
        if self.recipe.tail_rate:
            groups.append({"params": _let_learn(self.tail), "lr": self.recipe.tail_rate})
        return groups


def _rounded(values: Tensor, limit: int) -> Tensor:
    """Round and clip; backwards as if nothing had happened."""
    return values + (torch.clamp(torch.round(values), -limit, limit) - values).detach()


def _let_learn(tail: nn.Module) -> list[nn.Parameter]:
    """Let the weights of a tail's layers learn, and nothing of one dimension."""
    weights = [one for one in tail.parameters() if one.dim() > 1]
    for one in weights:
        one.requires_grad_(requires_grad=True)
    return weights
