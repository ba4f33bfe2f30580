"""The recognizer: the same bits as an evaluation, verification, identification, and rejected input."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fr_ps
from fr_ps.data.dataset import open_dataset
from fr_ps.data.layout import session_folder
from fr_ps.errors import InputError
from fr_ps.evaluation.analyses.attributes import best_threshold
from fr_ps.models.folder import load_model
from fr_ps.models.inference import predict, require_finite
from fr_ps.models.thresholds import THRESHOLDS_FILE, read_thresholds
from fr_ps.serving.enrolment import enroll
from fr_ps.serving.predict import list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer
from tests.conftest import AssertRejected
from tests.models.small import save_model
from tests.serving.conftest import CPU

Maps = dict[str, np.ndarray]


def load_maps(root: Path, sessions: list[tuple[str, str]]) -> Maps:
    """The maps in the files of these sessions."""
    folders = [session_folder(root, *key) for key in sessions]
    return {name: np.stack([np.load(folder / f"{name}.npy") for folder in folders]) for name in ("albedo", "normal")}


@pytest.fixture(scope="module")
def keys(prepared: Path) -> list[tuple[str, str]]:
    labels = open_dataset(prepared, ["albedo"]).labels
    return list(zip(labels.ids.tolist(), labels.sessions.tolist()))


def test_predictions_equal_those_of_an_evaluation_to_the_bit(
    recognizer: Recognizer, both: Path, prepared: Path, keys: list[tuple[str, str]]
) -> None:
    dataset = open_dataset(prepared, ["albedo", "normal"])
    expected = predict(load_model(both, CPU)[0], dataset.store, np.arange(len(keys)), 64)
    maps = load_maps(prepared, keys)
    assert np.array_equal(recognizer.embed(maps), expected.embeddings)
    found = recognizer.attributes(maps)
    assert set(found) == {"gender", "spectacles", "facial_hair", "emotion"}  # the model was not trained on pose
    for name, probabilities in found.items():
        assert np.array_equal(probabilities, expected.probabilities[name])


def test_one_session_needs_no_batch_dimension(recognizer: Recognizer, prepared: Path, keys: list[tuple[str, str]]) -> None:
    several = load_maps(prepared, keys[:1])
    single = {name: array[0] for name, array in several.items()}
    assert np.array_equal(recognizer.embed(single), recognizer.embed(several))
    assert recognizer.embed(single).shape == (1, recognizer.network.embedding_size)


def test_one_of_two_modalities_may_be_missing(recognizer: Recognizer, prepared: Path, keys: list[tuple[str, str]]) -> None:
    maps = load_maps(prepared, keys[:3])
    only = recognizer.embed({"normal": maps["normal"]})
    with torch.no_grad():
        normals = torch.from_numpy(maps["normal"]).permute(0, 3, 1, 2)
        expected = recognizer.network({"normal": normals}).embedding.numpy()
    assert np.allclose(only, expected, atol=1e-6)
    assert not np.allclose(only, recognizer.embed(maps))


def test_verify_compares_the_cosine_with_the_threshold_for_an_fmr(
    recognizer: Recognizer, both: Path, prepared: Path, keys: list[tuple[str, str]]
) -> None:
    first, second = ({name: array[0] for name, array in load_maps(prepared, [key]).items()} for key in (keys[0], keys[5]))
    a, b = (recognizer.embed(maps)[0].astype(np.float64) for maps in (first, second))
    found = recognizer.verify(first, second, fmr=0.1)
    assert found.score == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    thresholds = read_thresholds(both)
    assert thresholds is not None
    (point,) = [one for one in thresholds.identity if one.fmr == 0.1]
    assert found.validation_threshold == point
    assert found.threshold == point.threshold
    assert found.same == (found.score >= point.threshold)
    assert recognizer.verify(first, first, fmr=0.1).same
    given = recognizer.verify(first, second, threshold=found.score)
    assert given.same
    assert given.validation_threshold is None
    assert not recognizer.verify(first, second, threshold=found.score + 1e-4).same
    assert recognizer.validation_threshold(0.5) == point  # the highest supported rate below 0.5


@pytest.mark.parametrize("low", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_a_threshold_between_two_adjacent_probabilities_separates_them(
    low: float, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 as in the evaluation: in float32 such a threshold rounds to one of the two."""
    below = np.float32(low)
    above = np.nextafter(below, np.float32(1))
    threshold = best_threshold(np.array([below, above]), np.array([0, 1]))
    assert recognizer.thresholds is not None
    assert threshold is not None
    monkeypatch.setattr(recognizer, "thresholds", replace(recognizer.thresholds, attributes={"gender": threshold}))
    probabilities = np.array([[1 - below, below], [1 - above, above]], dtype=np.float32)
    assert recognizer.predicted_classes("gender", probabilities) == list(recognizer.info.classes["gender"])


def test_identify_returns_the_subject_or_none(
    recognizer: Recognizer, prepared: Path, keys: list[tuple[str, str]], tmp_path: Path
) -> None:
    enrolled = keys[:8]
    gallery = enroll(tmp_path / "gallery", recognizer.digest, enrolled, recognizer.embed(load_maps(prepared, enrolled)))
    matches = recognizer.identify(load_maps(prepared, enrolled), gallery, fmr=0.1, top=2)
    assert [len(one.candidates) for one in matches] == [2] * 8
    threshold = recognizer.validation_threshold(0.1).threshold
    for one in matches:
        assert one.subject == (one.candidates[0][0] if one.score >= threshold else None)
    other = enroll(tmp_path / "other", "f" * 64, enrolled, recognizer.embed(load_maps(prepared, enrolled)))
    with pytest.raises(InputError, match="another model"):
        recognizer.identify(load_maps(prepared, enrolled), other)


