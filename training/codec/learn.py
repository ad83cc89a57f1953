"""Learns a bottleneck, its decoder and its entropy model together, through the frozen tail.

One network for all rates. A picture's loss is how far the classifier's answer moves (KL), how far
all of its scores and the features do, and the bytes, weighed by the rate's own λ; the rates are
interleaved over every batch. The scores' error is what makes it hold for classes that the photos do
not show: the answer alone tells of the few that they do.

Then the entropy model alone goes on learning, each rate for itself. What learns is ``network``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.feature_network import Bottleneck, Decoder
from training.codec.context import Refined, bits
from training.codec.network import Network, Recipe
from training.codec.pictures import Seen
from training.learn.compute import CPU
from training.progress import Step

__all__ = ["History", "Learnt", "coded", "integers_of", "learn"]

#: One entry every few steps: the step, mean KL and mean bytes of every rate.
History = list[dict[str, Any]]

#: The entropy model alone learns for this part of the network's steps.
_ALONE = 3

#: Steps timed before ``minutes`` decides how many there will be.
_TIMED = 8


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
    network = Network(tail, recipe, adapter)
    network.start(seen if given is None else _adapted(seen, given, adapter))
    source = seen.features if given is None else given
    network.to(device)
    done, history = _train(network, seen, source, recipe, step, clock)
    entropy = _refine(network, source, recipe) if recipe.context else None
    return _learnt(network, entropy, done, history)


def _learnt(network: Network, entropy: Refined | None, steps: int, history: History) -> Learnt:
    """Return what came of it, on the CPU."""
    network.cpu()
    entropy = None if entropy is None else entropy.cpu()
    adapter = None if network.adapter is None else network.adapter.eval()
    return Learnt(
        network.bottleneck.eval(), network.decoder.eval(), adapter, entropy, steps, history
    )


def integers_of(bottleneck: Bottleneck, codes: Tensor, rate: int) -> Tensor:
    """Return the integers of codes (N, C, H, W) at one rate, as float."""
    with torch.inference_mode():
        steps = bottleneck.gained(codes, torch.full((len(codes),), rate, device=codes.device))
        limit = bottleneck.shape.limit
        return torch.clamp(torch.round(steps), -limit, limit)


def _train(
    network: Network,
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


def _adapted(seen: Seen, given: Tensor, adapter: nn.Module | None) -> Seen:
    if adapter is None:
        return seen
    with torch.inference_mode():
        maps = torch.cat([adapter(batch.float()).half() for batch in given.split(64)])
    return Seen(maps.clone(), seen.scores)


def _refine(network: Network, source: Tensor, recipe: Recipe) -> Refined:
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
