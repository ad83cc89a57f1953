"""What a second look tells: the candidate encoding's features against the original's.

The paper's state is E(J(x, c)), the features of the *encoded* picture. A probe is that look: the
device encodes picture x at rung i, runs the engine's prefix on it, and this small graph compares
both looks and predicts the agreement of every rung j. The engine is used twice; nothing of it is
repeated here but the classifier that puts the features into words.

Its inputs are parametric in log scale and log quality, so that one probed rung teaches the others
of its kind; what is said of rungs of another kind is not used (``edge_sdk.climb``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from edge_sdk.ladder import REFERENCE, Ladder, kinds_of
from export.network import MAX_LOGIT, always_agrees

__all__ = ["STATISTICS", "ProbeHead"]

#: What is measured of a pair (original, candidate), in this order.
STATISTICS = (
    "log_p",  # of the original's best class, in the candidate
    "margin_1",  # to its best competitor
    "margin_5",  # to its fifth competitor: the any-hit metric's border
    "same_best",
    "log_kl",  # of both looks' answers
    "entropy",  # of the candidate's answer
    "survival",  # probability mass of the original's answer on the candidate's best five
    "log_loss_of_mass",
    "overlap",  # share of the best five in common
    "log_displacement",  # of the standardised features
    "log_angle",
    "original_log_p",
    "original_margin_1",
    "original_margin_5",
    "original_entropy",
    "log_size",  # of the candidate against the reference, exact
)
_TOP = 5
#: Statistics whose meaning changes with the distance between the probed and the predicted rung.
_BENDING = (0, 1, 3, 4, 5, 9)
_FADING = (0, 1, 3)


class ProbeHead(nn.Module):
    """Agreement of every rung, seen from one probed rung.

    Args:
        classifier: weight (V, P) and bias (V,) that turn pooled features into class scores.
        spread: (P,) standard deviation of the pooled features over pictures.
        ladder: K rungs.
        sizes: (K,) mean log size ratio of each rung.
    """

    def __init__(
        self, classifier: tuple[Tensor, Tensor], spread: Tensor, ladder: Ladder, sizes: Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("class_weight", classifier[0])
        self.register_buffer("class_bias", classifier[1])
        self.register_buffer("spread", spread)
        self.register_buffer("sizes", sizes.float())
        self.register_buffer("always", torch.tensor(always_agrees(ladder)))
        self.register_buffer("place", _places(ladder, sizes))
        self.register_buffer("bending", torch.tensor(_BENDING), persistent=False)
        self.register_buffer("fading", torch.tensor(_FADING), persistent=False)
        columns = self.columns(torch.zeros(1, len(STATISTICS)), torch.zeros(1, dtype=torch.long))
        width = columns.shape[2]
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.weight = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(1), requires_grad=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], ladder: Ladder) -> Self:
        """Rebuild a head from its ``state_dict``."""
        classifier = (state["class_weight"], state["class_bias"])
        head = cls(classifier, state["spread"], ladder, state["sizes"])
        head.load_state_dict(dict(state))
        return head.eval()

    def moved_to(self, ladder: Ladder) -> Self:
        """Return what this head, of JPEG frames, says of other kinds of rungs too.

        A look tells much the same whatever it was that spoilt the picture; kinds start out equal.
        """
        classifier = (self.class_weight, self.class_bias)
        head = type(self)(classifier, self.spread, ladder, torch.zeros(len(ladder)))
        # The places of the kinds come last among the levels, after what was seen and the two ways.
        before = len(STATISTICS) + 6 + self.place.shape[1]
        extra = head.place.shape[1] - self.place.shape[1]
        for name, value in (("mean", 0.0), ("scale", 1.0), ("weight", 0.0)):
            known = getattr(self, name)
            added = torch.full((extra,), value, dtype=known.dtype)
            whole = torch.cat((known[:before], added, known[before:]))
            getattr(head, name).data.copy_(whole)
        head.bias.data.copy_(self.bias)
        return head.eval()

    def forward(
        self, original: Tensor, candidate: Tensor, rung: Tensor, size_ratio: Tensor
    ) -> Tensor:  # (N, D), (N, D), (N,) int64, (N,) -> (N, K)
        """Return the agreement of every rung, in [0, 1]."""
        statistics = self.statistics(original, candidate, size_ratio)
        columns = (self.columns(statistics, rung) - self.mean) / self.scale
        learnt = torch.sigmoid((columns @ self.weight + self.bias).clamp(-MAX_LOGIT, MAX_LOGIT))
        return torch.where(self.always, torch.ones_like(learnt), learnt)

    def statistics(
        self, original: Tensor, candidate: Tensor, size_ratio: Tensor
    ) -> Tensor:  # (N, D), (N, D), (N,) -> (N, 16)
        """Return ``STATISTICS`` of each pair."""
        width = self.spread.shape[0]
        before, after = original[:, :width], candidate[:, :width]
        # In one product: what it costs a device is to read the weights.
        scores = torch.cat((before, after)) @ self.class_weight.T + self.class_bias
        said, says = torch.log_softmax(scores, dim=1).tensor_split(2)
        count = min(_TOP + 1, said.shape[1])
        best_before, where_before = torch.topk(said, count, dim=1)
        best_after, where_after = torch.topk(says, count, dim=1)
        kept = torch.gather(says, 1, where_before[:, :1])[:, 0]
        p_before, p_after = torch.exp(said), torch.exp(says)
        survival = torch.gather(p_before, 1, where_after[:, :_TOP]).sum(dim=1)
        common = where_after[:, :_TOP].unsqueeze(2) == where_before[:, :_TOP].unsqueeze(1)
        moved = (after - before) / self.spread
        # 1 - cosine; as a difference of nearly equal numbers it would be all rounding.
        turned = 0.5 * ((_unit(after) - _unit(before)) ** 2).sum(dim=1)
        same = (where_after[:, 0] == where_before[:, 0]).to(kept.dtype)
        divergence = (p_before * (said - says)).sum(dim=1).clamp(min=0.0)
        columns = (
            kept,
            kept - _competitor(best_after, kept, 1),
            kept - _competitor(best_after, kept, count - 1),
            same,
            torch.log(divergence + 1e-4),
            -(p_after * says).sum(dim=1),
            survival,
            torch.log((1.0 - survival).clamp(min=0.0) + 1e-3),
            common.to(kept.dtype).sum(dim=(1, 2)) / _TOP,
            0.5 * torch.log((moved * moved).mean(dim=1) + 1e-6),
            torch.log(turned + 1e-5),
            best_before[:, 0],
            best_before[:, 0] - best_before[:, 1],
            best_before[:, 0] - best_before[:, count - 1],
            -(p_before * said).sum(dim=1),
            torch.log(size_ratio),
        )
        return torch.stack(columns, dim=1)

    def columns(self, statistics: Tensor, rung: Tensor) -> Tensor:  # (N, 16), (N,) -> (N, K, P)
        """Return the regression's columns: what was seen, and how far each rung is from there."""
        # Plain selections only: exporters turn None and lists in one index into something else.
        here = torch.index_select(self.place, 0, rung)[:, :3]  # (N, 3)
        way = self.place[:, :3].unsqueeze(0) - here.unsqueeze(1)  # (N, K, 3)
        shape = (statistics.shape[0], way.shape[1], -1)
        seen = statistics.unsqueeze(1).expand(shape)
        level = self.place.unsqueeze(0).expand(shape)
        bending = torch.index_select(statistics, 1, self.bending).unsqueeze(1).unsqueeze(1)
        bent = (way.unsqueeze(3) * bending).reshape(shape)
        fading = torch.index_select(statistics, 1, self.fading).unsqueeze(1)
        faded = way[:, :, 2:].abs() * fading
        return torch.cat((seen, way, way * way, level, bent, faded), dim=2)


def _competitor(best: Tensor, kept: Tensor, place: int) -> Tensor:
    """Return the ``place``-th best class score that is not the kept class's own."""
    ahead = best[:, place - 1]
    return torch.where(kept >= ahead, best[:, place], ahead)


def _unit(features: Tensor) -> Tensor:
    # A clamp: exporters take a sum with something tiny for no sum at all.
    return features / torch.sqrt((features * features).sum(dim=1, keepdim=True)).clamp(min=1e-6)


def _places(ladder: Ladder, sizes: Tensor) -> Tensor:  # (K, 6, and 1 for each further kind)
    # Features have no quality; nobody looks at them.
    quality = torch.tensor([math.log((rung.quality or 75) / REFERENCE.quality) for rung in ladder])
    scale = torch.tensor([math.log(rung.scale) for rung in ladder])
    squares = (quality * scale, quality * quality, scale * scale)
    further = torch.nn.functional.one_hot(torch.tensor(kinds_of(ladder)))[:, 1:]
    return torch.stack((quality, scale, sizes.float(), *squares, *further.float().unbind(1)), dim=1)
