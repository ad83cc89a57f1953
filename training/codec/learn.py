"""Learns a bottleneck, its decoder and its entropy model together, through the frozen tail.

One network for all rates. A picture's loss is how far the classifier's answer moves (KL), how far
all of its scores and the features do, and the bytes, weighed by the rate's own λ; the rates are
interleaved over every batch. The scores' error is what makes it hold for classes that the photos do
not show: the answer alone tells of the few that they do.

Integers are rounded in the forward pass and passed through backwards, and their bits are counted as
they will be sent: noise in place of rounding overstates them by a third where most integers are
zero. Then the entropy model alone goes on learning, each rate for itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.feature_network import Bottleneck, Decoder, Shape
from training.codec.context import SCALES, Context, Refined, bits, index_of
from training.codec.pictures import Seen
from training.codec.start import apply, klt, sensitivity
from training.learn.compute import CPU, mixed
from training.progress import Step

__all__ = ["LAMBDAS", "History", "Learnt", "Recipe", "coded", "integers_of", "learn"]

#: What a kilobyte costs at each rate, in nats of the answer.
LAMBDAS = (20.0, 8.0, 3.5, 1.5, 0.6, 0.25, 0.1)

#: Gains of the first and the last rate at the start; the others lie between them evenly.
_GAINS = (0.25, 2.5)

#: Maps that the start is computed from.
_SENSED, _KLT = 640, 1200

#: One entry every few steps: the step, mean KL and mean bytes of every rate.
History = list[dict[str, Any]]

#: The entropy model alone learns for this part of the network's steps.
_ALONE = 3

#: Steps timed before ``minutes`` decides how many there will be.
_TIMED = 8


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


@dataclass(frozen=True)
class Learnt:
    """What was learnt.

    Attributes:
        bottleneck: of all rates, as is the decoder.
        decoder: integers to the maps that the tail takes.
        adapter: what makes the service's maps of the prefix's, or None.
        entropy: the context network of each rate, or None for tables without context.
        steps: that were done.
        history: of the network.
    """

    bottleneck: Bottleneck
    decoder: Decoder
    adapter: nn.Module | None
    entropy: Refined | None
    steps: int
    history: History


def learn(
    tail: nn.Module,
    seen: Seen,
    recipe: Recipe,
    *,
    adapter: nn.Module | None = None,
    given: Tensor | None = None,
    step: Step = lambda count, note="": None,
    clock: Callable[[], float] = time.monotonic,
    device: torch.device = CPU,
) -> Learnt:
    """Learn a codec.

    Args:
        tail: maps (N, D, h, w) to scores; frozen unless the recipe says otherwise.
        seen: what the service's own first blocks made of the pictures, and its answers.
        recipe: how.
        adapter: makes the service's maps of another prefix's; learns as well.
        given: that prefix's maps of the same pictures; None if the prefix is the service's own.
        step: told the steps done.
        clock: seconds, for ``minutes``.
        device: where; what is returned is on the CPU, and so is all randomness.
    """
    torch.manual_seed(recipe.seed)
    network = _Network(tail, recipe, adapter)
    network.start(seen if given is None else _adapted(seen, given, adapter))
    source = seen.features if given is None else given
    network.to(device)
    done, history = _train(network, seen, source, recipe, step, clock)
    entropy = _refine(network, source, recipe) if recipe.context else None
    return network.learnt(entropy, done, history)


class _Network(nn.Module):
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

    def learnt(self, entropy: Refined | None, steps: int, history: History) -> Learnt:
        """Return what came of it."""
        self.cpu()
        entropy = None if entropy is None else entropy.cpu()
        adapter = None if self.adapter is None else self.adapter.eval()
        return Learnt(self.bottleneck.eval(), self.decoder.eval(), adapter, entropy, steps, history)


def integers_of(bottleneck: Bottleneck, codes: Tensor, rate: int) -> Tensor:
    """Return the integers of codes (N, C, H, W) at one rate, as float."""
    with torch.inference_mode():
        steps = bottleneck.gained(codes, torch.full((len(codes),), rate, device=codes.device))
        limit = bottleneck.shape.limit
        return torch.clamp(torch.round(steps), -limit, limit)


def _train(
    network: _Network,
    seen: Seen,
    source: Tensor,
    recipe: Recipe,
    step: Step,
    clock: Callable[[], float],
) -> tuple[int, History]:
    rates, device = recipe.shape.rates, network.device
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    optimiser = torch.optim.Adam(network.groups(), betas=(0.9, 0.99))
    bases = [float(group["lr"]) for group in optimiser.param_groups]
    rate = torch.arange(recipe.batch, device=device) % rates
    price = torch.tensor(recipe.lambdas, device=device)[rate] / 8000.0  # of a bit
    variance = float(seen.features[:600].float().var())
    spread = float(_centred(seen.scores).square().mean())
    total, done = recipe.steps, 0
    history: History = []
    begun = clock()
    while done < total:
        for group, base in zip(optimiser.param_groups, bases, strict=True):
            group["lr"] = base * _schedule(done, total)
        rows = torch.randint(len(source), (recipe.batch,), generator=generator)
        decoded, scores, spent = network(source[rows].to(device).float(), rate)
        wanted, maps = seen.scores[rows].to(device), seen.features[rows].to(device).float()
        moved = _moved(wanted, scores)
        error = ((decoded - maps) ** 2).mean(dim=(1, 2, 3)) / variance
        missed = _centred(scores - wanted).square().mean(dim=1) / spread
        loss = moved + recipe.feature_error * error + recipe.score_error * missed + price * spent
        optimiser.zero_grad(set_to_none=True)
        loss.mean().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        done += 1
        if done == _TIMED and recipe.minutes is not None:
            total = min(total, max(_TIMED, int(recipe.minutes * 60 * done / (clock() - begun))))
        if done % 25 == 0 or done == total:
            history.append(_told(done, moved, spent, rates))
        step(1, f"KL {moved.mean().item():.2f}, {spent.mean().item() / 8:.0f} bytes")
    return done, history


def _schedule(done: int, total: int) -> float:
    return min(1.0, (done + 1) / 20) * 0.5 * (1.0 + math.cos(math.pi * done / total))


def _told(done: int, moved: Tensor, spent: Tensor, rates: int) -> dict[str, Any]:
    kl = moved.detach().view(-1, rates).mean(dim=0)
    size = spent.detach().view(-1, rates).mean(dim=0) / 8
    return {"step": done, "kl": kl.tolist(), "bytes": size.tolist()}


def _moved(wanted: Tensor, scores: Tensor) -> Tensor:
    """Return the KL divergence (N,) of the answers from those wanted."""
    log_p = F.log_softmax(wanted, dim=1)
    return (log_p.exp() * (log_p - F.log_softmax(scores, dim=1))).sum(dim=1)


def _centred(scores: Tensor) -> Tensor:
    return scores - scores.mean(dim=1, keepdim=True)


def _rounded(values: Tensor, limit: int) -> Tensor:
    """Round and clip; backwards as if nothing had happened."""
    return values + (torch.clamp(torch.round(values), -limit, limit) - values).detach()


def _let_learn(tail: nn.Module) -> list[nn.Parameter]:
    """Let the weights of a tail's layers learn, and nothing of one dimension."""
    weights = [one for one in tail.parameters() if one.dim() > 1]
    for one in weights:
        one.requires_grad_(requires_grad=True)
    return weights


