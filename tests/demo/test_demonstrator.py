"""The analysis of a picked and of an uploaded capture, against `predict`, the prepared data set and `identify`."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fr_ps.data.session_picture import display_white, to_gray
from fr_ps.demo.candidates import EnrolledPictures, find_candidates
from fr_ps.demo.demonstrator import Demonstrator, open_demonstrator
from fr_ps.errors import InputError
from fr_ps.photometric.captures import Capture, read_capture
from fr_ps.serving.predict import list_capture_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.results import prediction_table
from tests.conftest import AssertRejected
from tests.photometric.surfaces import directions


def test_a_picked_capture_has_the_predictions_of_predict_and_the_quality_of_prepare(
    demonstrator: Demonstrator, recognizer: Recognizer, captures: Path, prepared: Path
) -> None:
    name = list(demonstrator.sessions)[5]
    found = demonstrator.analyse(name)
    sessions = [one for one in list_capture_sessions(recognizer, captures) if "/".join(one.key) == name]
    row = prediction_table(recognizer, predict_sessions(recognizer, sessions, 1).predictions).iloc[0]
    np.testing.assert_array_equal(found.embedding[0], row["embedding"])
    assert {one.attribute: one.predicted for one in found.attributes} == {one: row[one] for one in recognizer.info.trained}
    (gender,) = [one for one in found.attributes if one.attribute == "gender"]
    assert list(gender.probabilities.values())[1] == pytest.approx(row["gender_probability"])
    labels = pd.read_csv(prepared / "labels.csv", dtype={"id": str, "session": str}).set_index(["id", "session"])
    for measure, value in found.quality.items():
        assert value == pytest.approx(labels.loc[tuple(name.split("/")), f"quality_{measure}"], rel=1e-3, abs=1e-5)
        assert demonstrator.spread[measure][0] == pytest.approx(labels[f"quality_{measure}"].median())
    assert found.view.recorded
    assert len(found.view.recorded.pictures) == 4
    assert found.warnings == []


def test_a_capture_is_read_once(demonstrator: Demonstrator, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def counted(folder: Path, *others: Any) -> Capture:
        read.append(folder)
        return read_capture(folder, *others)

    monkeypatch.setattr("fr_ps.data.preparation.read_capture", counted)
    name, session = next(iter(demonstrator.sessions.items()))
    demonstrator.analyse(name)
    assert read == [session.folder]


@pytest.mark.parametrize("layout", ["plain", "lp"])
def test_an_upload_has_the_answer_of_the_same_capture_in_its_folder(
    demonstrator: Demonstrator, tmp_path: Path, layout: str
) -> None:
    name = next(iter(demonstrator.sessions))
    files = [shutil.copy(file, tmp_path) for file in sorted(demonstrator.sessions[name].folder.iterdir())]
    if layout == "lp":
        table = tmp_path / "lights.csv"
        with table.open() as file:
            rows = list(csv.DictReader(file))
        lights = directions([(float(row["azimuth_deg"]), float(row["elevation_deg"])) for row in rows])
        lines = [f"{row['image']} {x:.9f} {y:.9f} {z:.9f}" for row, (x, y, z) in zip(rows, lights)]
        (tmp_path / "dome.lp").write_text("\n".join([str(len(lines)), *lines]) + "\n")
        files = [*(file for file in files if not str(file).endswith("lights.csv")), str(tmp_path / "dome.lp")]
    found, expected = demonstrator.analyse_files([str(file) for file in files]), demonstrator.analyse(name)
    np.testing.assert_allclose(found.embedding, expected.embedding, rtol=1e-4, atol=1e-5)
    assert found.view.name == "upload"


def test_an_unusable_upload_is_an_error_without_its_temporary_folder(
    demonstrator: Demonstrator, tmp_path: Path, rejected: AssertRejected
) -> None:
    folder = next(iter(demonstrator.sessions.values())).folder
    images = [str(path) for path in sorted(folder.glob("*.png"))]
    lights = str(folder / "lights.csv")
    (tmp_path / "text.png").write_text("no picture")
    twice = str(shutil.copy(images[0], tmp_path))
    for files, words in (
        ([], ["upload", "no images"]),
        ([lights], ["upload", "no images"]),
        (images, ["upload: "]),
        ([*images[1:], lights], [f"{Path(images[0]).name}: no such image"]),
        ([*images, lights, twice], ["upload", "two files", Path(twice).name]),
    ):
        with rejected(*words):
            demonstrator.analyse_files(files)
    shutil.copy(tmp_path / "text.png", tmp_path / Path(images[0]).name)
    with pytest.raises(InputError) as caught:
        demonstrator.analyse_files([twice, *images[1:], lights])
    assert str(caught.value).startswith(f"{Path(images[0]).name}: ")


def test_the_candidates_are_those_of_identify_with_a_picture_of_their_most_similar_session(
    demonstrator: Demonstrator, recognizer: Recognizer, prepared: Path
) -> None:
    assert demonstrator.gallery
    analysis = demonstrator.analyse(list(demonstrator.sessions)[-1])
    found = demonstrator.candidates(analysis)
    (match,) = demonstrator.gallery.search(analysis.embedding, threshold=1, top=5)
    assert [(one.subject, one.score) for one in found] == list(match.candidates)
    probe = analysis.embedding[0].astype(np.float64)
    for one in found:
        cosines = {
            session: row @ probe / np.linalg.norm(row) / np.linalg.norm(probe)
            for subject, session, row in zip(
                demonstrator.gallery.table["id"], demonstrator.gallery.table["session"], demonstrator.gallery.embeddings
            )
            if subject == one.subject
        }
        assert one.sessions == len(cosines) == 2
        assert one.shown_session == max(cosines, key=lambda session: cosines[session])
        albedo = np.load(prepared / "data" / one.subject / one.shown_session / "albedo.npy")
        assert one.picture.pixels is not None
        np.testing.assert_array_equal(one.picture.pixels, to_gray(albedo, 0, display_white(albedo[albedo > 0])))


def test_pictures_come_from_captures_too_and_their_absence_has_a_reason(demonstrator: Demonstrator, prepared: Path) -> None:
    captures = {session.key: session for session in demonstrator.sessions.values()}
    subject, session = key = next(iter(captures))
    of_data = EnrolledPictures(prepared, {}).find(subject, session)
    of_captures = EnrolledPictures(None, captures).find(subject, session)
    assert of_data.pixels is not None
    assert of_captures.pixels is not None
    np.testing.assert_allclose(of_captures.pixels, of_data.pixels, atol=1)
    assert "--data nor --captures" in EnrolledPictures(None, {}).find(subject, session).note
    absent = EnrolledPictures(prepared, captures).find("S999", "s00")
    assert absent.pixels is None
    assert "S999/s00 is not in" in absent.note
    broken = {key: replace(captures[key], folder=prepared)}
    assert EnrolledPictures(None, broken).find(subject, session).note.startswith("no picture: ")
    assert demonstrator.gallery
    analysis = demonstrator.analyse("/".join(key))
    assert all(
        one.picture.pixels is None
        for one in find_candidates(demonstrator.gallery, analysis.embedding, 2, EnrolledPictures(None, {}))
    )


def test_inputs_that_do_not_fit_the_model_are_rejected(
    recognizer: Recognizer, demonstrator: Demonstrator, captures: Path, tmp_path: Path, rejected: AssertRejected
) -> None:
    assert demonstrator.gallery
    with rejected("another model made this gallery"):
        open_demonstrator(recognizer, replace(demonstrator.gallery, model="b" * 64), captures, None, None)
    for no_data_set in (tmp_path, captures.parent):  # the second has a table, but no maps
        with rejected("--data", no_data_set, "labels.csv"):
            open_demonstrator(recognizer, None, captures, no_data_set, None)
    with rejected("--prior"):
        open_demonstrator(recognizer, None, captures, None, "mean.npy")
    with rejected("S999"):
        demonstrator.analyse("S999/s00")