def test_a_capture_becomes_the_maps_of_prepare(
    recognizer: Recognizer, prepared: Path, captures: Path, keys: list[tuple[str, str]]
) -> None:
    made = recognizer.capture_to_maps(f"{captures}/{keys[3][0]}/{keys[3][1]}")
    expected = load_maps(prepared, [keys[3]])
    assert set(made) == {"albedo", "normal"}
    for name, array in made.items():
        assert np.array_equal(array, expected[name][0])


def test_a_capture_of_another_prepare_format_gets_a_warning(
    recognizer: Recognizer, older: Recognizer, captures: Path, keys: list[tuple[str, str]], recwarn: pytest.WarningsRecorder
) -> None:
    capture = captures / keys[3][0] / keys[3][1]
    made = recognizer.capture_to_maps(capture)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="trained on maps of an unknown prepare format"):
        assert np.array_equal(older.capture_to_maps(capture)["normal"], made["normal"])


GOOD = {"albedo": np.full((48, 48), 0.5, np.float32), "normal": np.full((48, 48, 3), (0, 0, 1), np.float32)}


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ({"depth": GOOD["albedo"]}, ("depth", "it reads albedo, normal")),
        ({"albedo": np.zeros((32, 32), np.float32)}, ("albedo", "32 x 32", "prepare with --size 48")),
        ({"albedo": np.full((48, 48), np.nan, np.float32)}, ("albedo", "NaN")),
        ({"albedo": np.full((48, 48), "x")}, ("albedo", "expected float32")),
        ({"albedo": np.zeros((2, 48, 48, 4), np.float32)}, ("albedo 0", "must be H x W")),
        ({"normal": GOOD["normal"] * 3}, ("normal", "length 3")),
        ({"albedo": np.stack([GOOD["albedo"]] * 2), "normal": GOOD["normal"]}, ("2 of albedo, 1 of normal", "expected")),
        ({}, ("maps: none", "expected")),
        ({"albedo": np.zeros((0, 48, 48), np.float32)}, ("albedo: no session", "expected")),
        ({"albedo": np.float32(3)}, ("albedo 0", "must be H x W")),
    ],
    ids=["another modality", "size", "nan", "text", "shape", "length", "counts", "nothing", "none", "a number"],
)
def test_invalid_maps_are_rejected(recognizer: Recognizer, maps: Maps, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        recognizer.embed(maps)
    for word in words:
        assert word in str(caught.value)


def test_verify_takes_one_session_each(recognizer: Recognizer, rejected: AssertRejected) -> None:
    two = {name: np.stack([array] * 2) for name, array in GOOD.items()}
    with rejected("one session each"):
        recognizer.verify(two, GOOD)


def test_verify_without_thresholds_is_rejected(both: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(both, bare)
    (bare / THRESHOLDS_FILE).unlink()
    with pytest.raises(InputError, match="trained without a validation set; give --threshold"):
        Recognizer(bare, CPU).verify(GOOD, GOOD)


def test_an_unsupported_fmr_is_rejected_with_the_lowest_supported_one(recognizer: Recognizer) -> None:
    with pytest.raises(InputError, match=r"--fmr 1e-06: .*lowest false match rate that the validation set supports: 0\.1"):
        recognizer.validation_threshold(1e-6)


def test_fr_ps_load_returns_a_recognizer(both: Path, keys: list[tuple[str, str]], prepared: Path, recognizer: Recognizer) -> None:
    loaded = fr_ps.load(str(both), device="cpu")
    maps = load_maps(prepared, keys[:2])
    assert np.array_equal(loaded.embed(maps), recognizer.embed(maps))
    with pytest.raises(InputError, match="device is 'moon'"):
        fr_ps.load(str(both), device="moon")


def test_weights_and_predictions_with_nan_or_infinity_are_rejected(
    both: Path, prepared: Path, keys: list[tuple[str, str]], tmp_path: Path, rejected: AssertRejected
) -> None:
    """Finite weights can give infinite embeddings."""

    def changed(name: str, gain: float) -> Path:
        network, info = load_model(both, CPU)
        with torch.no_grad():
            network.log_gains["albedo"].fill_(gain)
        save_model(tmp_path / name, network, info)
        return tmp_path / name

    for gain in (float("nan"), float("inf")):
        with rejected(tmp_path / f"{gain}" / "model.safetensors", "log_gains.albedo", "NaN or infinity"):
            Recognizer(changed(str(gain), gain), CPU)
    model = changed("large", 200.0)
    recognizer = Recognizer(model, CPU)
    maps = {name: np.load(session_folder(prepared, *keys[0]) / f"{name}.npy") for name in ("albedo", "normal")}
    with rejected(model, "session 0", "NaN or infinite"):
        recognizer.predict(maps)
    sessions = list_prepared_sessions(recognizer, prepared)
    with rejected(model, "/".join(sessions[0].key), "of 24 sessions"):
        predict_sessions(recognizer, sessions, batch=64)
    dataset = open_dataset(prepared, ["albedo", "normal"])
    predictions = predict(recognizer.network, dataset.store, np.arange(4), 4)
    with rejected(model, dataset.labels.session_names()[0], "4 of 4 sessions"):
        require_finite(predictions, dataset.labels.session_names(), model)
