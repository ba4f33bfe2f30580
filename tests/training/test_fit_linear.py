"""The fit of the linear embedding: its projection whitens the training sessions within subjects, and no others count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from fr_ps.config import AugmentConfig, Config
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.store import MapStore
from fr_ps.models.folder import load_model
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.training import fit_linear
from fr_ps.training.fit_linear import fit_linear_embedding
from tests.training.runs import run_training, small_config

STILL = AugmentConfig(crop=1, rotation=0, noise=0)


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo", "normal"])


def fit(dataset: Dataset, rows: np.ndarray, augmentation: AugmentConfig = STILL, seed: int = 0) -> LinearEmbedding:
    embedding = LinearEmbedding(("albedo", "normal"))
    fit_linear_embedding(embedding, dataset, rows, augmentation, seed)
    return embedding


def features_of(embedding: LinearEmbedding, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    maps = {name: torch.from_numpy(array) for name, array in dataset.store.read(rows).items()}
    return torch.cat(list(embedding.features(maps)[0].values()), dim=1).double().numpy()


def test_without_motion_the_projection_is_the_inverse_root_of_the_covariance_within_subjects(dataset: Dataset) -> None:
    rows = np.arange(16)
    embedding = fit(dataset, rows)
    features = features_of(embedding, dataset, rows)
    ids = dataset.labels.ids[rows]
    within = np.concatenate([features[ids == one] - features[ids == one].mean(axis=0) for one in np.unique(ids)])
    covariance = LedoitWolf(assume_centered=True).fit(np.tile(within, (fit_linear.COPIES + 1, 1))).covariance_
    projection = embedding.projections[0].double().numpy()
    np.testing.assert_allclose(embedding.means[0].numpy(), features.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(projection @ projection.T @ covariance, np.eye(sum(embedding.widths)), atol=2e-3)


def test_depth_alone_is_fitted_without_a_registration(prepared: Path) -> None:
    embedding = LinearEmbedding(("depth",), registered=True)
    fit_linear_embedding(embedding, open_dataset(prepared, ["depth"]), np.arange(16), STILL, 0)
    assert not embedding.registered
    assert embedding.projections.shape == (1, 98, 98)
    assert embedding.projections.abs().sum() > 0


def test_only_the_rows_of_the_training_part_count(dataset: Dataset) -> None:
    rows = np.arange(12)
    maps = {name: array.copy() for name, array in dataset.store.maps.items()}
    for array in maps.values():
        array[12:] += 5
    other = replace(dataset, store=MapStore(maps, dataset.store.selected, ""))
    first, second = (fit(one, rows, AugmentConfig()) for one in (dataset, other))
    assert torch.equal(first.projections, second.projections)
    assert torch.equal(first.means, second.means)


def test_the_seed_decides_how_the_copies_move(dataset: Dataset) -> None:
    rows, moved = np.arange(12), AugmentConfig(rotation=8, shift=0.05)
    first, again, other = (fit(dataset, rows, moved, seed).projections for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-2)


def test_subjects_with_one_session_each_are_rejected(dataset: Dataset, rejected) -> None:  # type: ignore[no-untyped-def]
    _, first = np.unique(dataset.labels.ids, return_index=True)
    with rejected("model.linear is above 0", "no training subject has two sessions that differ", "set it to 0"):
        fit(dataset, first)


def with_linear(config: Config) -> Config:
    return replace(config, model=replace(config.model, linear=0.8, registration=True), augment=AugmentConfig(rotation=3))


def test_a_training_stores_the_fit_in_the_model_and_resumes_without_another(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, run, _ = run_training(with_linear(small_config(prepared)), tmp_path / "run")
    assert result.metrics.values["test/identity/auc"] is not None
    network, info = load_model(run.folder / "checkpoints" / "best", torch.device("cpu"))
    assert next(iter(info.branches.values())).linear == 0.8
    assert network.linear is not None
    assert (network.linear.projections.abs().sum(dim=(1, 2)) > 0).all()
    assert network.linear.get_buffer("mean_face").abs().sum() > 0
    monkeypatch.setattr("fr_ps.training.train.fit_linear_embedding", None)
    longer = with_linear(small_config(prepared, epochs=3))
    _, again, _ = run_training(longer, tmp_path / "run")
    (resumed, _) = load_model(again.folder / "checkpoints" / "last", torch.device("cpu"))
    assert resumed.linear is not None
    assert torch.equal(resumed.linear.projections, network.linear.projections)
