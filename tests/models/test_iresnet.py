"""The improved ResNets."""

import pytest
import torch
from torch import nn

from fr_ps.models.iresnet import LAYERS, BasicBlock, IResNet


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "expected"), [(32, 2), (48, 3), (112, 7)])
def test_the_map_is_a_sixteenth_of_the_picture(channels: int, size: int, expected: int) -> None:
    network = IResNet((1, 1, 1, 1), channels).eval()
    with torch.no_grad():
        assert network(torch.randn(1, channels, size, size)).shape == (1, network.out_channels, expected, expected)


def convolutions_and_parameters(layers: tuple[int, ...]) -> tuple[int, int]:
    """By hand: the stem's 3 x 3, two 3 x 3 a block, and a 1 x 1 at the first block of each stage; norms 2 n, PReLU n."""
    convolutions, parameters, width = 1, 9 * 64 + 3 * 64, 64
    for count, outputs in zip(layers, (64, 128, 256, 512)):
        for index in range(count):
            convolutions += 2
            parameters += 9 * width * outputs + 9 * outputs * outputs + 2 * width + 2 * outputs + outputs + 2 * outputs
            if index == 0:
                convolutions += 1
                parameters += width * outputs + 2 * outputs
            width = outputs
    return convolutions, parameters


@pytest.mark.parametrize("name", LAYERS)
def test_depth_and_parameters_are_those_counted_by_hand(name: str) -> None:
    with torch.device("meta"):
        network = IResNet(LAYERS[name], 1)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert (convolutions, parameters) == convolutions_and_parameters(LAYERS[name])


def test_the_numbers_in_the_names_are_the_layers_with_the_final_one_and_without_shortcuts() -> None:
    for name, layers in LAYERS.items():
        assert int(name.removeprefix("miresnet")) == 2 * sum(layers) + 2


def test_a_block_that_keeps_its_shape_adds_to_its_input() -> None:
    block = BasicBlock(8, 8, stride=1)
    nn.init.zeros_(block.body[-1].weight)  # type: ignore[arg-type]
    x = torch.randn(4, 8, 6, 6)
    torch.testing.assert_close(block(x), x)


def test_the_signal_neither_dies_nor_explodes_at_the_start() -> None:
    torch.manual_seed(0)
    network = IResNet(LAYERS["miresnet18"], 1)
    with torch.no_grad():
        y = network(torch.randn(8, 1, 32, 32))
    assert 0.1 < y.std() < 30
