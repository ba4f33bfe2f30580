"""What stands on the separated maps."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fr_ps.models.layers import Discriminator, FlattenedEmbedding, MeanEmbedding


def narrowed(module: nn.Module, full: np.ndarray) -> np.ndarray:
    """FC, BN at its start and in evaluation, PReLU, as they stand in `module.reduce`."""
    state = {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}
    narrow = full @ state["reduce.0.weight"].T / np.sqrt(1 + 1e-5)
    return np.where(narrow > 0, narrow, 0.25 * narrow)


def test_an_embedding_is_the_mean_over_the_picture_of_the_normalised_map() -> None:
    module = MeanEmbedding(8)
    x = torch.randn(16, 8, 5, 3) * 3 + 2
    got = module(x).detach().numpy()
    raw = x.double().numpy()
    mean, var = raw.mean(axis=(0, 2, 3)), raw.var(axis=(0, 2, 3))
    expected = (raw.mean(axis=(2, 3)) - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert module.width == 8


def test_a_narrow_embedding_is_reduced_by_a_linear_layer_a_norm_and_a_prelu() -> None:
    module = MeanEmbedding(8, reduced=4).eval()
    x = torch.randn(5, 8, 5, 3)
    full = x.double().numpy().mean(axis=(2, 3)) / np.sqrt(1 + 1e-5)
    expected = narrowed(module, full)
    assert expected.shape == (5, 4)
    assert (expected < 0).any()
    assert module.width == 4
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_flattened_embedding_is_linear_in_every_position_between_two_norms() -> None:
    module = FlattenedEmbedding(8, (5, 3), 16, dropout=0.0)
    x = torch.randn(32, 8, 5, 3) * 3 + 2
    got = module(x).detach().numpy()
    raw, weight = x.double().numpy(), module.linear.weight.detach().double().numpy()
    mean, var = raw.mean(axis=(0, 2, 3), keepdims=True), raw.var(axis=(0, 2, 3), keepdims=True)
    linear = ((raw - mean) / np.sqrt(var + 1e-5)).reshape(32, -1) @ weight.T
    expected = (linear - linear.mean(axis=0)) / np.sqrt(linear.var(axis=0) + 1e-5) * (6.5 / 4)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    assert module.width == 16


def test_a_flattened_embedding_drops_values_in_training_only() -> None:
    module, x = FlattenedEmbedding(8, (4, 4), 16, dropout=0.5), torch.randn(32, 8, 4, 4)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_a_flattened_embedding_rejects_a_map_of_another_size(rejected: Any) -> None:
    with rejected("model.embedding", "3 x 3", "expected 4 x 4", "--model.embedding mean"):
        FlattenedEmbedding(8, (4, 4), 16, dropout=0.0)(torch.zeros(2, 8, 3, 3))


@pytest.mark.parametrize("width", [16, 512])
def test_the_norm_of_a_flattened_embedding_starts_at_that_of_a_mean(width: int) -> None:
    norms = FlattenedEmbedding(32, (4, 4), width, dropout=0.2)(torch.randn(64, 32, 4, 4)).norm(dim=1)
    assert 5 < norms.mean() < 8


def test_a_discriminator_is_linear_in_an_embedding_of_its_own() -> None:
    discriminator = Discriminator(8, 3).eval()
    x = torch.randn(4, 8, 5, 3)
    weight, bias = discriminator.linear.weight.detach().double().numpy(), discriminator.linear.bias.detach().double().numpy()
    embedding = x.double().numpy().mean(axis=(2, 3)) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(discriminator(x).detach().numpy(), embedding @ weight.T + bias, rtol=1e-4, atol=1e-5)
