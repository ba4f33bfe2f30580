"""The correction of the registration: shadows that move all faces alike move those of unseen subjects less with it."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fr_ps.config import AugmentConfig
from fr_ps.data.augment import MapBatch, Similarity
from fr_ps.evaluation.jitter import draw_jitter
from fr_ps.models.registration import correction_shape, face_differences, register, registration_features
from fr_ps.synthetic.scene import render_session
from fr_ps.training.fit_registration import MOVED_COPIES, fit_registration
from tests.models.test_registration import matrices, move

SIDE = 64
STILL = AugmentConfig(crop=1, rotation=0, scale=0, shift=0)
MOVED = AugmentConfig(crop=1, rotation=8, scale=0.15, shift=0.05)
TRAINED, SESSIONS = 12, 3
"""Subjects that the correction is fitted to, of 16, and sessions of each: two equal ones, and the same in shadow."""


@pytest.fixture(scope="module")
def faces() -> MapBatch:
    scenes = [render_session(0, subject, 0, SIDE) for subject in range(16) for _ in range(SESSIONS)]
    maps = {
        "albedo": torch.from_numpy(np.stack([scene.albedo[None] for scene in scenes])),
        "normal": torch.from_numpy(np.stack([scene.normal.transpose(2, 0, 1) for scene in scenes])),
    }
    in_shadow = torch.arange(len(scenes)) % SESSIONS == SESSIONS - 1
    return {name: torch.where(in_shadow[:, None, None, None], shaded(array, name), array) for name, array in maps.items()}


def shaded(maps: Tensor, name: str) -> Tensor:
    """As with lights from below whose shadows end at the eyes: dark at the top, with normals that are bent downwards there."""
    depth = (1 - torch.arange(SIDE) / (0.45 * SIDE)).clamp(0)[:, None]
    if name == "albedo":
        return maps * torch.exp(-3 * depth)
    return functional.normalize(maps - 1.5 * depth * torch.tensor([0, 1.0, 0])[:, None, None], dim=1)


def subjects() -> np.ndarray:
    return np.repeat([f"p{subject}" for subject in range(16)], SESSIONS)


def trained(maps: MapBatch) -> MapBatch:
    return {name: array[: TRAINED * SESSIONS] for name, array in registration_features(maps).items()}


def unseen(maps: MapBatch) -> MapBatch:
    return {name: array[TRAINED * SESSIONS :] for name, array in maps.items()}


def distances_in_shadow(transforms: np.ndarray) -> np.ndarray:
    """In pixels, by how much the transform of the session in shadow differs from that of the equal ones, for each subject."""
    points = np.array([[x, y, 1.0] for x in (-0.5, 0, 0.5) for y in (-0.5, 0, 0.5)]).T
    where = (transforms @ points)[:, :2].reshape(-1, SESSIONS, 2, 9) * SIDE / 2
    return np.sqrt(np.square(where[:, -1] - where[:, 0]).sum(axis=1).mean(axis=1))


@pytest.mark.parametrize("augmentation", [STILL, MOVED], ids=["still", "moved"])
def test_shadows_move_the_faces_of_unseen_subjects_less(faces: MapBatch, augmentation: AugmentConfig) -> None:
    mean_face, correction = fit_registration(trained(faces), subjects()[: TRAINED * SESSIONS], augmentation, 0)
    features = registration_features(unseen(faces))
    plain, corrected = (
        distances_in_shadow(matrices(register(features, mean_face, correction=used))) for used in (None, correction)
    )
    assert np.median(plain) > 0.8
    assert np.median(corrected) < 0.75 * np.median(plain)


def crop_of_its_own(maps: MapBatch, ids: np.ndarray) -> MapBatch:
    """Every session with a wrong crop, by up to 5 degrees, 10 % and 4 %."""
    return move(maps, draw_jitter(ids, np.arange(len(ids)).astype(str), 1))


def displacement_left(faces: MapBatch, mean_face: MapBatch, correction: Tensor | None) -> float:
    """The part of a random displacement of unseen faces that their registration does not undo: the ratio of the medians."""
    maps = unseen(faces)
    drawn = draw_jitter(subjects()[TRAINED * SESSIONS :], np.arange(len(maps["albedo"])).astype(str), 0)
    both = [registration_features(of_one) for of_one in (maps, move(maps, drawn))]
    still, moved = (matrices(register(features, mean_face, correction=correction)) for features in both)
    left = np.abs((matrices(drawn) @ moved)[:, :2] - still[:, :2]).max(axis=(1, 2))
    before = np.abs(matrices(drawn)[:, :2] - np.eye(3)[:2]).max(axis=(1, 2))
    return float(np.median(left) / np.median(before))


def test_with_the_correction_a_moved_face_still_comes_back(faces: MapBatch) -> None:
    mean_face, correction = fit_registration(trained(faces), subjects()[: TRAINED * SESSIONS], MOVED, 0)
    assert displacement_left(faces, mean_face, correction) < 0.25


def test_crops_that_differ_within_subjects_take_back_a_part_of_the_registration(faces: MapBatch) -> None:
    rows = TRAINED * SESSIONS
    ids = subjects()[:rows]
    cropped = crop_of_its_own({name: array[:rows] for name, array in faces.items()}, ids)
    mean_face, correction = fit_registration(registration_features(cropped), ids, MOVED, 0)
    features = registration_features(unseen(faces))
    plain, corrected = (
        distances_in_shadow(matrices(register(features, mean_face, correction=used))) for used in (None, correction)
    )
    assert np.median(corrected) < np.median(plain)  # shadows are corrected all the same
    assert displacement_left(faces, mean_face, None) < displacement_left(faces, mean_face, correction) < 0.4


def test_the_correction_is_a_ridge_regression_of_the_bias(faces: MapBatch) -> None:
    """Computed again in float64 from the augmented least squares problem, and with the inverse of matrices."""
    features, ids = trained(faces), subjects()[: TRAINED * SESSIONS]
    mean_face, correction = fit_registration(features, ids, STILL, 0)
    found = register(features, mean_face)
    parameters = torch.stack([found.angle, found.side.log(), *found.centre.T], dim=1).double().numpy()
    medians = torch.from_numpy(np.repeat(np.median(parameters.reshape(TRAINED, SESSIONS, 4), axis=1), SESSIONS, axis=0))
    expected = Similarity(torch.ones(len(ids)), medians[:, 0], medians[:, 1].exp(), medians[:, 2:])
    bias = np.linalg.solve(matrices(expected), matrices(found))
    targets = np.stack([np.arctan2(bias[:, 1, 0], bias[:, 0, 0]), np.log(np.linalg.det(bias)) / 2, *bias[:, :2, 2].T], axis=1)
    inputs = face_differences(features, mean_face, found).double().numpy()
    centred = np.tile(inputs - inputs.mean(axis=0), (MOVED_COPIES + 1, 1))
    penalty = np.sqrt(np.square(centred).sum(axis=1).mean()) * np.eye(centred.shape[1])
    padded = np.vstack([np.tile(targets - targets.mean(axis=0), (MOVED_COPIES + 1, 1)), np.zeros((len(penalty), 4))])
    weights = np.linalg.lstsq(np.vstack([centred, penalty]), padded, rcond=None)[0]
    np.testing.assert_allclose(correction[:-1], weights, atol=0.03 * np.abs(weights).max())
    np.testing.assert_allclose(correction[-1], targets.mean(axis=0) - inputs.mean(axis=0) @ weights, atol=1e-4)


def test_the_seed_decides_how_the_copies_move(faces: MapBatch) -> None:
    features, ids = trained(faces), subjects()[: TRAINED * SESSIONS]
    first, again, other = (fit_registration(features, ids, MOVED, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("modalities", [("albedo", "normal"), ("normal",)])
def test_equal_sessions_have_no_bias(modalities: tuple[str, ...]) -> None:
    blank = {"albedo": torch.full((4, 1, SIDE, SIDE), 0.5), "normal": torch.eye(3)[2][:, None, None].expand(4, 3, SIDE, SIDE)}
    features = registration_features({name: blank[name] for name in modalities})
    mean_face, correction = fit_registration(features, np.array(["a", "a", "b", "b"]), MOVED, 0)
    assert correction.shape == correction_shape(modalities)
    np.testing.assert_allclose(correction[:-1], 0, atol=0.1)
    empty = register(features, mean_face, correction=correction)
    np.testing.assert_allclose(matrices(empty), np.broadcast_to(np.eye(3), (4, 3, 3)), atol=0.05)
