"""Linear probes on pixels: equal to scikit-learn used directly, blind to the test subjects, omitted where not fitted."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import ATTRIBUTES, DEFAULT_CLASSES, Labels
from fr_ps.data.store import MapStore
from fr_ps.evaluation import attribute_baselines
from fr_ps.evaluation.attribute_baselines import (
    INVERSE_REGULARISATIONS,
    SIDE,
    averaged_pixels,
    choose_regularisation,
    count_fitted,
    fit_attribute_probe,
    fit_classifier,
)
from fr_ps.evaluation.baselines import training_rows
from fr_ps.evaluation.jitter import jitter

PEOPLE, SESSIONS = 24, 4
PLANTED, TRAIN, TESTED = "gender", np.arange(64), np.arange(64, 96)
MAPS = ("albedo", "normal")


def faces(seed: int = 0, effect: float = 1.0) -> Dataset:
    """Subjects with random smooth faces, of which every second one is male and brighter in a patch by `effect`.

    Facial hair is random by subject, spectacles by session, pose is only frontal, emotion unknown in every third session.
    """
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(PEOPLE), SESSIONS)
    coarse = rng.normal(size=(PEOPLE, 7, 7))[subject] + 0.3 * rng.normal(size=(len(subject), 7, 7))
    values = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    male = subject % 2
    values[:, 16:32, 16:32] += effect * male[:, None, None]
    slopes = np.stack([0.1 * values, -0.1 * values, np.ones_like(values)], axis=1)
    maps = {
        "albedo": np.exp(0.3 * values)[:, None].astype(np.float32),
        "normal": (slopes / np.linalg.norm(slopes, axis=1, keepdims=True)).astype(np.float32),
    }
    emotion = rng.integers(0, 2, len(subject))
    emotion[::3] = -1
    hair, spectacles = rng.integers(0, 2, PEOPLE)[subject], rng.integers(0, 2, len(subject))
    codes = np.stack([male, spectacles, hair, np.zeros_like(male), emotion], axis=1).astype(np.int8)
    ids = np.array([f"p{one:02d}" for one in subject])
    sessions = np.array([f"s{row % SESSIONS}" for row in range(len(subject))])
    labels = Labels(ids, sessions, codes, DEFAULT_CLASSES, "raw", {})
    rows = np.arange(len(labels))
    return Dataset(labels, rows, labels, [], [], Path(), MapStore(maps, rows, "digest"))


def auc(probabilities: np.ndarray, dataset: Dataset, attribute: str, rows: np.ndarray) -> float:
    return float(roc_auc_score(dataset.labels.codes[rows, ATTRIBUTES.index(attribute)], probabilities[:, 1]))


def test_a_planted_attribute_is_found_in_unseen_subjects_and_a_random_one_is_not() -> None:
    dataset = faces(effect=3)
    probe = fit_attribute_probe(dataset, TRAIN, [PLANTED, "facial_hair"], MAPS)
    found = probe.predict(dataset, TESTED)
    assert probe.name == "linear_probe_albedo_normal"
    assert auc(found[PLANTED], dataset, PLANTED, TESTED) > 0.97
    assert auc(probe.predict(dataset, TESTED, jittered=True)[PLANTED], dataset, PLANTED, TESTED) > 0.95
    nothing = faces(effect=0)
    aucs = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        nothing.labels.codes[:, 0] = rng.permutation(np.arange(PEOPLE) % 2).repeat(SESSIONS)
        probe = fit_attribute_probe(nothing, TRAIN, [PLANTED], MAPS)
        aucs.append(auc(probe.predict(nothing, TESTED)[PLANTED], nothing, PLANTED, TESTED))
    assert 0.2 < np.mean(aucs) < 0.8


def test_without_copies_it_is_scikit_learns_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standardised pixels, principal components, logistic regression and grouped folds, in float64."""
    monkeypatch.setattr(attribute_baselines, "COPIES", 0)
    dataset = faces()
    found = fit_attribute_probe(dataset, TRAIN, [PLANTED], MAPS).predict(dataset, TESTED)[PLANTED]
    albedo = dataset.store.maps["albedo"].astype(np.float64)
    maps = np.concatenate(
        [np.log(albedo + 0.1 * albedo.mean(axis=(1, 2, 3), keepdims=True)), dataset.store.maps["normal"]], axis=1
    )
    pixels = maps.reshape(96, 4, SIDE, 2, SIDE, 2).mean(axis=(3, 5)).reshape(96, -1)
    codes, ids = dataset.labels.codes[:, 0].astype(int), dataset.labels.ids
    reduced = make_pipeline(StandardScaler(), PCA(63)).fit(pixels[TRAIN])
    total = np.sqrt(reduced[-1].explained_variance_.sum())
    vectors = reduced.transform(pixels) / total

    def fit(rows: np.ndarray, inverse_regularisation: float) -> LogisticRegression:
        return LogisticRegression(C=inverse_regularisation / len(rows), class_weight="balanced", tol=1e-8, max_iter=10_000).fit(
            vectors[rows], codes[rows]
        )

    losses = []
    for inverse_regularisation in INVERSE_REGULARISATIONS:
        probabilities = np.zeros((64, 2))
        for fitted, held_out in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(TRAIN, codes[TRAIN], ids[TRAIN]):
            probabilities[held_out] = fit(fitted, inverse_regularisation).predict_proba(vectors[held_out])
        losses.append(log_loss(codes[TRAIN], probabilities))  # both classes have as many sessions
    best = float(INVERSE_REGULARISATIONS[np.argmin(losses)])
    assert choose_regularisation(vectors[TRAIN], codes[TRAIN], ids[TRAIN], 0) == best
    np.testing.assert_allclose(found, fit(TRAIN, best).predict_proba(vectors[TESTED]), atol=2e-3)


