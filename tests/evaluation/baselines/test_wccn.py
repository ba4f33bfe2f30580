"""WCCN of principal components, of registered maps and of half faces: what each is good for, and what it is equal to."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import augment
from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation.baselines import wccn
from fr_ps.evaluation.baselines.embeddings import baseline_embeddings
from fr_ps.evaluation.baselines.wccn import LOG_SHARE, log_albedo
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.models.network import FaceNetwork
from fr_ps.synthetic.scene import render_session
from fr_ps.training import fit_linear
from tests.evaluation.baselines.smooth_maps import auc, labels_of, people


def test_wccn_beats_pixels_if_sessions_differ_more_than_subjects() -> None:
    store, labels = people(40, 6, "albedo", "depth", nuisance=3)
    train, tested = np.arange(150), np.arange(150, 240)
    found = baseline_embeddings(store, labels, train, tested).embeddings
    got = {name: auc(embeddings, labels.ids[tested]) for name, embeddings in found.items()}
    for modality in ("albedo", "depth"):
        assert got[f"wccn_{modality}"] > got[f"pixels_{modality}"] + 0.15
        assert got[f"wccn_{modality}"] > 0.95
    assert got["wccn_albedo_depth"] > 0.99
    strangers = labels_of(np.random.default_rng(0).permutation(labels.ids[tested]).tolist())
    assert auc(found["wccn_depth"], strangers.ids) == pytest.approx(0.5, abs=0.1)


def test_jittered_copies_make_wccn_robust_to_the_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    store, labels = people(40, 4, nuisance=0)
    train, tested = np.arange(100), np.arange(100, 160)
    with_copies, without = (jittered_auc(store, labels, train, tested, copies, monkeypatch) for copies in (4, 0))
    assert with_copies > without


def jittered_auc(
    store: MapStore, labels: Labels, train: np.ndarray, tested: np.ndarray, copies: int, monkeypatch: pytest.MonkeyPatch
) -> float:
    monkeypatch.setattr(wccn, "COPIES", copies)
    found = baseline_embeddings(store, labels, train, tested, jittered=True)
    return auc(found.embeddings["wccn_depth"], labels.ids[tested])


def test_registration_helps_where_the_crops_of_faces_differ() -> None:
    scenes = [render_session(3, subject, session, 48) for subject in range(24) for session in range(4)]
    maps = {
        "albedo": torch.from_numpy(np.stack([scene.albedo[None] for scene in scenes])),
        "normal": torch.from_numpy(np.stack([scene.normal.transpose(2, 0, 1) for scene in scenes])),
    }
    badly_cropped = AugmentConfig(flip=0, crop=1, rotation=10, scale=0.1, shift=0.1, noise=0)
    moved = augment(maps, badly_cropped, torch.Generator().manual_seed(0))
    store = MapStore({name: of_one.numpy() for name, of_one in moved.items()}, np.arange(96), "")
    labels, tested = labels_of([f"p{row // 4:02d}" for row in range(96)]), np.arange(64, 96)
    found = baseline_embeddings(store, labels, np.arange(64), tested).embeddings
    got = {name: auc(embeddings, labels.ids[tested]) for name, embeddings in found.items()}
    assert got["wccn_albedo_normal_registered"] > got["wccn_albedo_normal"] + 0.02


@pytest.mark.parametrize("seed", [0, 1])
def test_the_symmetric_baseline_is_the_linear_embedding_of_a_model_on_the_same_copies(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, labels = people(10, 4, "albedo", "normal")
    train, tested = np.arange(20), np.arange(20, 40)
    monkeypatch.setattr(wccn, "SYMMETRIC_COPIES", 0)
    monkeypatch.setattr(fit_linear, "COPIES", 0)
    got = baseline_embeddings(store, labels, train, tested, seed=seed).embeddings["wccn_albedo_normal_symmetric"]
    embedding = LinearEmbedding(("albedo", "normal"))
    dataset = cast(Dataset, SimpleNamespace(store=store, labels=labels))
    network = cast(FaceNetwork, SimpleNamespace(linear=embedding, linear_attributes=None))
    fit_linear.fit_linear_embedding(network, dataset, train, AugmentConfig(), seed)
    wanted = embedding({name: torch.from_numpy(maps) for name, maps in store.read(tested).items()}).numpy()
    np.testing.assert_allclose(got / np.linalg.norm(got, axis=1, keepdims=True), wanted, atol=1e-3)


def test_the_logarithm_of_albedo_is_finite_at_0_and_turns_a_factor_into_an_offset() -> None:
    maps = np.random.default_rng(0).random((3, 1, 6, 6)).astype(np.float32)
    maps[0, 0, 2, 3] = 0
    maps[2] = 0
    got = log_albedo(maps)
    assert got.dtype == np.float32
    assert np.isfinite(got).all()
    for row in (0, 1):
        np.testing.assert_allclose(got[row], np.log(maps[row].ravel() + LOG_SHARE * maps[row].mean()), atol=1e-5)
    np.testing.assert_allclose(log_albedo(3 * maps)[:2] - got[:2], np.log(3), atol=1e-5)
