"""The feature separation module: its parts sum to the whole, by the formula of the original."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fr_ps.models import layers
from fr_ps.models.layers import FeatureSeparation


def bins(size: int, count: int) -> list[slice]:
    """Bin i of `count` goes from floor(i size / count) to ceil((i + 1) size / count)."""
    return [slice(i * size // count, math.ceil((i + 1) * size / count)) for i in range(count)]


def separated(module: FeatureSeparation, x: np.ndarray) -> np.ndarray:
    """x_task in evaluation mode by loops in float64."""
    weights = {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}

    def norm(values: np.ndarray, prefix: str) -> np.ndarray:  # (channels, ...)
        mean, var = weights[f"{prefix}.running_mean"], weights[f"{prefix}.running_var"]
        scale, shift = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
        shape = (-1,) + (1,) * (values.ndim - 1)
        return (values - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5) * scale.reshape(shape) + shift.reshape(shape)

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values))

    count, channels, height, width = x.shape
    task = np.empty_like(x)
    for sample in range(count):
        pyramid = []
        for level in (1, 2, 3):
            for channel in range(channels):
                for rows in bins(height, level):
                    for columns in bins(width, level):
                        cell = x[sample, channel, rows, columns]
                        pyramid.append(cell.mean() + cell.max())
        narrow = weights["channel.0.weight"][:, :, 0, 0] @ np.array(pyramid) + weights["channel.0.bias"]
        wide = weights["channel.2.weight"][:, :, 0, 0] @ np.maximum(narrow, 0) + weights["channel.2.bias"]
        channel_scale = sigmoid(norm(wide, "channel.3"))
        stacked = np.stack([x[sample].max(axis=0), x[sample].mean(axis=0)])
        padded = np.pad(stacked, ((0, 0), (3, 3), (3, 3)))
        kernel = weights["spatial.0.weight"][0]
        filtered = np.array(
            [[(padded[:, r : r + 7, c : c + 7] * kernel).sum() for c in range(width)] for r in range(height)], dtype=np.float64
        )
        spatial_scale = sigmoid(norm(filtered[None], "spatial.1")[0])
        task[sample] = (x[sample] * channel_scale[:, None, None] + x[sample] * spatial_scale) / 2
    return task


def unsettled(channels: int = 32, reduction: int = 8) -> FeatureSeparation:
    """A module whose norms have seen something, so that no statistic is at its start value."""
    torch.manual_seed(0)
    module = FeatureSeparation(channels, reduction)
    for _ in range(3):
        module(torch.randn(8, channels, 5, 4) * 2 + 1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".3." in name or "spatial.1." in name:
                parameter += torch.randn_like(parameter)
    return module.eval()


@pytest.mark.parametrize("shape", [(5, 4), (7, 7), (3, 3), (2, 2), (1, 1)], ids=str)
def test_the_task_features_are_the_formula_of_the_original(shape: tuple[int, int]) -> None:
    module = unsettled()
    x = torch.randn(3, 32, *shape)
    with torch.no_grad():
        task, rest = module(x)
    expected = separated(module, x.double().numpy())
    np.testing.assert_allclose(task.numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rest.numpy(), x.numpy() - expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_parts_sum_to_the_whole_within_the_last_bit(training: bool) -> None:
    """Task and rest each round once, so their float32 sum may miss the input by one unit in the last place, not more."""
    module = unsettled().train(training)
    x = torch.randn(16, 32, 7, 7) * torch.logspace(-3, 3, 32)[:, None, None]
    with torch.no_grad():
        task, rest = module(x)
    total = task + rest
    one_up, one_down = (torch.nextafter(x, torch.tensor(end)) for end in (torch.inf, -torch.inf))
    assert ((total == x) | (total == one_up) | (total == one_down)).all()
    assert (total == x).float().mean() > 0.7
    assert (task != 0).any()
    assert (rest != 0).any()


def test_task_and_rest_lie_between_nothing_and_the_whole() -> None:
    x = torch.randn(4, 32, 5, 4)
    with torch.no_grad():
        for part in unsettled()(x):
            assert (part.sign() * x.sign() >= 0).all()
            assert (part.abs() <= x.abs()).all()


def test_the_original_size_has_3_44_million_parameters() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in FeatureSeparation(512, 16).parameters()) == 3_442_724


def test_gradients_reach_both_branches_from_either_part() -> None:
    for part in (0, 1):
        module = unsettled().train()
        x = torch.randn(4, 32, 5, 4, requires_grad=True)
        output: Tensor = module(x)[part]
        (output * torch.randn_like(output)).sum().backward()
        for branch in ("channel", "spatial"):
            moved = {
                name: float(parameter.grad.abs().sum())
                for name, parameter in module.named_parameters()
                if name.startswith(branch) and parameter.grad is not None
            }
            assert moved[f"{branch}.0.weight"] > 0
        assert x.grad is not None
        assert x.grad.abs().sum() > 0


def test_the_gradient_is_that_of_finite_differences() -> None:
    module = FeatureSeparation(4, 2).double().eval()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: module(z)[0], x)


def test_in_float64_the_parts_sum_to_the_whole_exactly_where_the_task_has_at_least_half() -> None:
    """By Sterbenz' lemma; and elsewhere within one rounding of the input."""
    module = unsettled().double()
    x = torch.randn(16, 32, 7, 7, dtype=torch.float64)
    with torch.no_grad():
        task, rest = module(x)
    exact = task / x >= 0.5
    assert exact.any()
    assert torch.equal((task + rest)[exact], x[exact])
    torch.testing.assert_close(task + rest, x, rtol=2**-52, atol=0)


@pytest.mark.parametrize("size", [(3, 3), (4, 7), (7, 7), (14, 9)])
def test_the_exported_pooling_equals_the_trained_one(size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size)
    for count in layers.PYRAMID_BINS:
        torch.testing.assert_close(layers._pool_slices(x, count), layers._pool_adaptively(x, count))
