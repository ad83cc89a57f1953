"""Where a bottleneck starts: the Karhunen-Loève transform of features weighted by the tail's eye.

A direction of the features matters as much as the classifier's scores move with it, so the
transform is taken after whitening with that; what is left out of it then costs the answer least.
Random starts do not get there in minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.feature_network import Bottleneck, Decoder

__all__ = ["Transform", "apply", "klt", "ridge", "sensitivity"]

#: Share of the identity in the weighting, so that no direction counts for nothing.
_FLOOR = 0.05

#: Standard deviation of the strongest code, in steps of gain one.
_STRONGEST = 4.0


@dataclass(frozen=True)
class Transform:
    """A linear map of folded features (width,) to codes (C,) and back.

    Attributes:
        mean: (width,).
        forward: (C, width).
        backward: (width, C).
        variance: (C,) of the codes, strongest first.
    """

    mean: Tensor
    forward: Tensor
    backward: Tensor
    variance: Tensor


def sensitivity(
    tail: nn.Module, batches: Iterator[Tensor], fold: int, generator: torch.Generator
) -> Tensor:
    """Return E[JᵀvvᵀJ] over positions: how the tail's scores move, all classes alike.

    J is the scores' Jacobian and v a random direction of the scores. The Fisher information of the
    answers would ask about the classes on the photos only, and serve the others worse.

    Args:
        tail: features (N, D, h, w) to scores.
        batches: features.
        fold: positions of a square count as channels of one.
        generator: draws the directions.

    Returns:
        (D·fold², D·fold²), of trace D·fold².
    """
    total = torch.zeros(())
    for features in batches:
        given = features.clone().requires_grad_()
        scores = tail(given)
        drawn = torch.randn(scores.shape, generator=generator)
        drawn = drawn - drawn.mean(dim=1, keepdim=True)
        (slope,) = torch.autograd.grad((scores * drawn).sum(), given)
        rows = _rows(slope, fold)
        total = total + rows.T @ rows
    return total * (len(total) / torch.trace(total))


def klt(features: Tensor, weight: Tensor, codes: int, fold: int) -> Transform:
    """Return the transform that keeps most of what the weight says matters."""
    rows = _rows(features.float(), fold)
    mean = rows.mean(dim=0)
    rows = rows - mean
    covariance = (rows.T @ rows / len(rows)).double()
    size = len(weight)
    mixed = (1.0 - _FLOOR) * weight.double() + _FLOOR * torch.eye(size, dtype=torch.double)
    values, vectors = torch.linalg.eigh(mixed)
    root = vectors @ torch.diag(values.clamp(min=1e-12).sqrt()) @ vectors.T
    inverse = vectors @ torch.diag(values.clamp(min=1e-12).rsqrt()) @ vectors.T
    variance, axes = torch.linalg.eigh(root @ covariance @ root)
    order = torch.argsort(variance, descending=True)[:codes]
    axes, variance = axes[:, order], variance[order].clamp(min=0.0)
    scale = _STRONGEST / variance[0].sqrt().clamp(min=1e-12)
    return Transform(
        mean,
        (scale * axes.T @ root).float(),
        (inverse @ axes / scale).float(),
        (variance * scale**2).float(),
    )


@torch.no_grad()
def apply(transform: Transform, bottleneck: Bottleneck, decoder: Decoder) -> None:
    """Let a bottleneck and a decoder begin as a transform and its inverse, with gains of rates."""
    bottleneck.linear.weight.copy_(transform.forward[:, :, None, None])
    bottleneck.linear.bias.copy_(-transform.forward @ transform.mean)
    decoder.linear.weight.copy_(transform.backward[:, :, None, None])
    decoder.linear.bias.copy_(transform.mean)


def ridge(given: Tensor, wanted: Tensor, strength: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Solve for the 3x3 convolution that makes ``wanted`` (N, B, h, w) of ``given`` (N, A, h, w).

    Returns:
        weight (B, A, 3, 3) and bias (B,).
    """
    count, width = given.shape[1], given.shape[1] * 9 + 1
    gram, cross = torch.zeros(width, width).double(), torch.zeros(width, wanted.shape[1]).double()
    for a, b in zip(given.split(64), wanted.split(64), strict=True):
        patches = F.unfold(a.float(), 3, padding=1).transpose(1, 2).reshape(-1, width - 1)
        patches = torch.cat((patches, torch.ones(len(patches), 1)), dim=1)
        target = b.float().flatten(2).transpose(1, 2).reshape(-1, wanted.shape[1])
        gram += (patches.T @ patches).double()
        cross += (patches.T @ target).double()
    gram += strength * torch.trace(gram) / width * torch.eye(width).double()
    solved = torch.linalg.solve(gram, cross).float()
    return solved[:-1].T.reshape(-1, count, 3, 3).contiguous(), solved[-1].contiguous()


def _rows(features: Tensor, fold: int) -> Tensor:
    """Return folded features as rows (positions, D·fold²)."""
    folded = F.pixel_unshuffle(features, fold)
    return folded.permute(0, 2, 3, 1).reshape(-1, folded.shape[1])
