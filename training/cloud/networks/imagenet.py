"""The classifiers of the 1,000 ImageNet classes. Each returns scores before softmax, (N, 1000)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torchvision.models import mobilenet_v2 as _mobilenet_v2
from torchvision.models import squeezenet1_1
from torchvision.models._meta import _IMAGENET_CATEGORIES

from training.cloud.networks.pickled_arrays import read_arrays
from training.cloud.networks.pixels import Pixels
from training.cloud.networks.tensorflow import fill_convolution

__all__ = ["CATEGORIES", "efficientnet_lite", "mobilenet_v2", "squeezenet"]

#: The classes' names, by number; a few names belong to two classes.
CATEGORIES: tuple[str, ...] = tuple(_IMAGENET_CATEGORIES)


def efficientnet_lite(name: str, weights: Path, code: Path) -> nn.Module:
    """Return EfficientNet-Lite0, 1 or 2: pixels around 127 in units of 128.

    Args:
        name: the architecture's name, such as ``efficientnet-lite0``.
        weights: its ``.pth`` file.
        code: the folder that holds the package ``efficientnet_lite_pytorch``.
    """
    with _importable(code):
        from efficientnet_lite_pytorch import EfficientNet
    network = EfficientNet.from_name(name)
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    return Pixels(network, [127.0], [128.0])


def mobilenet_v2(weights: Path) -> nn.Module:
    """Return torchvision's MobileNetV2: the mean and deviation of all of torchvision's models."""
    network = _mobilenet_v2(weights=None)
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Pixels(network, [255 * part for part in mean], [255 * part for part in deviation])


def squeezenet(weights: Path) -> nn.Module:
    """Return SqueezeNet 1.1 with its first weights, from Caffe: blue first, mean of ImageNet.

    They were moved to a framework whose first convolution pads a pixel, and whose pooling ignores
    what does not fill a window; torchvision's network does neither.
    """
    network = squeezenet1_1(weights=None)
    network.features[0].padding = (1, 1)
    for module in network.features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = False
    arrays = read_arrays(weights)
    for name, convolution in _squeezenet_units(network):
        fill_convolution(convolution, *arrays[name])
    return Pixels(network, [103.9, 116.8, 123.7], [1.0], bgr=True)


def _squeezenet_units(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    yield "conv1", network.features[0]
    fires = [module for module in network.features if hasattr(module, "squeeze")]
    for number, fire in enumerate(fires, start=2):
        yield f"fire{number}/squeeze1x1", fire.squeeze
        yield f"fire{number}/expand1x1", fire.expand1x1
        yield f"fire{number}/expand3x3", fire.expand3x3
    yield "conv10", network.classifier[1]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put ``folder`` last on the import path for one import, so that it shadows nothing."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