def test_a_rare_class_weighs_as_much_as_the_others() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [60, 30, 6])
    vectors = rng.normal(size=(96, 4)) + 1.5 * np.eye(3, 4)[codes]
    weights = (len(codes) / (3 * np.bincount(codes)))[codes]
    wanted = LogisticRegression(C=10 / 96, tol=1e-8, max_iter=10_000).fit(vectors, codes, sample_weight=weights)
    np.testing.assert_allclose(
        fit_classifier(vectors, codes, 10).predict_proba(vectors), wanted.predict_proba(vectors), atol=1e-4
    )


def test_noise_is_regularised_strongly_and_a_signal_weakly() -> None:
    rng = np.random.default_rng(0)
    subjects, codes = np.repeat(np.arange(30), 4), np.repeat(np.arange(30) % 2, 4)
    noise = rng.normal(size=(30, 40))[subjects] + 0.1 * rng.normal(size=(120, 40))
    noise /= np.sqrt(noise.var(axis=0).sum())
    assert choose_regularisation(noise, codes, subjects, 0) <= 10
    signal = noise.copy()
    signal[:, 0] += 0.5 * codes
    assert choose_regularisation(signal, codes, subjects, 0) >= 1000
    alone = np.where(subjects == 0, 1, 0)  # the only subject of its class cannot be held out
    assert choose_regularisation(signal, alone, subjects, 0) == INVERSE_REGULARISATIONS[0]


def test_the_test_subjects_do_not_reach_the_fit() -> None:
    dataset, changed = faces(), faces()
    rng = np.random.default_rng(1)
    for maps in changed.store.maps.values():
        maps[TESTED] = rng.normal(size=maps[TESTED].shape) ** 2
    changed.labels.codes[TESTED] = 1 - changed.labels.codes[TESTED]
    attributes = [PLANTED, "spectacles", "emotion"]
    one, other = (fit_attribute_probe(known, TRAIN, attributes, MAPS) for known in (dataset, changed))
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.components, other.components)
    for attribute in attributes:
        np.testing.assert_array_equal(one.classifiers[attribute].coef_, other.classifiers[attribute].coef_)
        assert one.classifiers[attribute].C == other.classifiers[attribute].C
    found, few = one.predict(dataset, TESTED), one.predict(dataset, TESTED[[9, 2]])
    for attribute in attributes:
        np.testing.assert_allclose(few[attribute], found[attribute][[9, 2]], atol=1e-5)


def test_the_order_of_the_training_rows_does_not_matter() -> None:
    dataset = faces()
    rows = np.random.default_rng(0).permutation(TRAIN)
    one, other = (fit_attribute_probe(dataset, given, [PLANTED], MAPS).predict(dataset, TESTED) for given in (TRAIN, rows))
    np.testing.assert_array_equal(one[PLANTED], other[PLANTED])


