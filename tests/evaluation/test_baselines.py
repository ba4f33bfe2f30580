"""Linear baselines: equal to a float64 computation, not fitted on test sessions, omitted if they cannot be fitted."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import augment
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation import baselines
from fr_ps.evaluation.baselines import (
    COMPONENTS,
    LOG_SHARE,
    baseline_embeddings,
    count_maps_to_read,
    log_albedo,
    normals_10x10,
    principal_components,
    sample_subjects,
    wccn,
)
from fr_ps.evaluation.jitter import jitter
from fr_ps.models.linear_embedding import LinearEmbedding
from fr_ps.synthetic.scene import render_session
from fr_ps.training import fit_linear

SIDE = 20
CHANNELS = {"albedo": 1, "normal": 3, "depth": 1}


def labels_of(ids: list[str]) -> Labels:
    sessions = [f"s{ids[:row].count(person)}" for row, person in enumerate(ids)]
    codes = np.zeros((len(ids), len(ATTRIBUTES)), dtype=np.int8)
    return Labels(np.array(ids), np.array(sessions), codes, DEFAULT_CLASSES, "raw", {})


def smooth(rng: np.random.Generator, count: int, channels: int) -> np.ndarray:
    """(count, channels, SIDE, SIDE) random sums of slow waves."""
    waves = np.cos(np.pi * np.outer(np.arange(6), (np.arange(SIDE) + 0.5) / SIDE))
    return np.einsum("ncij,ih,jw->nchw", rng.normal(size=(count, channels, 6, 6)), waves, waves)


def people(count: int, sessions: int, *modalities: str, nuisance: float = 1.0, seed: int = 0) -> tuple[MapStore, Labels]:
    """Maps with a pattern for each subject; the sessions of a subject differ much more, along three common patterns."""
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(count), sessions)
    maps = {}
    for modality in modalities or ("depth",):
        channels = CHANNELS[modality]
        own, shared = smooth(rng, count, channels), smooth(rng, 3, channels)
        weights = nuisance * rng.normal(size=(len(subjects), 3))
        found = (
            own[subjects]
            + np.einsum("nk,kchw->nchw", weights, shared)
            + 0.1 * rng.normal(size=(len(subjects), channels, SIDE, SIDE))
        )
        if modality == "albedo":
            found = np.exp(found / 20)
        if modality == "normal":
            found[:, 2] = 20
            found /= np.linalg.norm(found, axis=1, keepdims=True)
        maps[modality] = found.astype(np.float32)
    return MapStore(maps, np.arange(len(subjects)), "digest"), labels_of([f"p{person:03d}" for person in subjects])


def cosines(embeddings: np.ndarray) -> np.ndarray:
    unit = embeddings.astype(np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def auc(embeddings: np.ndarray, ids: np.ndarray) -> float:
    first, second = np.triu_indices(len(ids), k=1)
    return float(roc_auc_score(ids[first] == ids[second], cosines(embeddings)[first, second]))


def whitened(train: np.ndarray, tested: np.ndarray, count: int) -> np.ndarray:
    """Whitened principal components by an SVD in float64."""
    train, tested = train.astype(np.float64), tested.astype(np.float64)
    _, singular, right = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    return (tested - train.mean(axis=0)) @ right[:count].T / singular[:count]


def test_eigenfaces_are_the_whitened_svd_of_the_training_maps() -> None:
    store, labels = people(12, 4)
    train, tested = np.arange(32), np.arange(32, 48)
    found = baseline_embeddings(store, labels, train, tested).embeddings["eigenfaces_depth"]
    flat = store.maps["depth"].reshape(48, -1)
    assert found.shape == (16, 31)
    np.testing.assert_allclose(cosines(found), cosines(whitened(flat[train], flat[tested], 31)), atol=1e-3)


def test_beyond_500_sessions_randomised_components_agree_with_the_svd() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(640, 300)) * np.r_[np.geomspace(10, 1, 150), np.full(150, 0.05)]).astype(np.float32)
    mean, components = principal_components(vectors[:600].copy(), whiten=True, seed=0)
    assert components.shape == (300, COMPONENTS)
    got = (vectors[600:] - mean) @ components
    np.testing.assert_allclose(cosines(got), cosines(whitened(vectors[:600], vectors[600:], COMPONENTS)), atol=1e-3)


def test_whitened_components_vary_by_1_and_the_others_by_1_together() -> None:
    vectors = (np.random.default_rng(0).normal(size=(40, 90)) * np.geomspace(10, 0.1, 90)).astype(np.float32)
    for whiten in (True, False):
        mean, components = principal_components(vectors.copy(), whiten=whiten, seed=0)
        covariance = np.cov(((vectors - mean) @ components).T)
        assert components.shape == (90, 39)
        if whiten:
            np.testing.assert_allclose(covariance, np.eye(39), atol=1e-3)
        else:
            assert np.trace(covariance) == pytest.approx(1, abs=1e-4)
            assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-5


def test_components_without_variance_are_dropped() -> None:
    vectors = np.random.default_rng(0).normal(size=(10, 50)).astype(np.float32)
    assert principal_components(np.repeat(vectors, 3, axis=0), whiten=True, seed=0)[1].shape == (50, 9)
    assert principal_components(np.repeat(vectors[:1], 3, axis=0), whiten=True, seed=0)[1].shape == (50, 0)
    assert principal_components(vectors[:1].copy(), whiten=True, seed=0)[1].shape == (50, 0)


def test_wccn_makes_the_within_subject_covariance_the_identity() -> None:
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.normal(size=(8, 8)))[0] * np.geomspace(3, 1, 8)
    ids = rng.permutation(np.repeat(np.arange(40), rng.integers(2, 100, size=40)))
    scores = 5 * rng.normal(size=(40, 8))[ids] + rng.normal(size=(len(ids), 8)) @ mixing
    residuals = np.array([score - scores[ids == person].mean(axis=0) for score, person in zip(scores, ids)])
    shrunk = LedoitWolf(assume_centered=True).fit(residuals).covariance_
    normaliser = wccn(scores, np.array([f"p{person}" for person in ids]))
    np.testing.assert_allclose(normaliser.T @ shrunk @ normaliser, np.eye(8), atol=1e-8)
    np.testing.assert_allclose(normaliser.T @ (residuals.T @ residuals / len(ids)) @ normaliser, np.eye(8), atol=0.05)


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
    monkeypatch.setattr(baselines, "COPIES", copies)
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
    monkeypatch.setattr(baselines, "SYMMETRIC_COPIES", 0)
    monkeypatch.setattr(fit_linear, "COPIES", 0)
    got = baseline_embeddings(store, labels, train, tested, seed=seed).embeddings["wccn_albedo_normal_symmetric"]
    embedding = LinearEmbedding(("albedo", "normal"))
    dataset = cast(Dataset, SimpleNamespace(store=store, labels=labels))
    fit_linear.fit_linear_embedding(embedding, dataset, train, AugmentConfig(), seed)
    wanted = embedding({name: torch.from_numpy(maps) for name, maps in store.read(tested).items()}).numpy()
    np.testing.assert_allclose(got / np.linalg.norm(got, axis=1, keepdims=True), wanted, atol=1e-3)


def test_the_embedding_of_a_test_session_does_not_depend_on_the_others() -> None:
    store, labels = people(10, 4, "albedo", "normal")
    train, tested = np.arange(20), np.arange(20, 40)
    before = baseline_embeddings(store, labels, train, tested).embeddings
    changed = {modality: maps.copy() for modality, maps in store.maps.items()}
    for maps in changed.values():
        maps[25] = maps[25, :, ::-1] ** 2
    after = baseline_embeddings(MapStore(changed, store.selected, ""), labels, train, tested).embeddings
    fewer = baseline_embeddings(store, labels, train, tested[[7, 3]]).embeddings
    for name, embeddings in before.items():
        others = np.arange(20) != 5
        scale = np.abs(embeddings).max()
        np.testing.assert_array_equal(after[name][others], embeddings[others])
        assert np.abs(after[name][5] - embeddings[5]).max() > 0.01 * scale
        np.testing.assert_allclose(fewer[name], embeddings[[7, 3]], atol=1e-4 * scale)


def test_the_order_of_the_training_rows_does_not_matter() -> None:
    store, labels = people(8, 4)
    tested = np.arange(20, 32)
    one, other = (
        baseline_embeddings(store, labels, rows, tested).embeddings
        for rows in (np.arange(20), np.random.default_rng(0).permutation(20))
    )
    for name, embeddings in one.items():
        np.testing.assert_array_equal(other[name], embeddings)


def test_every_baseline_of_every_modality_has_its_name_and_shape() -> None:
    store, labels = people(10, 4, "albedo", "normal")
    found = baseline_embeddings(store, labels, np.arange(20), np.arange(20, 40))
    assert {name: embeddings.shape for name, embeddings in found.embeddings.items()} == {
        "pixels_albedo": (20, SIDE**2),
        "eigenfaces_albedo": (20, 19),
        "wccn_albedo": (20, 99),
        "pixels_normal": (20, 3 * SIDE**2),
        "eigenfaces_normal": (20, 19),
        "wccn_normal": (20, 99),
        "wccn_albedo_normal": (20, 198),
        "wccn_albedo_normal_registered": (20, 198),
        "wccn_albedo_normal_symmetric": (20, 392),
        "normals_10x10": (20, 300),
    }
    assert not found.omitted
    for embeddings in found.embeddings.values():
        assert embeddings.dtype == np.float32
        assert np.isfinite(embeddings).all()
    alone, labels = people(10, 4, "albedo")
    found = baseline_embeddings(alone, labels, np.arange(20), np.arange(20, 40))
    wccn_names = {"wccn_albedo", "wccn_albedo_registered", "wccn_albedo_symmetric"}
    assert set(found.embeddings) == {"pixels_albedo", "eigenfaces_albedo"} | wccn_names


def test_pixels_and_10x10_normals_are_those_of_the_maps_in_the_order_of_the_rows() -> None:
    store, labels = people(30, 4, "normal")
    tested = np.random.default_rng(0).permutation(120)[:90]  # more than one batch
    found = baseline_embeddings(store, labels, np.arange(12), tested).embeddings
    np.testing.assert_array_equal(found["pixels_normal"], store.maps["normal"][tested].reshape(90, -1))
    np.testing.assert_array_equal(found["normals_10x10"], normals_10x10(store.maps["normal"][tested]))


def test_jittered_embeddings_equal_those_of_maps_that_were_jittered_before() -> None:
    store, labels = people(10, 4, "albedo", "normal")
    train, tested = np.arange(20), np.arange(20, 40)
    moved = jitter(
        {modality: maps[tested] for modality, maps in store.maps.items()}, labels.ids[tested], labels.sessions[tested], 0
    )
    before = {modality: np.concatenate([maps[train], moved[modality]]) for modality, maps in store.maps.items()}
    wanted = baseline_embeddings(MapStore(before, store.selected, ""), labels, train, tested).embeddings
    plain = baseline_embeddings(store, labels, train, tested).embeddings
    for name, got in baseline_embeddings(store, labels, train, tested, jittered=True).embeddings.items():
        scale = np.abs(got).max()
        np.testing.assert_allclose(got, wanted[name], atol=1e-4 * scale)
        assert np.abs(got - plain[name]).max() > 0.01 * scale


@pytest.mark.parametrize(
    ("ids", "eigenfaces", "normalised"),
    [
        ([], "fewer than two training sessions", "fewer than two training sessions"),
        (["a"], "fewer than two training sessions", "fewer than two training sessions"),
        (["a", "b", "c"], None, "no training subject has two sessions"),
        (["a", "a", "b"], None, None),
    ],
)
def test_baselines_that_cannot_be_fitted_are_omitted_with_the_reason(
    ids: list[str], eigenfaces: str | None, normalised: str | None
) -> None:
    store, _ = people(4, 2, "albedo", "depth")
    labels = labels_of([*ids, "x", "x", "y", "y", "z", "z", "z", "z"][:8])
    found = baseline_embeddings(store, labels, np.arange(len(ids)), np.arange(len(ids), 8))
    reasons = {f"eigenfaces_{modality}": eigenfaces for modality in ("albedo", "depth")}
    reasons |= {
        f"wccn_{modality}": normalised
        for modality in ("albedo", "depth", "albedo_depth", "albedo_registered", "albedo_depth_symmetric")
    }
    assert found.omitted == {name: reason for name, reason in reasons.items() if reason}
    assert set(found.embeddings) == {"pixels_albedo", "pixels_depth"} | {name for name, reason in reasons.items() if not reason}


def test_equal_training_maps_omit_the_fitted_baselines() -> None:
    store, labels = people(6, 2, "albedo")
    store.maps["albedo"][:8] = 0.5
    found = baseline_embeddings(store, labels, np.arange(8), np.arange(8, 12))
    names = ["eigenfaces_albedo", "wccn_albedo", "wccn_albedo_registered", "wccn_albedo_symmetric"]
    assert found.omitted == dict.fromkeys(names, "the training maps do not differ")
    assert set(found.embeddings) == {"pixels_albedo"}
    store.maps["albedo"][:8] = np.repeat(np.arange(1, 5), 2)[:, None, None, None]  # subjects differ, their sessions do not
    found = baseline_embeddings(store, labels, np.arange(8), np.arange(8, 12))
    assert set(found.omitted) == set(names[1:])


def test_pixels_that_would_not_fit_in_memory_are_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    store, labels = people(6, 2, "albedo", "normal")
    monkeypatch.setattr(baselines, "MAX_PIXELS", 4 * SIDE**2)
    found = baseline_embeddings(store, labels, np.arange(8), np.arange(8, 12))
    assert found.omitted == {"pixels_normal": f"4 maps have more than {4 * SIDE**2} values"}
    assert "pixels_albedo" in found.embeddings


def test_whole_subjects_are_sampled_by_the_seed_for_any_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = labels_of([f"p{person:02d}" for person in rng.permutation(np.repeat(np.arange(30), rng.integers(1, 9, size=30)))])
    rows = np.flatnonzero(labels.ids != "p03")
    whole = sample_subjects(labels, rows, seed=0)
    np.testing.assert_array_equal(np.sort(whole), rows)
    monkeypatch.setattr(baselines, "MAX_SESSIONS", 40)
    drawn = [sample_subjects(labels, rng.permutation(rows), seed) for seed in (0, 0, 1)]
    for found in drawn:
        assert 32 < len(found) <= 40
        np.testing.assert_array_equal(np.sort(found), rows[np.isin(labels.ids[rows], labels.ids[found])])
        keys = list(zip(labels.ids[found], labels.sessions[found]))
        assert keys == sorted(keys)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert set(labels.ids[drawn[0]]) != set(labels.ids[drawn[2]])


def test_with_many_training_sessions_only_the_sample_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    store, labels = people(12, 4)
    monkeypatch.setattr(baselines, "MAX_SESSIONS", 20)
    train, tested = np.arange(40), np.arange(40, 48)
    drawn = sample_subjects(labels, train, seed=0)
    assert len(drawn) == 20
    whole = baseline_embeddings(store, labels, train, tested)
    same = baseline_embeddings(store, labels, drawn, tested)
    assert whole.omitted == {"wccn_registered": "the data set has neither albedo nor normals"}
    assert whole.embeddings["wccn_depth"].shape == (8, 19)  # the components are those of 20 of the 100 maps
    for name, embeddings in whole.embeddings.items():
        np.testing.assert_array_equal(embeddings, same.embeddings[name])
    first = baseline_embeddings(store, labels, train, tested, seed=1).embeddings["wccn_depth"]
    assert not np.allclose(first, whole.embeddings["wccn_depth"])


@pytest.mark.parametrize(("sessions", "most"), [(1, 2000), (4, 2000), (4, 20)])
@pytest.mark.parametrize("modalities", [("depth",), ("albedo", "depth"), ("albedo", "normal")])
def test_progress_counts_every_map_that_is_read(
    sessions: int, most: int, modalities: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "MAX_SESSIONS", most)
    count = 8 * sessions
    store, labels = people(10, sessions, *modalities)
    train, tested = np.arange(count), np.arange(count, 10 * sessions)
    done: list[int] = []
    baseline_embeddings(store, labels, train, tested, advance=done.append)
    assert sum(done) == count_maps_to_read(modalities, labels, train, len(tested))


def test_normals_of_10_x_10_pixels_are_unit_means_over_parts_of_the_map() -> None:
    maps = people(2, 2, "normal")[0].maps["normal"]
    got = normals_10x10(maps).reshape(4, 3, 10, 10)
    for row in range(10):
        for column in range(10):
            mean = maps[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].astype(np.float64).mean(axis=(2, 3))
            wanted = mean / np.linalg.norm(mean, axis=1, keepdims=True)
            np.testing.assert_allclose(got[:, :, row, column], wanted, atol=1e-5)


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


def test_a_prepared_data_set_is_read_through_its_store(prepared: Path) -> None:
    dataset = open_dataset(prepared, ["albedo", "normal", "depth"])
    tested = np.isin(dataset.labels.ids, np.unique(dataset.labels.ids)[:2])
    found = baseline_embeddings(dataset.store, dataset.labels, np.flatnonzero(~tested), np.flatnonzero(tested), jittered=True)
    assert not found.omitted
    assert "wccn_albedo_normal_depth" in found.embeddings
    assert all(np.isfinite(embeddings).all() for embeddings in found.embeddings.values())


def test_test_maps_in_another_data_set_give_the_same_embeddings(tmp_path: Path) -> None:
    store, labels = people(10, 4, "albedo", "normal")
    train, tested = np.arange(20), np.arange(20, 40)
    alone = {modality: maps[tested] for modality, maps in store.maps.items()}
    rest = labels.subset(tested)
    other = Dataset(rest, np.arange(20), rest, [], [], tmp_path, MapStore(alone, np.arange(20), "other"))
    known = MapStore({modality: maps[train] for modality, maps in store.maps.items()}, train, "known")
    for jittered in (False, True):
        together = baseline_embeddings(store, labels, train, tested, jittered=jittered).embeddings
        apart = baseline_embeddings(known, labels.subset(train), train, np.arange(20), tested=other, jittered=jittered)
        for name, embeddings in apart.embeddings.items():
            np.testing.assert_array_equal(embeddings, together[name])
