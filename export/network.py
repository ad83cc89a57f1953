"""The network that is trained and deployed: pre-processing, MobileNetV2 prefix, Q-head.

One definition for both: training computes features with :class:`Prefix` and fits a head; fusing
exports these very modules. The prefix stays frozen, only heads are learnt (paper, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge_sdk.ladder import REFERENCE, Ladder
from model_store.errors import UsageError

__all__ = [
    "CONFIDENCE",
    "PRECISIONS",
    "WHOLE",
    "DQNHead",
    "FactoredHead",
    "Network",
    "Prefix",
    "always_agrees",
]

#: ``features[:19]``: all of MobileNetV2's convolutions, 1280 channels.
WHOLE = 19

#: Learnt agreements stay within sigmoid(±10), i.e. 4.5e-5 away from 0 and 1.
MAX_LOGIT = 10.0

#: Features that say how sure the prefix's own ImageNet classifier is; they follow the pooled ones.
CONFIDENCE = 7

#: What a prefix may be computed in, see ``training.learn.backbone``.
PRECISIONS = ("fp32", "int8")

# torchvision's ImageNet statistics, on pixels in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Prefix(nn.Module):
    """Pixels to features: E(·) of the paper, frozen.

    Args:
        weights: torchvision's ``mobilenet_v2-b0353104.pth``; None downloads it through torchvision.
        cut: blocks kept, ``features[:cut]``, 1 to 19; 19 keeps the classifier usable as well.
        side: S, the input side in pixels.
        confidence: append ``CONFIDENCE`` statistics of MobileNetV2's own classifier to the pooled
            activations. How sure a small network is of the untouched picture tells more about how
            much compression a large one bears than any of its activations; needs the whole network.
        precision: in which devices run it, one of ``PRECISIONS``; this module itself is fp32.
    """

    def __init__(
        self,
        weights: Path | None,
        *,
        cut: int = WHOLE,
        side: int = 224,
        confidence: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise UsageError(f"The precision {precision!r} is unknown; allowed: {PRECISIONS}.")
        if not 1 <= cut <= WHOLE:
            raise UsageError(f"The prefix is cut after block {cut}; allowed are 1 to {WHOLE}.")
        if confidence and cut != WHOLE:
            raise UsageError(
                f"A prefix cut after block {cut} has no classifier to take confidence from; use "
                f"{WHOLE}."
            )
        network = _mobilenet_v2(weights)
        self.cut, self.side, self.confidence = cut, side, confidence
        self.precision = precision
        self.blocks = network.features[:cut]
        self.classifier = network.classifier if cut == WHOLE else None
        self.register_buffer("mean", 255.0 * torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", 255.0 * torch.tensor(_STD).view(1, 3, 1, 1))
        self.requires_grad_(requires_grad=False)
        self.eval()

    @property
    def dimension(self) -> int:
        """D, the number of features."""
        with torch.inference_mode():
            return int(self(torch.zeros(1, self.side, self.side, 3, dtype=torch.uint8)).shape[1])

    def feature_map(self, image: Tensor) -> Tensor:  # (N, S, S, 3) uint8 -> (N, D, h, w) float32
        """Return the last block's activations, before pooling."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        activations: Tensor = self.blocks((pixels - self.mean) / self.std)
        return activations

    def forward(self, image: Tensor) -> Tensor:  # (N, S, S, 3) uint8 -> (N, D) float32
        """Return the features: activations pooled over the whole map, then confidence if asked."""
        pooled = self.feature_map(image).mean(dim=(2, 3))
        return torch.cat((pooled, self._sureness(pooled)), dim=1) if self.confidence else pooled

    def _sureness(self, pooled: Tensor) -> Tensor:  # (N, 1280) -> (N, CONFIDENCE)
        log_p = torch.log_softmax(self.logits(pooled), dim=1)
        best = torch.topk(log_p, 5, dim=1).values
        p = torch.exp(log_p)
        columns = (
            best[:, 0],
            best[:, 0] - best[:, 1],
            best[:, 0] - best[:, 4],
            -(p * log_p).sum(dim=1),  # entropy, nats
            torch.log1p(-torch.exp(best[:, 0]).clamp(max=1.0 - 1e-4)),
            torch.log(pooled.mean(dim=1) + 1e-6),
            torch.log((pooled * pooled).mean(dim=1) + 1e-6),
        )
        return torch.stack(columns, dim=1)

    def logits(self, features: Tensor) -> Tensor:  # (N, 1280) -> (N, 1000)
        """Return MobileNetV2's own ImageNet logits for features of the whole network."""
        if self.classifier is None:
            raise UsageError(f"A prefix cut after block {self.cut} has no classifier; use {WHOLE}.")
        answer: Tensor = self.classifier(features)
        return answer


class DQNHead(nn.Module):
    """The paper's action-value function Q(φ, c; θ): a small multi-layer perceptron."""

    outputs = ("q_values",)

    def __init__(self, dimension: int, rungs: int, hidden: Sequence[int] = (64, 32, 32)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(dimension, width), nn.ReLU()]
            dimension = width
        self.layers = nn.Sequential(*layers, nn.Linear(dimension, rungs))

    def forward(self, features: Tensor) -> tuple[Tensor]:  # (N, D) -> (N, K)
        """Return the Q-values."""
        return (self.layers(features),)


class FactoredHead(nn.Module):
    """Q = α·A − Δs + β with agreement A and size ratio Δs predicted apart (γ = 0).

    Args:
        dimension: D, the number of features.
        ladder: K rungs; those that decode to the reference's pixels agree by construction.
        alpha, beta: reward parameters, section 3.4 of the paper.
    """

    outputs = ("q_values", "agreement", "size_ratio")

    def __init__(
        self,
        dimension: int,
        ladder: Ladder,
        *,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        rungs = len(ladder)
        self.agreement_logit = nn.Linear(dimension, rungs)
        self.log_size = nn.Linear(dimension, rungs)
        self.register_buffer("always", torch.tensor(always_agrees(ladder)))
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("beta", torch.tensor(beta))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (N, D) -> 3 x (N, K)
        """Return Q-values, agreement in [0, 1] and size ratio > 0."""
        # The bound keeps every learnt agreement below the certain ones in single precision.
        logit = self.agreement_logit(features).clamp(-MAX_LOGIT, MAX_LOGIT)
        learnt = torch.sigmoid(logit)
        agreement = torch.where(self.always, torch.ones_like(learnt), learnt)
        size_ratio = torch.exp(self.log_size(features))
        return self.alpha * agreement - size_ratio + self.beta, agreement, size_ratio


class Network(nn.Module):
    """Prefix and head in one module: what an engine computes."""

    def __init__(self, prefix: nn.Module, head: DQNHead | FactoredHead) -> None:
        super().__init__()
        self.prefix, self.head = prefix, head

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return (features, *head outputs)."""
        features = self.prefix(image)
        return (features, *self.head(features))


def always_agrees(ladder: Ladder) -> list[bool]:
    """Return, per rung, whether it decodes to the very pixels of the reference."""
    return [rung.pixels == REFERENCE.pixels for rung in ladder]


def _mobilenet_v2(weights: Path | None) -> Any:
    from torchvision.models import MobileNet_V2_Weights, mobilenet_v2  # seconds: only when built

    if weights is None:
        return mobilenet_v2(weights=MobileNet_V2_Weights.IMAGENET1K_V1)
    network = mobilenet_v2()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network
