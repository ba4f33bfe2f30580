"""The improved ResNets."""

import pytest
import torch
from torch import nn

from fr_ps.models.iresnet import IRESNETS, BasicBlock, Block, Bottleneck, IResNet, SqueezeBlock


@pytest.mark.parametrize("block", [BasicBlock, SqueezeBlock, Bottleneck])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "expected"), [(32, 2), (48, 3), (112, 7)])
def test_the_map_is_a_sixteenth_of_the_picture(block: Block, channels: int, size: int, expected: int) -> None:
    with torch.device("meta"):
        network = IResNet(block, (1, 1, 1, 1), channels)
        assert network(torch.empty(2, channels, size, size)).shape == (2, network.out_channels, expected, expected)


def norm(channels: int) -> int:
    return 2 * channels


def basic(inputs: int, width: int) -> tuple[int, int]:
    """Convolutions and parameters of a unit: two 3 x 3, three norms, a PReLU."""
    return 2, 9 * inputs * width + 9 * width * width + norm(inputs) + 2 * norm(width) + width


def squeeze(inputs: int, width: int) -> tuple[int, int]:
    """The same, and two 1 x 1 on the means over the picture, with biases."""
    narrow = width // 16
    return 4, basic(inputs, width)[1] + 2 * width * narrow + narrow + width


def bottleneck(inputs: int, width: int) -> tuple[int, int]:
    """A 1 x 1, a 3 x 3, a 1 x 1 to four times the width, four norms, two PReLUs."""
    weights = inputs * width + 9 * width * width + width * 4 * width
    return 3, weights + norm(inputs) + 2 * norm(width) + norm(4 * width) + 2 * width


def by_hand(name: str, units: tuple[int, ...]) -> tuple[int, int]:
    """The stem's 3 x 3 with norm and PReLU, the units, and a 1 x 1 with norm at the first one of each stage."""
    large = name in ("miresnet50", "miresnet101", "miresnet152")
    unit = bottleneck if large else squeeze if name.startswith("irse") else basic
    convolutions, parameters, channels = 1, 9 * 64 + norm(64) + 64, 64
    for count, width in zip(units, (64, 128, 256, 512)):
        for index in range(count):
            more = unit(channels, width)
            outputs = 4 * width if large else width
            first = index == 0
            convolutions += more[0] + first
            parameters += more[1] + first * (channels * outputs + norm(outputs))
            channels = outputs
    return convolutions, parameters


UNITS = {
    "miresnet18": (2, 2, 2, 2),
    "miresnet34": (3, 4, 6, 3),
    "miresnet50": (3, 4, 6, 3),
    "miresnet101": (3, 4, 23, 3),
    "miresnet152": (3, 8, 36, 3),
    "irse50": (3, 4, 14, 3),
    "irse101": (3, 13, 30, 3),
    "irse152": (3, 8, 36, 3),
}


@pytest.mark.parametrize("name", IRESNETS)
def test_depth_and_parameters_are_those_counted_by_hand(name: str) -> None:
    with torch.device("meta"):
        network = IResNet(*IRESNETS[name], 1)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert (convolutions, parameters) == by_hand(name, UNITS[name])


@pytest.mark.parametrize("name", [name for name in IRESNETS if name.startswith("miresnet")])
def test_the_numbers_in_the_names_are_the_layers_with_the_final_one_and_without_shortcuts(name: str) -> None:
    block, units = IRESNETS[name]
    layers = 3 if block is Bottleneck else 2
    assert int(name.removeprefix("miresnet")) == layers * sum(units) + 2


@pytest.mark.parametrize(("block", "channels"), [(BasicBlock, 16), (SqueezeBlock, 16), (Bottleneck, 64)])
def test_a_block_that_keeps_its_shape_adds_to_its_input(block: Block, channels: int) -> None:
    made = block(channels, 16, stride=1)
    last = [module for module in made.body if isinstance(module, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
    x = torch.randn(4, channels, 6, 6)
    torch.testing.assert_close(made(x), x)


def test_squeeze_and_excitation_scales_each_channel_by_a_function_of_all_channel_means() -> None:
    block = SqueezeBlock(32, 32, stride=1).eval()
    x = torch.randn(3, 32, 6, 6)
    plain = x
    for module in block.body[:-1]:
        plain = module(plain)
    first, second = (module for module in block.body[-1].modules() if isinstance(module, nn.Conv2d))
    means = plain.mean(dim=(2, 3))
    hidden = (means @ first.weight[:, :, 0, 0].T + first.bias).clamp_min(0)
    scale = 1 / (1 + (-(hidden @ second.weight[:, :, 0, 0].T + second.bias)).exp())
    torch.testing.assert_close(block(x), x + plain * scale[:, :, None, None], rtol=1e-4, atol=1e-5)
    assert scale.std() > 0


@pytest.mark.parametrize("name", ["miresnet18", "miresnet50", "irse50"])
def test_the_initial_signal_neither_vanishes_nor_explodes(name: str) -> None:
    torch.manual_seed(0)
    network = IResNet(*IRESNETS[name], 1)
    with torch.no_grad():
        y = network(torch.randn(8, 1, 32, 32))
    assert 0.1 < y.std() < 30
