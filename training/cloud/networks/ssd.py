"""The object detector SSD-MobileNetV2 of the 80 COCO classes, from a TensorFlow frozen graph.

The graph's own end, thousands of nodes that pick the detections, is left out: here the network
ends with every anchor's box and scores, and ``training.cloud.detections`` picks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2
from torchvision.models._meta import _COCO_CATEGORIES

from training.cloud.networks.frozen_graph import read_constants
from training.cloud.networks.pixels import Pixels
from training.cloud.networks.tensorflow import (
    EPSILON,
    SamePad,
    fill_convolution,
    fill_norm,
    load_mobilenet,
    mobilenet,
)

__all__ = ["CLASSES", "SIDE", "anchors", "ssd_mobilenet_v2"]

SIDE = 300

#: Numbers of the classes that exist; ten of the 90 were dropped from COCO, 0 is the background.
_KEPT = [i for i, name in enumerate(_COCO_CATEGORIES) if i and name != "N/A"]
CLASSES = tuple(_COCO_CATEGORIES[i] for i in _KEPT)
_OUTPUTS = len(_COCO_CATEGORIES)

#: Layer of the original definition -> channels in the middle and at the end.
_EXTRA = {"2": (256, 512), "3": (128, 256), "4": (128, 256), "5": (64, 128)}
#: Side and channels of the six maps that are looked at.
_MAPS = ((19, 576), (10, 1280), (5, 512), (3, 256), (2, 256), (1, 128))

#: The graph's anchors: sides of the squares of equal area, as parts of the picture, and the ratios
#: of width to height. The first map has three only, its square half as large.
_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
#: The graph's box coder divides by these: centres and sides are learnt in finer units.
_CENTRE_UNIT, _SIDE_UNIT = 10.0, 5.0

_BACKBONE = "FeatureExtractor/MobilenetV2"
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")

Array = npt.NDArray[np.float32]


def ssd_mobilenet_v2(weights: Path) -> nn.Module:
    """Return the network: pixels to [-1, 1]; boxes (N, A, 4) and scores (N, A, 80).

    Boxes are left, top, right and bottom as parts of the picture, scores are probabilities.
    """
    return Pixels(_Ssd(read_constants(weights)), [127.5], [127.5])


class _Ssd(nn.Module):
    def __init__(self, constants: Mapping[str, Array]) -> None:
        super().__init__()
        self.backbone: MobileNetV2 = mobilenet()
        load_mobilenet(self.backbone, lambda name: _unit(constants, f"{_BACKBONE}/{name}"))
        self.backbone.classifier = nn.Identity()
        self.extra = nn.ModuleList(_extra_layers(constants))
        self.where = nn.ModuleList(_predictors(constants, "BoxEncodingPredictor"))
        self.what = nn.ModuleList(_predictors(constants, "ClassPredictor"))
        self.register_buffer("anchors", torch.from_numpy(anchors()))
        self.register_buffer("kept", torch.tensor(_KEPT))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, 3, 300, 300)
        maps = list(self._maps(x))
        codes = _joined(self.where, maps, 4)
        scores = _joined(self.what, maps, _OUTPUTS).index_select(2, self.kept)
        return self._boxes(codes), scores.sigmoid()

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        features = self.backbone.features
        for layer in features[:14]:
            x = layer(x)
        expand, *rest = features[14].conv
        x = expand(x)
        yield x  # the first map is taken in the middle of a block
        for layer in (*rest, *features[15:]):
            x = layer(x)
        yield x
        for layer in self.extra:
            x = layer(x)
            yield x

    def _boxes(self, codes: Tensor) -> Tensor:  # (N, A, 4): y, x, height, width
        centre = codes[..., :2] / _CENTRE_UNIT * self.anchors[:, 2:] + self.anchors[:, :2]
        half = torch.exp(codes[..., 2:] / _SIDE_UNIT) * self.anchors[:, 2:] / 2
        corners = torch.cat([centre - half, centre + half], dim=2).clamp(0.0, 1.0)
        return corners[..., [1, 0, 3, 2]]


def anchors() -> Array:
    """Return the anchors (A, 4): centre y, centre x, height, width, as parts of the picture."""
    rows = []
    for index, (side, _) in enumerate(_MAPS):
        shapes = list(_shapes(index))
        for y in range(side):
            for x in range(side):
                rows += [((y + 0.5) / side, (x + 0.5) / side, *shape) for shape in shapes]
    return np.array(rows, dtype=np.float32)


def _shapes(index: int) -> Iterator[tuple[float, float]]:
    """Yield height and width of a map's anchors."""
    scale, following = _SCALES[index : index + 2]
    if index == 0:
        yield 0.1, 0.1
    for ratio in _RATIOS if index else _RATIOS[1:3]:
        yield scale / math.sqrt(ratio), scale * math.sqrt(ratio)
    if index:
        yield (math.sqrt(scale * following),) * 2


def _joined(predictors: nn.ModuleList, maps: list[Tensor], size: int) -> Tensor:
    """Return every anchor's numbers (N, A, size), in the anchors' order."""
    parts = [
        predictor(map_).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, size))
        for predictor, map_ in zip(predictors, maps, strict=True)
    ]
    return torch.cat(parts, dim=1)


def _extra_layers(constants: Mapping[str, Array]) -> Iterator[nn.Module]:
    channels = _MAPS[1][1]
    for number, (middle, last) in _EXTRA.items():
        names = (
            f"layer_19_1_Conv2d_{number}_1x1_{middle}",
            f"layer_19_2_Conv2d_{number}_3x3_s2_{last}_depthwise",
            f"layer_19_2_Conv2d_{number}_3x3_s2_{last}",
        )
        convolutions = (
            nn.Conv2d(channels, middle, 1, bias=False),
            nn.Conv2d(middle, middle, 3, stride=2, groups=middle, bias=False),
            nn.Conv2d(middle, last, 1, bias=False),
        )
        layers: list[nn.Module] = []
        for name, convolution in zip(names, convolutions, strict=True):
            kernel, *rest = _unit(constants, f"{_BACKBONE}/{name}")
            norm = nn.BatchNorm2d(convolution.out_channels, eps=EPSILON)
            fill_convolution(convolution, kernel)
            fill_norm(norm, *rest)
            padding = [SamePad()] if convolution.stride == (2, 2) else []
            layers += [*padding, convolution, norm, nn.ReLU6()]
        yield nn.Sequential(*layers)
        channels = last


def _predictors(constants: Mapping[str, Array], kind: str) -> Iterator[nn.Conv2d]:
    for index, (_, channels) in enumerate(_MAPS):
        kernel = constants[f"BoxPredictor_{index}/{kind}/weights"]
        convolution = nn.Conv2d(channels, kernel.shape[3], kernel.shape[0], padding="same")
        fill_convolution(convolution, kernel, constants[f"BoxPredictor_{index}/{kind}/biases"])
        yield convolution


def _unit(constants: Mapping[str, Array], name: str) -> list[Array]:
    """Return a convolution's kernel and its batch norm's vectors."""
    kind = "depthwise_weights" if name.endswith("depthwise") else "weights"
    return [constants[f"{name}/{kind}"], *(constants[f"{name}/BatchNorm/{n}"] for n in _NORM)]
