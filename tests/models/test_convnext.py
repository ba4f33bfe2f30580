"""ConvNeXt V2 as a feature map."""

import pytest
import torch

from fr_ps.models.timm_backbones import ConvNeXt


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "expected"), [(64, 2), (112, 3)])
def test_the_map_is_a_thirty_second_of_the_picture(channels: int, size: int, expected: int) -> None:
    network = ConvNeXt("convnextv2_atto", channels).eval()
    with torch.no_grad():
        y = network(torch.randn(1, channels, size, size))
    assert y.shape == (1, network.out_channels, expected, expected)
    assert torch.isfinite(y).all()


def test_building_a_network_does_not_seed_the_random_state() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        weights.append(torch.cat([parameter.flatten() for parameter in ConvNeXt("convnextv2_atto", 1).parameters()]))
    torch.manual_seed(6)
    other = torch.cat([parameter.flatten() for parameter in ConvNeXt("convnextv2_atto", 1).parameters()])
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], other)
