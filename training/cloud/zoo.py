"""The models that the local cloud can serve: one table.

Answers depend on how a picture is prepared as much as on weights, so each line says whose way it
follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_sdk.view import View

__all__ = ["MODELS", "Entry"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One model.

    Attributes:
        input: how a picture is prepared.
        boxes: it finds objects in the picture; otherwise it names the picture as a whole.
    """

    input: View
    boxes: bool = False


def _lite(side: int) -> Entry:
    """EfficientNet-Lite: 32 pixels more than the side, bicubic, middle square (its own code)."""
    return Entry(input=View(side=side, resized=side + 32, filter="bicubic"))


#: Model -> what it is. A model's weights are the asset of the same name.
MODELS: Mapping[str, Entry] = {
    "efficientnet-lite0": _lite(224),
    "efficientnet-lite1": _lite(240),
    "efficientnet-lite2": _lite(260),
    # As torchvision states with these weights: 256, bilinear, middle 224.
    "mobilenet-v2": Entry(input=View(side=224, resized=256)),
    # Caffe's way with its ImageNet models: squeezed to 256 x 256, middle 227.
    "squeezenet": Entry(input=View(side=227, resized=256, squeezed=True)),
    # As the graph says: squeezed to 300 x 300, bilinear.
    "ssd-mobilenet-v2": Entry(input=View(side=300, resized=300, squeezed=True), boxes=True),
    # As the package of these weights does: squeezed, by Pillow's default filter.
    "dog-breeds": Entry(input=View(side=160, resized=160, squeezed=True, filter="bicubic")),
}
