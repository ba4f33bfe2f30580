"""dlib's network as a baseline: its input, and its descriptors if it is installed."""

from pathlib import Path

import numpy as np
import pytest

from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.evaluation import dlib_baseline
from fr_ps.evaluation.dlib_baseline import CHIP, FACE, dlib_embeddings, face_chips, reason_without_dlib

MARGIN = (CHIP - FACE) // 2
needs_dlib = pytest.mark.skipif(bool(reason_without_dlib()), reason=reason_without_dlib())


@pytest.fixture
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared, ["albedo"])


def test_the_face_is_in_the_middle_and_its_border_is_repeated() -> None:
    albedo = np.random.default_rng(0).uniform(0.1, 0.8, (2, 1, FACE, FACE)).astype(np.float32)
    chips = face_chips(albedo)
    assert (chips.shape, chips.dtype) == ((2, CHIP, CHIP, 3), np.uint8)
    assert (chips == chips[..., :1]).all()
    white = np.quantile(albedo.reshape(2, -1), 0.99, axis=1)[:, None, None]
    wanted = 255 * np.clip(albedo[:, 0] / white, 0, 1) ** (1 / 2.2)
    inside = slice(MARGIN, MARGIN + FACE)
    np.testing.assert_allclose(chips[:, inside, inside, 0], wanted, atol=0.51)
    for outside, edge in ((slice(MARGIN), MARGIN), (slice(MARGIN + FACE, None), MARGIN + FACE - 1)):
        np.testing.assert_array_equal(chips[:, outside], np.broadcast_to(chips[:, [edge]], chips[:, outside].shape))
        np.testing.assert_array_equal(chips[:, :, outside], np.broadcast_to(chips[:, :, [edge]], chips[:, :, outside].shape))


def test_the_unit_of_the_albedo_and_the_size_of_the_maps_hardly_matter() -> None:
    fine = np.kron(np.random.default_rng(0).uniform(0.1, 1, (1, 1, 14, 14)), np.ones((1, 1, 16, 16))).astype(np.float32)
    coarse = fine.reshape(1, 1, 112, 2, 112, 2).mean(axis=(3, 5))
    np.testing.assert_array_equal(face_chips(8 * fine), face_chips(fine))
    difference = np.abs(face_chips(coarse).astype(float) - face_chips(fine))
    assert np.median(difference) == 0
    assert (face_chips(np.zeros((1, 1, 48, 48), np.float32)) == 0).all()


def test_without_dlib_the_reason_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlib_baseline, "find_spec", lambda name: None)
    assert reason_without_dlib() == "dlib or its model is not installed: pip install 'fr-ps[dlib]'"


@needs_dlib
def test_descriptors_are_those_of_dlib_in_the_order_of_the_rows(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import dlib

    monkeypatch.setattr(dlib_baseline, "_BATCH", 2)
    rows, done = np.array([7, 0, 3]), []
    found = dlib_embeddings(dataset, rows, advance=done.append)
    network = dlib.face_recognition_model_v1(str(dlib_baseline._weights()))
    for row, embedding in zip(rows, found):
        (chip,) = face_chips(dataset.store.maps["albedo"][[row]])
        np.testing.assert_allclose(embedding, np.array(network.compute_face_descriptor(chip)), atol=1e-5)
    assert (found.shape, found.dtype, sum(done)) == ((3, 128), np.float32, 3)


@needs_dlib
def test_the_jitter_moves_the_face(dataset: Dataset) -> None:
    rows = np.arange(2)
    moved, still = (dlib_embeddings(dataset, rows, jittered=jittered) for jittered in (True, False))
    assert np.linalg.norm(moved - still, axis=1).min() > 0.01