def _adapted(seen: Seen, given: Tensor, adapter: nn.Module | None) -> Seen:
    if adapter is None:
        return seen
    with torch.inference_mode():
        maps = torch.cat([adapter(batch.float()).half() for batch in given.split(64)])
    return Seen(maps.clone(), seen.scores)


def _refine(network: _Network, source: Tensor, recipe: Recipe) -> Refined:
    """Let the entropy model learn alone, on the integers as they are sent."""
    refined = Refined(network.context)
    optimiser = torch.optim.Adam(refined.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(recipe.seed + 2)
    codes = torch.cat(list(coded(network.bottleneck, source, network.adapter)))
    total = recipe.steps // _ALONE
    for done in range(total):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * _schedule(done, total)
        rows = torch.randint(len(codes), (32,), generator=generator)
        picked, loss = codes[rows].to(network.device), torch.zeros((), device=network.device)
        for rate in range(recipe.shape.rates):
            integers = integers_of(network.bottleneck, picked, rate).clone()
            spent = bits(integers, *refined(integers, rate)).sum()
            loss = loss + spent / integers.abs().sum().clamp(min=1.0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return refined.eval()


def coded(
    bottleneck: Bottleneck, source: Tensor, adapter: nn.Module | None = None
) -> Iterator[Tensor]:
    """Yield the codes of maps, in batches, on the CPU."""
    for batch in source.split(128):
        with torch.inference_mode():
            maps = batch.to(bottleneck.log_gain.device).float()
            made = bottleneck(maps if adapter is None else adapter(maps))
        yield made.cpu().clone()