def test_jittered_maps_are_those_of_the_jittered_evaluation() -> None:
    dataset, labels = faces(), faces().labels
    probe = fit_attribute_probe(dataset, TRAIN, [PLANTED], MAPS)
    maps = jitter(dataset.store.read(TESTED), labels.ids[TESTED], labels.sessions[TESTED], 0)
    moved = Dataset(labels.subset(TESTED), TESTED, labels, [], [], Path(), MapStore(maps, np.arange(32), ""))
    found = probe.predict(dataset, TESTED, jittered=True)[PLANTED]
    np.testing.assert_allclose(found, probe.predict(moved, np.arange(32))[PLANTED], atol=1e-6)
    assert np.abs(found - probe.predict(dataset, TESTED)[PLANTED]).max() > 0.001


def test_a_class_without_training_sessions_omits_the_attribute() -> None:
    dataset = faces()
    dataset.labels.codes[:64, 4] = -1
    probe = fit_attribute_probe(dataset, TRAIN, ATTRIBUTES, MAPS)
    assert probe.omitted == {
        "pose": "no training session is turned",
        "emotion": "no training session is blankstare or other",
    }
    assert set(probe.classifiers) == set(probe.predict(dataset, TESTED)) == {"gender", "spectacles", "facial_hair"}


def test_only_labelled_sessions_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribute_baselines, "COPIES", 0)
    dataset = faces()
    probe = fit_attribute_probe(dataset, TRAIN, ["emotion"], MAPS)
    known = TRAIN[dataset.labels.codes[TRAIN, 4] >= 0]
    vectors = (averaged_pixels(dataset.store.read(known)) - probe.mean).astype(np.float64) @ probe.components
    codes, found = dataset.labels.codes[known, 4], probe.classifiers["emotion"]
    inverse_regularisation = choose_regularisation(vectors, codes, dataset.labels.ids[known], 0)
    np.testing.assert_allclose(found.C, inverse_regularisation / len(known))
    np.testing.assert_allclose(found.coef_, fit_classifier(vectors, codes, inverse_regularisation).coef_, rtol=1e-2, atol=1e-3)


def test_equal_maps_and_no_training_sessions_are_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = faces()
    dataset.store.maps["albedo"][:] = 0.5
    probe = fit_attribute_probe(dataset, TRAIN, [PLANTED], ["albedo"])
    assert probe.omitted == {PLANTED: "the training maps do not differ"}
    monkeypatch.setattr(training_rows, "MAX_SESSIONS", 3)  # fewer than any subject has
    probe = fit_attribute_probe(dataset, TRAIN, [PLANTED], MAPS)
    assert probe.omitted == {PLANTED: "no training sessions"}
    assert probe.predict(dataset, TESTED) == {}


def test_the_maps_of_one_modality_alone() -> None:
    dataset = faces(effect=3)
    probe = fit_attribute_probe(dataset, TRAIN, [PLANTED], ["normal"])
    assert probe.name == "linear_probe_normal"
    assert len(probe.mean) == 3 * SIDE**2
    assert auc(probe.predict(dataset, TESTED)[PLANTED], dataset, PLANTED, TESTED) > 0.9


def test_pixels_are_means_of_the_log_albedo_and_the_other_maps() -> None:
    maps = faces().store.read(np.arange(3))
    found = averaged_pixels(maps)
    assert found.shape == (3, 4 * SIDE**2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 3 * SIDE**2 :], maps["normal"][:, 2, ::2, ::2].reshape(3, -1), atol=1e-6)
    brighter = averaged_pixels({"albedo": 2 * maps["albedo"]}) - averaged_pixels({"albedo": maps["albedo"]})
    np.testing.assert_allclose(brighter, np.log(2), atol=1e-5)


def test_progress_counts_every_session_that_is_read() -> None:
    dataset, done = faces(), []
    probe = fit_attribute_probe(dataset, TRAIN, [PLANTED], MAPS, advance=done.append)
    assert sum(done) == count_fitted(dataset, TRAIN) == 64 * 5
    done.clear()
    probe.predict(dataset, np.tile(TESTED, 3), advance=done.append)
    assert done == [64, 32]
