"""Convert the weights to ONNX once, so that no later run has to: part of the installation."""

from __future__ import annotations

from training import assets
from training.cloud.models import open_model
from training.learn.backbone import backbone
from training.learn.sizes import DEFAULT, load_sized

__all__ = ["prepare"]


def prepare(model: str) -> None:
    """Fill the cache folder with the cloud's classifier and the agents' prefixes.

    Args:
        model: the local cloud's.
    """
    open_model(model)
    for confidence in (True, False):
        backbone(load_sized(DEFAULT, confidence=confidence), assets.cache_dir() / "prefix")
