"""The rebuilt networks: TensorFlow's padding, weight layouts, anchors. No real weights needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.cloud.networks import dogs, ssd
from training.cloud.networks.imagenet import CATEGORIES
from training.cloud.networks.pixels import Pixels
from training.cloud.networks.tensorflow import (
    EPSILON,
    SamePad,
    fill_convolution,
    load_mobilenet,
    mobilenet,
)


@pytest.mark.parametrize("side", range(2, 40))
def test_padding_is_tensorflows(side: int) -> None:
    wanted = -(-side // 2)  # "SAME" keeps ceil(side / stride)
    total = (wanted - 1) * 2 + 3 - side
    marked = torch.ones(1, 1, side, side)

    padded = SamePad()(marked)[0, 0]

    assert padded.shape == (side + total, side + total)
    before = total // 2  # the odd pixel goes right and below
    assert torch.all(padded[before : before + side, before : before + side] == 1)
    assert padded.sum() == side * side


def test_a_kernel_keeps_its_meaning() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
    convolution = nn.Conv2d(2, 4, 3)
    fill_convolution(convolution, kernel, np.arange(4, dtype=np.float32))
    patch = np.random.default_rng(1).normal(size=(3, 3, 2)).astype(np.float32)

    with torch.inference_mode():
        found = convolution(torch.from_numpy(patch.transpose(2, 0, 1)[None])).flatten().numpy()

    wanted = np.tensordot(patch, kernel, axes=3) + np.arange(4)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_depthwise_kernel_keeps_its_meaning() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 5, 1)).astype(np.float32)
    convolution = nn.Conv2d(5, 5, 3, groups=5, bias=False)
    fill_convolution(convolution, kernel)
    patch = np.random.default_rng(1).normal(size=(3, 3, 5)).astype(np.float32)

    with torch.inference_mode():
        found = convolution(torch.from_numpy(patch.transpose(2, 0, 1)[None])).flatten().numpy()

    np.testing.assert_allclose(found, (patch * kernel[..., 0]).sum(axis=(0, 1)), rtol=1e-4)


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 2, 1, 1\).*\(4, 2, 3, 3\)"):
        fill_convolution(nn.Conv2d(2, 4, 3), np.zeros((1, 1, 2, 4), dtype=np.float32))


def test_every_layer_of_a_mobilenet_is_filled_once() -> None:
    network = mobilenet()
    asked: list[str] = []

    def weights(name: str) -> Sequence[np.ndarray]:
        asked.append(name)
        return _zeros(network, len(asked) - 1)

    load_mobilenet(network, weights)

    filled = [p for n, p in network.named_parameters() if not n.startswith("classifier")]
    assert all(torch.all(parameter == 0) for parameter in filled)
    assert len(asked) == len(set(asked)) == 52
    assert asked[:3] == ["Conv", "expanded_conv/depthwise", "expanded_conv/project"]
    assert asked[3] == "expanded_conv_1/expand"
    assert asked[-2:] == ["expanded_conv_16/project", "Conv_1"]


def _zeros(network: nn.Module, index: int) -> list[np.ndarray]:
    convolution = [m for m in network.modules() if isinstance(m, nn.Conv2d)][index]
    out, within, height, width = convolution.weight.shape
    layout = (height, width, within, out)
    if convolution.groups > 1:
        layout = (height, width, out, within)
    return [np.zeros(layout, dtype=np.float32)] + [np.zeros(out, dtype=np.float32)] * 4


def test_a_mobilenet_halves_as_tensorflow_does() -> None:
    network = mobilenet().eval()

    with torch.inference_mode():
        sides = [network.features(torch.zeros(1, 3, s, s)).shape[-1] for s in (160, 300)]

    assert sides == [5, 10]
    assert all(m.eps == EPSILON for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("bgr", [False, True])
def test_pixels_reach_the_network_as_its_weights_expect(bgr: bool) -> None:
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 3)

    seen = Pixels(nn.Identity(), [1.0, 2.0, 3.0], [2.0], bgr=bgr)(image)

    wanted = (29.0, 18.0, 7.0) if bgr else (9.0, 18.0, 27.0)
    torch.testing.assert_close(seen, (torch.tensor(wanted) / 2).view(1, 3, 1, 1))


# --- the detector's anchors -------------------------------------------------------------------


def test_the_anchors_are_the_graphs() -> None:
    found = ssd.anchors() * 300

    assert found.shape == (1917, 4)
    # Height and width in pixels, as the configuration beside the graph lists them.
    first = [(30.0, 30.0), (42.4264, 84.8528), (84.8528, 42.4264)]
    np.testing.assert_allclose(found[:3, 2:], first, atol=1e-3)
    last = [(285.0, 285.0), (201.525, 403.051), (403.051, 201.525), (164.545, 493.634)]
    np.testing.assert_allclose(found[-6:-2, 2:], last, atol=0.05)
    np.testing.assert_allclose(found[-1, 2:], (292.404, 292.404), atol=1e-3)


def test_anchors_run_along_rows() -> None:
    centres = ssd.anchors()[: 19 * 19 * 3 : 3, :2]

    np.testing.assert_allclose(centres[0], (0.5 / 19, 0.5 / 19))
    np.testing.assert_allclose(centres[1], (0.5 / 19, 1.5 / 19))
    np.testing.assert_allclose(centres[19], (1.5 / 19, 0.5 / 19))


# --- names ------------------------------------------------------------------------------------


def test_the_label_spaces_are_what_they_promise() -> None:
    assert len(CATEGORIES) == 1000
    assert len(ssd.CLASSES) == len(set(ssd.CLASSES)) == 80
    assert (ssd.CLASSES[0], ssd.CLASSES[-1]) == ("person", "toothbrush")
    assert len(dogs.BREEDS) == len(set(dogs.BREEDS)) == 19


def test_the_breeds_are_those_of_the_encoder_beside_the_weights() -> None:
    from training.assets import EXTRA_FILES, folder

    encoder = (folder() / EXTRA_FILES["dog-breeds"]).with_name("label_encoder.pkl")
    if not encoder.exists():
        pytest.skip("the weights of 'dog-breeds' are not installed")
    # Text of 40 signs of four bytes each, somewhere in a pickle that is not to be run.
    data = Path(encoder).read_bytes()
    start = data.index("n02085620-".encode("utf-32-le"))
    stored = np.frombuffer(data[start : start + 19 * 160], dtype="<U40")

    assert [name.split("-", 1)[1].replace("_", " ") for name in stored] == list(dogs.BREEDS)
