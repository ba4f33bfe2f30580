"""Predictions for many sessions: order, sources, failures."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonargparse import Namespace

from fr_ps.commands.recognition import _infer
from fr_ps.data.dataset import open_dataset
from fr_ps.data.preparation import FORMAT
from fr_ps.data.split_files import SPLIT_FILE, read_parts
from fr_ps.errors import InputError
from fr_ps.models.folder import load_model
from fr_ps.models.inference import predict
from fr_ps.serving.predict import list_capture_sessions, list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer
from fr_ps.synthetic.captures import write_synthetic_captures
from tests.conftest import AssertRejected
from tests.serving.conftest import CPU


@pytest.fixture
def broken(prepared: Path, tmp_path: Path) -> tuple[Path, list[tuple[str, str]]]:
    """A copy with three unreadable sessions, and their keys."""
    root = tmp_path / "data"
    shutil.copytree(prepared, root)
    keys = sorted((path.parent.name, path.name) for path in (root / "data").glob("*/*"))
    cut, absent, wrong = keys[1], keys[6], keys[-1]
    file = root / "data" / cut[0] / cut[1] / "albedo.npy"
    file.write_bytes(file.read_bytes()[:500])
    (root / "data" / absent[0] / absent[1] / "normal.npy").unlink()
    np.save(root / "data" / wrong[0] / wrong[1] / "albedo.npy", np.full((48, 48), np.inf, np.float32))
    return root, [cut, absent, wrong]


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_predictions_have_the_order_of_the_table(recognizer: Recognizer, prepared: Path, both: Path, batch: int) -> None:
    counted = []
    found = predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared), batch, counted.append)
    dataset = open_dataset(prepared, ["albedo", "normal"])
    assert found.keys == list(zip(dataset.labels.ids.tolist(), dataset.labels.sessions.tolist()))
    expected = predict(load_model(both, CPU)[0], dataset.store, np.arange(len(dataset.labels)), batch)
    assert np.array_equal(found.predictions.embeddings, expected.embeddings)
    assert found.failures == []
    assert sum(counted) == len(found.keys)


def test_split_selects_the_sessions_of_that_part(recognizer: Recognizer, prepared: Path, both: Path) -> None:
    found = predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared, part="test"), 64)
    assert set(found.keys) == {key for key, part in read_parts(both / SPLIT_FILE).items() if part == "test"}
    with pytest.raises(InputError, match="--split unknown"):
        list_prepared_sessions(recognizer, prepared, part="unknown")


def test_a_table_without_leading_zeros_is_rejected_with_the_cause(
    recognizer: Recognizer, prepared: Path, tmp_path: Path, rejected: AssertRejected
) -> None:
    root = tmp_path / "data"
    (root / "data").mkdir(parents=True)
    (root / "data/007").symlink_to(prepared / "data/S000")
    (tmp_path / "asked.csv").write_text("id;session\n7;s00\n")
    with rejected("asked.csv: 7/s00 has no maps", "lost the leading zeros of '007'"):
        list_prepared_sessions(recognizer, root, tmp_path / "asked.csv")
    with rejected("7/s00 has no capture", "lost the leading zeros of '007'"):
        captured = tmp_path / "captures/007/s00"
        captured.mkdir(parents=True)
        list_capture_sessions(recognizer, tmp_path / "captures", tmp_path / "asked.csv")


def test_unreadable_sessions_are_listed_and_all_others_predicted(
    recognizer: Recognizer, broken: tuple[Path, list[tuple[str, str]]], prepared: Path
) -> None:
    root, bad = broken
    counted = []
    found = predict_sessions(recognizer, list_prepared_sessions(recognizer, root), 5, counted.append)
    assert {(one.id, one.session) for one in found.failures} == set(bad)
    reasons = {(one.id, one.session): one.reason for one in found.failures}
    assert "not a readable .npy file" in reasons[bad[0]]
    assert "normal.npy: no such file" in reasons[bad[1]]
    assert "NaN or infinity at row 0" in reasons[bad[2]]
    whole = predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared), 64)
    by_key = dict(zip(whole.keys, whole.predictions.embeddings))
    assert len(found.keys) == len(whole.keys) - 3
    for key, embedding in zip(found.keys, found.predictions.embeddings):
        assert np.allclose(embedding, by_key[key], rtol=1e-4, atol=1e-5)
    assert sum(counted) == len(whole.keys)


def test_without_a_readable_session_the_first_cause_is_named(recognizer: Recognizer, prepared: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(prepared, root)
    for file in root.rglob("albedo.npy"):
        file.unlink()
    with pytest.raises(InputError, match=r"none of 24 sessions could be read; first error: .*albedo.npy"):
        predict_sessions(recognizer, list_prepared_sessions(recognizer, root), 8)


def test_sessions_come_from_the_folders_or_from_a_table(recognizer: Recognizer, prepared: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(prepared, root)
    (root / "labels.csv").unlink()
    every = list_prepared_sessions(recognizer, root)
    assert [one.key for one in every] == sorted(one.key for one in list_prepared_sessions(recognizer, prepared))
    table = tmp_path / "some.csv"
    table.write_text("id,session\n" + "".join(f"{','.join(one.key)}\n" for one in every[3:5]))
    assert [one.key for one in list_prepared_sessions(recognizer, root, table)] == [one.key for one in every[3:5]]
    table.write_text("id,session\n../../etc,passwd\n")
    with pytest.raises(InputError, match=r"some.csv: row 2: id: '../../etc' is not a plain name"):
        list_prepared_sessions(recognizer, root, table)
    shutil.rmtree(root / "data")
    with pytest.raises(InputError, match=r"neither labels\.csv nor data/ID/SESSION"):
        list_prepared_sessions(recognizer, root)


def test_captures_give_the_predictions_of_the_prepared_maps(recognizer: Recognizer, prepared: Path, captures: Path) -> None:
    from_maps = predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared), 64)
    from_captures = predict_sessions(recognizer, list_capture_sessions(recognizer, captures), 64)
    assert from_captures.failures == []
    assert sorted(from_captures.keys) == sorted(from_maps.keys)
    place = {key: row for row, key in enumerate(from_maps.keys)}
    rows = [place[key] for key in from_captures.keys]
    assert np.allclose(from_captures.predictions.embeddings, from_maps.predictions.embeddings[rows], rtol=1e-4, atol=1e-5)


def test_an_unusable_capture_is_listed_and_a_missing_one_is_rejected(
    recognizer: Recognizer, captures: Path, tmp_path: Path
) -> None:
    root = tmp_path / "captures"
    shutil.copytree(captures, root)
    lights = sorted(root.rglob("lights.csv"))
    lights[0].write_text("image,azimuth_deg,elevation_deg\nim9.png,0,0\n")
    found = predict_sessions(recognizer, list_capture_sessions(recognizer, root), 8)
    (failure,) = found.failures
    assert (failure.id, failure.session) == lights[0].parent.parts[-2:]
    table = tmp_path / "some.csv"
    table.write_text("id,session\nunknown,s1\n")
    with pytest.raises(InputError, match="row of unknown/s1 has no capture"):
        list_capture_sessions(recognizer, root, table)


def test_captures_of_another_prepare_format_get_one_warning(
    recognizer: Recognizer, older: Recognizer, captures: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sorted(captures.glob("*/*"))[0]
    (tmp_path / first.parent.name).mkdir()
    (tmp_path / first.parent.name / first.name).symlink_to(first)
    nothing = {"labels": None, "prior": None, "batch": 8, "layout": "auto"}
    for one, source, expected in (
        (older, {"captures": str(tmp_path), "data": None}, 1),
        (recognizer, {"captures": str(tmp_path), "data": None}, 0),
        (older, {"captures": None, "data": str(prepared)}, 0),
    ):
        _infer(Namespace(**source, **nothing), one, "predict")
        captured = capsys.readouterr()
        assert (captured.out + captured.err).count(f"captures are solved with format {FORMAT}") == expected


def test_captures_unlike_those_of_the_training_get_one_warning(
    recognizer: Recognizer, captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, folder in enumerate(sorted(captures.glob("S000/*"))):
        shutil.copytree(folder, tmp_path / "S000" / folder.name)
        if number:  # a different mean light
            rows = [row.split(",") for row in (folder / "lights.csv").read_text().splitlines()]
            turned = [[name, azimuth, f"{float(elevation) + 25}"] for name, azimuth, elevation in rows[1:]]
            text = "\n".join(map(",".join, [rows[0], *turned]))
            (tmp_path / "S000" / folder.name / "lights.csv").write_text(text)
    _infer(Namespace(captures=str(tmp_path), data=None, labels=None, prior=None, batch=2, layout="auto"), recognizer, "predict")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert "3 of 4 captures are unlike those of the training data, e.g. S000/s01: mean light direction 28 degrees" in line
    with pytest.warns(UserWarning, match="1 of 1 captures are unlike those of the training data, e.g. .*S000/s01: "):
        recognizer.capture_to_maps(tmp_path / "S000/s01")
    unknown = copy.copy(recognizer)
    unknown.info = replace(recognizer.info, acquisition=None)
    assert predict_sessions(unknown, list_capture_sessions(unknown, tmp_path), 8).warning is None


def test_every_layout_of_captures_gives_the_predictions_of_the_plain_one(
    recognizer: Recognizer, captures: Path, tmp_path: Path
) -> None:
    """Also one folder of a single session, and lights above many sessions."""
    expected = predict_sessions(recognizer, list_capture_sessions(recognizer, captures), 64)
    for layout in ("diligent", "lp"):
        write_synthetic_captures(tmp_path / layout, people=6, sessions=4, seed=0, size=48, layout=layout)
    for mask in tmp_path.rglob("mask.png"):
        mask.unlink()
    for layout in ("diligent", "lp"):
        found = predict_sessions(recognizer, list_capture_sessions(recognizer, tmp_path / layout / "captures"), 64)
        assert (found.keys, found.failures, found.warning) == (expected.keys, [], None)
        assert np.allclose(found.predictions.embeddings, expected.predictions.embeddings, rtol=1e-3, atol=1e-3)
    single = tmp_path / "diligent/captures/S002/s01"
    found = predict_sessions(recognizer, list_capture_sessions(recognizer, single), 64)
    assert found.keys == [("s01", "0")]
    row = expected.keys.index(("S002", "s01"))
    assert np.allclose(found.predictions.embeddings[0], expected.predictions.embeddings[row], rtol=1e-3, atol=1e-3)
    shared = tmp_path / "lp/captures"
    maps = recognizer.capture_to_maps(shared / "S002/s01", captures=shared)
    assert np.allclose(recognizer.embed(maps)[0], expected.predictions.embeddings[row], rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="no file of lights"):
        recognizer.capture_to_maps(shared / "S002/s01")


def test_a_given_layout_is_the_only_one_that_is_read(recognizer: Recognizer, captures: Path) -> None:
    found = list_capture_sessions(recognizer, captures, layout="lp")
    with pytest.raises(InputError, match="expected that of --layout lp"):
        predict_sessions(recognizer, found, 8)


def test_normals_with_wrong_axes_get_a_warning(recognizer: Recognizer, prepared: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(prepared, root)
    for path in root.glob("data/*/*/normal.npy"):
        np.save(path, np.load(path)[..., ::-1])
    assert "n_z seems to be in the first channel" in str(
        predict_sessions(recognizer, list_prepared_sessions(recognizer, root), 8).warning
    )
    assert predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared), 8).warning is None
