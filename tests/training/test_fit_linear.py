"""The fit of the linear embedding: its projection whitens the training sessions within subjects, and no others count."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from fr_ps.config import AugmentConfig, Config, ModelConfig
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.store import MapStore
from fr_ps.data.stored_pictures import maps_without_light, read_stored_pictures
from fr_ps.models import build_network
from fr_ps.models.folder import load_model
from fr_ps.models.linear_attributes import LinearAttributes
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.models.network import FaceNetwork
from fr_ps.training.fit_linear import COPIES, fit_classifiers, fit_linear_embedding, no_pictures_warning
from tests.training.runs import run_training, small_config

STILL = AugmentConfig(crop=1, rotation=0, noise=0)


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo", "normal"])


def fit(dataset: Dataset, rows: np.ndarray, augmentation: AugmentConfig = STILL, seed: int = 0) -> LinearEmbedding:
    return fitted_network(dataset, rows, augmentation, seed).linear  # type: ignore[return-value]


def fitted_network(
    dataset: Dataset, rows: np.ndarray, augmentation: AugmentConfig = STILL, seed: int = 0, **settings: Any
) -> FaceNetwork:
    """With a linear embedding of the modalities of the data set."""
    model = ModelConfig(channels=8, reduction=1, linear=0.5, **settings)
    classes = {attribute: len(dataset.labels.class_names(attribute)) for attribute in ATTRIBUTES}
    network = build_network(dict.fromkeys(dataset.store.maps, model), "score", classes)
    fit_linear_embedding(network, dataset, rows, augmentation, seed)
    assert network.linear is not None
    return network


def features_of(embedding: LinearEmbedding, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    maps = {name: torch.from_numpy(array) for name, array in dataset.store.read(rows).items()}
    return torch.cat(list(embedding.features(maps)[0].values()), dim=1).double().numpy()


def test_without_motion_the_projection_is_the_inverse_root_of_the_covariance_within_subjects(dataset: Dataset) -> None:
    rows = np.arange(16)
    embedding = fit(dataset, rows)
    features = features_of(embedding, dataset, rows)
    ids = dataset.labels.ids[rows]
    within = np.concatenate([features[ids == one] - features[ids == one].mean(axis=0) for one in np.unique(ids)])
    covariance = LedoitWolf(assume_centered=True).fit(np.tile(within, (COPIES + 1, 1))).covariance_
    projection = embedding.projections[0].double().numpy()
    np.testing.assert_allclose(embedding.means[0].numpy(), features.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(projection @ projection.T @ covariance, np.eye(sum(embedding.widths)), atol=2e-3)


def test_depth_alone_is_fitted_without_a_registration(prepared: Path) -> None:
    embedding = fitted_network(open_dataset(prepared, ["depth"]), np.arange(16), registration=True).linear
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


def test_subjects_whose_sessions_and_copies_are_equal_are_rejected(dataset: Dataset, rejected) -> None:  # type: ignore[no-untyped-def]
    _, first = np.unique(dataset.labels.ids, return_index=True)
    with rejected("model.linear is above 0", "no training subject has sessions or copies that differ", "set it to 0"):
        fit(dataset, first)


def without_light(dataset: Dataset, rows: np.ndarray, copies: int, seed: int) -> list[dict[str, np.ndarray]]:
    """The maps of the rows in each copy, without a light that is drawn for each session."""
    lights, modalities = np.random.default_rng(seed), list(dataset.store.maps)
    found = []
    for _ in range(copies):
        solved = []
        for key in dataset.labels.subset(rows).row_keys():
            stored = read_stored_pictures(dataset.root, key)
            assert stored is not None
            solved.append(maps_without_light(stored, int(lights.integers(4)), modalities))
        found.append({name: np.stack([one[name] for one in solved]) for name in modalities})
    return found


def test_every_second_copy_is_without_a_light_and_the_classifiers_are_fitted_to_the_others(dataset: Dataset) -> None:
    rows, seed = np.arange(16), 3
    network = fitted_network(dataset, rows, replace(STILL, leave_out_light=True), seed, linear_attributes=0.5)
    embedding = network.linear
    assert embedding is not None
    plain = features_of(embedding, dataset, rows)
    altered = [
        torch.cat(list(embedding.features({name: torch.from_numpy(array) for name, array in maps.items()})[0].values()), dim=1)
        for maps in without_light(dataset, rows, COPIES // 2, seed)
    ]
    features = np.concatenate([plain] * (COPIES // 2 + 1) + [one.double().numpy() for one in altered])
    np.testing.assert_allclose(embedding.means[0].numpy(), features.mean(axis=0), atol=1e-5)
    ids = np.tile(dataset.labels.ids[rows], COPIES + 1)
    within = np.concatenate([features[ids == one] - features[ids == one].mean(axis=0) for one in np.unique(ids)])
    covariance = LedoitWolf(assume_centered=True).fit(within).covariance_
    projection = embedding.projections[0].double().numpy()
    np.testing.assert_allclose(projection @ projection.T @ covariance, np.eye(sum(embedding.widths)), atol=2e-3)

    assert network.linear_attributes is not None
    classes = {attribute: len(dataset.labels.class_names(attribute)) for attribute in ATTRIBUTES}
    expected = LinearAttributes(embedding.attribute_width, classes)
    centred = [torch.from_numpy(plain).float() - embedding.means[0]]
    units = embedding.attribute_features(embedding.project(centred), centred).double().numpy()
    repeated = np.tile(np.arange(16), COPIES // 2 + 1)
    fit_classifiers(expected, units[repeated], dataset.labels.subset(rows[repeated]))
    for (name, found), wanted in zip(network.linear_attributes.named_buffers(), expected.buffers(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=0.02 * float(wanted.abs().max()) + 1e-6, err_msg=name)


def test_without_stored_pictures_no_light_is_left_out_and_a_warning_names_the_file(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "data")
    with_pictures, rows = open_dataset(tmp_path / "data", ["albedo", "normal"]), np.arange(12)
    setting = replace(STILL, leave_out_light=True)
    altered = fit(with_pictures, rows, setting).projections
    assert no_pictures_warning(with_pictures, rows) is None
    for file in tmp_path.glob("data/data/*/*/pictures.npy"):
        file.unlink()
    plain = fit(with_pictures, rows)
    assert torch.equal(fit(with_pictures, rows, setting).projections, plain.projections)
    assert not torch.allclose(altered, plain.projections, rtol=1e-2)
    config = with_linear(small_config(tmp_path / "data", epochs=1))
    _, _, lines = run_training(replace(config, augment=setting), tmp_path / "run")
    assert no_pictures_warning(with_pictures, rows) in lines
    assert (
        "augment.leave_out_light has no effect: no training session has a pictures.npy from which a light can be left out"
        in str(no_pictures_warning(with_pictures, rows))
    )


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


def test_the_classifiers_are_balanced_logistic_regressions_on_unit_vectors_and_features(dataset: Dataset) -> None:
    rows = np.arange(24)
    network = fitted_network(dataset, rows, linear_attributes=0.5)
    assert network.linear is not None
    assert network.linear_attributes is not None
    features = features_of(network.linear, dataset, rows) - network.linear.means[0].double().numpy()
    units = features @ network.linear.projections[0].double().numpy()
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    scaled = 0.5 * features / np.sqrt((features**2).sum(axis=1).mean())
    maps = {name: torch.from_numpy(array) for name, array in dataset.store.read(rows).items()}
    with torch.no_grad():
        centred = network.linear.centred_features(maps)
        found = network.linear_attributes(network.linear.attribute_features(network.linear.project(centred), centred))
    for attribute, codes in zip(ATTRIBUTES, dataset.labels.codes[rows].T):
        model = LogisticRegression(C=1e4 / len(rows) / (COPIES + 1), class_weight="balanced", max_iter=5000, tol=1e-6)
        tiled = [np.tile(array, (COPIES + 1, 1)) for array in (np.hstack([units, scaled]), codes[:, None])]
        expected = model.fit(tiled[0], tiled[1].ravel()).predict_proba(np.hstack([units, scaled]))
        np.testing.assert_allclose(found[attribute].softmax(dim=1), expected, atol=0.01)


def test_an_attribute_with_a_class_that_no_training_session_has_keeps_equal_logits(dataset: Dataset) -> None:
    codes = dataset.labels.codes.copy()
    codes[:, ATTRIBUTES.index("gender")] = 0
    changed = replace(dataset, labels=replace(dataset.labels, codes=codes))
    network = fitted_network(changed, np.arange(24), linear_attributes=0.5)
    assert network.linear_attributes is not None
    weights = {name: weights.abs().sum() for name, weights in network.linear_attributes.named_buffers()}
    assert weights.pop("gender") == 0
    assert min(weights.values()) > 0
