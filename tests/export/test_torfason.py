"""The networks of Torfason et al. (2018): the paper's table of FLOPs, shapes, and the quantiser."""

from __future__ import annotations

import pytest
import torch

from export.torfason import BLOCKS, Compressor, Decompressor, Quantiser, ResNet, macs
from model_store.errors import UsageError

#: Table 1 of the paper, in 1e9.
FLOPS = {
    "ResNet-50": 3.86,
    "ResNet-71": 5.38,
    "cResNet-39": 2.95,
    "cResNet-51": 3.83,
    "cResNet-72": 5.36,
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_table_of_flops(name: str) -> None:
    with torch.device("meta"):  # shapes alone: nothing is computed
        network = ResNet(name, codes=32)
        shape = (1, 32, 28, 28) if name.startswith("c") else (1, 3, 224, 224)
        spent = macs(network, torch.zeros(shape))
    assert spent / 1e9 == pytest.approx(FLOPS[name], abs=0.011)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_layers_are_as_many_as_the_name_says(name: str) -> None:
    convolutions = 3 * sum(BLOCKS[name])
    # The name counts root and answer of a network of pictures, and neither of one of codes.
    assert convolutions + (0 if name.startswith("c") else 2) == int(name.split("-")[1])


def test_pictures_become_28_by_28_codes_and_pictures_again() -> None:
    compressor = Compressor(8, width=8, blocks=1)
    decompressor = Decompressor(8, width=8, blocks=1)
    with torch.no_grad():
        codes = compressor(torch.rand(1, 3, 224, 224))
        picture = decompressor(codes)
    assert codes.shape == (1, 8, 28, 28)
    assert picture.shape == (1, 3, 224, 224)


def test_codes_become_the_nearest_centres_and_gradients_pass() -> None:
    quantiser = Quantiser(4)
    codes = torch.tensor([-5.0, -0.5, 0.9, 1.9], requires_grad=True)
    made, symbols, soft = quantiser(codes)
    assert symbols.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(made, quantiser.centres[symbols])
    torch.testing.assert_close(soft.sum(dim=-1), torch.ones(4))
    made.sum().backward()
    assert codes.grad is not None
    assert codes.grad.abs().sum() > 0
    assert quantiser.centres.grad is not None


def test_an_unknown_network() -> None:
    with pytest.raises(UsageError, match="cResNet-51"):
        ResNet("cResNet-40")
