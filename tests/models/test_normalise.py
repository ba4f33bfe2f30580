"""What every network does to a map first."""

import numpy as np
import pytest
import torch

from fr_ps.models.layers import mirror_maps, normalise_maps, resample_maps


@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0, 255.0, 65535.0])
def test_normalised_albedo_does_not_depend_on_a_factor(scale: float) -> None:
    x = torch.rand(3, 1, 8, 8) + 0.1
    torch.testing.assert_close(normalise_maps(x * scale, "albedo"), normalise_maps(x, "albedo"), rtol=1e-4, atol=1e-5)


def test_albedo_is_divided_by_each_pictures_own_mean() -> None:
    x = torch.rand(3, 1, 8, 8) * torch.tensor([1.0, 5.0, 90.0])[:, None, None, None]
    got = normalise_maps(x, "albedo").double().numpy()
    for index, picture in enumerate(x.double().numpy()):
        np.testing.assert_allclose(got[index], picture / picture.mean() - 1, rtol=1e-4, atol=1e-5)


def test_a_black_albedo_stays_finite() -> None:
    x = torch.zeros(2, 1, 8, 8, requires_grad=True)
    y = normalise_maps(x, "albedo")
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_depth_does_not_depend_on_the_resolution() -> None:
    """Twice as many pixels a side make every depth, in pixels, twice as large."""
    x = torch.randn(2, 1, 16, 16)
    larger = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) * 2
    torch.testing.assert_close(normalise_maps(larger, "depth")[:, :, ::2, ::2], normalise_maps(x, "depth"))


def test_a_depth_of_an_eighth_of_the_side_is_one() -> None:
    assert normalise_maps(torch.full((1, 1, 112, 112), 14.0), "depth").unique().tolist() == [1.0]


def test_normals_are_unchanged() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(normalise_maps(x, "normal"), x)


@pytest.mark.parametrize("side", [7, 8])
def test_log_albedo_is_centred_on_its_median_and_divided_by_its_mean_deviation(side: int) -> None:
    x = torch.rand(3, 1, side, side) ** 3 * torch.tensor([1e-3, 5.0, 9000.0])[:, None, None, None]
    got = normalise_maps(x, "albedo", "log").double().numpy()
    for index, picture in enumerate(x.double().numpy()):
        logs = np.log(picture + 0.1 * picture.mean())
        centred = logs - np.median(logs)
        np.testing.assert_allclose(got[index], np.clip(centred / np.abs(centred).mean(), -4, 4), rtol=1e-3, atol=1e-4)


def test_log_albedo_is_bounded_and_finite_for_black_and_for_bright_pixels() -> None:
    x = torch.zeros(2, 1, 8, 8)
    x[1, 0, 2, 3] = 1e6
    got = normalise_maps(x, "albedo", "log")
    assert got[0].unique().tolist() == [0.0]
    assert got[1, 0, 2, 3] == 4.0


def test_log_applies_to_albedo_only() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(normalise_maps(x, "normal", "log"), x)
    assert torch.equal(normalise_maps(x[:, :1], "depth", "log"), normalise_maps(x[:, :1], "depth"))


def test_resampled_maps_are_means_over_areas() -> None:
    x = torch.rand(2, 1, 12, 12)
    blocks = x.double().numpy().reshape(2, 1, 4, 3, 4, 3).mean(axis=(3, 5))
    np.testing.assert_allclose(resample_maps(x, "albedo", 4).numpy(), blocks, rtol=1e-5)
    np.testing.assert_allclose(resample_maps(x, "depth", 4).numpy(), blocks / 3, rtol=1e-5)


def test_resampled_normals_have_unit_length() -> None:
    x = torch.nn.functional.normalize(torch.randn(2, 3, 12, 12) + torch.tensor([0, 0, 3.0])[:, None, None], dim=1)
    got = resample_maps(x, "normal", 5)
    assert got.shape == (2, 3, 5, 5)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(2, 5, 5))
    means = x.double().numpy().reshape(2, 3, 4, 3, 4, 3).mean(axis=(3, 5))
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(resample_maps(x, "normal", 4).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_slope_has_the_same_depth_after_resampling_and_normalisation() -> None:
    slope = torch.linspace(-8, 8, 16)[None, None, None].expand(1, 1, 16, 16)
    halves = normalise_maps(slope, "depth")[:, :, ::2].unflatten(3, (8, 2)).mean(dim=4)
    torch.testing.assert_close(normalise_maps(resample_maps(slope, "depth", 8), "depth"), halves)


def test_a_mirrored_slope_has_mirrored_normals() -> None:
    depth = torch.rand(1, 1, 9, 9)

    def normals(of: torch.Tensor) -> torch.Tensor:
        """n_x is -dz/dx."""
        slope = -torch.gradient(of, dim=3)[0]
        return torch.nn.functional.normalize(torch.cat([slope, torch.zeros_like(slope), torch.ones_like(slope)], dim=1), dim=1)

    torch.testing.assert_close(mirror_maps(normals(depth), "normal"), normals(mirror_maps(depth, "depth")))
