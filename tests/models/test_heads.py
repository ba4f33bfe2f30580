"""What stands on the separated maps."""

import numpy as np
import pytest
import torch

from fr_ps.models.heads import ClassHead, Embedding, IdentityHead


def test_an_embedding_is_the_mean_over_the_picture_of_the_normalised_map() -> None:
    module = Embedding(8)
    x = torch.randn(16, 8, 5, 3) * 3 + 2
    got = module(x).detach().numpy()
    raw = x.double().numpy()
    mean, var = raw.mean(axis=(0, 2, 3)), raw.var(axis=(0, 2, 3))
    expected = (raw.mean(axis=(2, 3)) - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_class_head_is_linear_in_the_embedding() -> None:
    head = ClassHead(8, 3).eval()
    x = torch.randn(4, 8, 5, 3)
    weight, bias = head.linear.weight.detach().double().numpy(), head.linear.bias.detach().double().numpy()
    embedding = x.double().numpy().mean(axis=(2, 3)) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(head(x).detach().numpy(), embedding @ weight.T + bias, rtol=1e-4, atol=1e-5)


def test_the_gain_changes_the_norm_of_an_identity_and_not_its_direction() -> None:
    head = IdentityHead(16)
    x = torch.randn(8, 16, 3, 3)
    before = head(x)
    with torch.no_grad():
        head.log_gain += float(np.log(2.5))
    after = head(x)
    torch.testing.assert_close(after, 2.5 * before)
    torch.testing.assert_close(before, head.START * head.embedding(x))


@pytest.mark.parametrize("side", [3, 7])
def test_norms_start_inside_the_range_where_magface_is_not_clamped(side: int) -> None:
    """A map whose channels vary from picture to picture as much as within one, as the backbones' do."""
    torch.manual_seed(0)
    x = torch.randn(32, 512, 1, 1) + torch.randn(32, 512, side, side)
    norms = IdentityHead(512)(x).norm(dim=1)
    assert (norms > 10).all()
    assert (norms < 110).all()


def test_the_gain_learns() -> None:
    head = IdentityHead(16)
    head(torch.randn(8, 16, 3, 3)).square().sum().backward()
    assert head.log_gain.grad is not None
    assert head.log_gain.grad > 0


def test_a_narrow_class_head_reduces_the_embedding_before_it_is_linear() -> None:
    head = ClassHead(8, 3, narrow=4).eval()
    x = torch.randn(5, 8, 5, 3)
    full = x.double().numpy().mean(axis=(2, 3)) / np.sqrt(1 + 1e-5)
    state = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    narrow = full @ state["reduce.0.weight"].T / np.sqrt(1 + 1e-5)
    narrow = np.where(narrow > 0, narrow, 0.25 * narrow)
    assert narrow.shape == (5, 4)
    expected = narrow @ state["linear.weight"].T + state["linear.bias"]
    np.testing.assert_allclose(head(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
