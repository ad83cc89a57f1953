"""A classifier of nineteen dog breeds: MobileNetV2 for 160 pixels, from a Keras file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model_store.errors import EnvironmentMissing
from training.cloud.networks.pixels import Pixels
from training.cloud.networks.tensorflow import load_mobilenet, mobilenet

__all__ = ["BREEDS", "dog_breeds"]

#: In the order of the outputs, as the label encoder beside the weights has them.
BREEDS = (
    "Chihuahua",
    "Maltese dog",
    "Shih-Tzu",
    "papillon",
    "Yorkshire terrier",
    "West Highland white terrier",
    "golden retriever",
    "Labrador retriever",
    "Rottweiler",
    "German shepherd",
    "Doberman",
    "bull mastiff",
    "French bulldog",
    "Siberian husky",
    "pug",
    "Samoyed",
    "Pomeranian",
    "toy poodle",
    "miniature poodle",
)

_BACKBONE = "mobilenetv2_1.00_160"
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def dog_breeds(weights: Path) -> nn.Module:
    """Return the network: pixels to [-1, 1], scores before softmax (N, 19).

    Raises:
        EnvironmentMissing: h5py, which reads Keras's file, is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise EnvironmentMissing(
            "The model 'dog-breeds' is converted with h5py once: pip install h5py."
        ) from error
    network = mobilenet()
    network.classifier = nn.Linear(network.last_channel, len(BREEDS))
    with h5py.File(weights, "r") as file:
        layers = file["model_weights"]
        load_mobilenet(network, lambda name: _unit(layers[_BACKBONE], name))
        dense = layers["dense"]["dense"]
        state = {"weight": np.array(dense["kernel"]).T, "bias": np.array(dense["bias"])}
    network.classifier.load_state_dict(
        {name: torch.from_numpy(values.copy()) for name, values in state.items()}
    )
    return Pixels(network, [127.5], [127.5])


def _unit(layers: Mapping[str, Any], name: str) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Return a convolution's kernel and its batch norm's vectors."""
    convolution, norm = _keras_names(name)
    vectors = [layers[norm][part] for part in _NORM]
    return [np.array(values) for values in (layers[convolution]["kernel"], *vectors)]


def _keras_names(name: str) -> tuple[str, str]:
    """Return Keras's names of a convolution and its batch norm.

    >>> _keras_names("expanded_conv_3/expand"), _keras_names("expanded_conv/project")[0]
    (('block_3_expand', 'block_3_expand_BN'), 'expanded_conv_project')
    """
    if name == "Conv":
        return "Conv1", "bn_Conv1"
    if name == "Conv_1":
        return "Conv_1", "Conv_1_bn"
    keras = name.replace("expanded_conv_", "block_").replace("/", "_")
    return keras, f"{keras}_BN"
