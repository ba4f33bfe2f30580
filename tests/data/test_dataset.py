"""Opening a prepared data set."""

import shutil

import numpy as np
import pytest

from fr_ps.config import DataConfig
from fr_ps.data.dataset import open_dataset, open_table


def test_an_unfinished_data_set_is_rejected(prepared, tmp_path, rejected):
    with rejected(tmp_path / "nowhere", "prepare"):
        open_dataset(tmp_path / "nowhere", ["albedo"])
    root = shutil.copytree(prepared, tmp_path / "set")
    (root / "labels.csv").unlink()
    with rejected(root / "labels.csv", "prepare"):
        open_dataset(root, ["albedo"])


def test_sessions_without_a_row_are_reported_and_not_read(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join(lines[:-2]) + "\n")
    dataset = open_dataset(root, ["depth"])
    assert len(dataset.labels) == len(dataset.store.maps["depth"]) == 22
    assert len(dataset.orphans) == 2
    assert dataset.notes == [f"ignored: 2 session folders without a row in the table, e.g. {dataset.orphans[0]}"]


def test_only_selected_sessions_are_opened_and_all_selections_share_one_pack(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("FR_PS_CACHE", str(tmp_path))
    whole = open_dataset(prepared, ["albedo"])
    packed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    some = open_dataset(prepared, ["albedo"], config=DataConfig(only={"session": ["s01", "s03"]}))
    assert set(some.labels.sessions.tolist()) == {"s01", "s03"}
    assert len(some.labels) == len(some.left_out) == 12
    assert {session for _, session in some.left_out} == {"s00", "s02"}
    assert some.notes == ["left out: 12 sessions: session is not s01 or s03 (data.only)"]
    assert some.orphans == []
    rows = np.array([11, 0, 4])
    folders = [prepared / "data" / some.labels.ids[row] / some.labels.sessions[row] for row in rows]
    for read, folder in zip(some.store.read(rows)["albedo"], folders):
        np.testing.assert_array_equal(read[0], np.load(folder / "albedo.npy"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == packed
    assert some.store.digest != whole.store.digest
    assert whole.left_out == whole.notes == []


def test_a_table_without_maps_opens_as_a_table_only(prepared, rejected):
    table = open_table(prepared / "labels.csv", config=DataConfig(limits={"Pose": 2}))
    np.testing.assert_array_equal(table.all_labels.columns["Pose"][table.selected], table.labels.columns["Pose"])
    assert (table.labels.columns["Pose"].astype(int) <= 2).all()
    with rejected(prepared / "labels.csv", "folder"):
        open_dataset(prepared / "labels.csv", ["albedo"])


@pytest.mark.parametrize("name", ["metadata.csv", "label_encoded_dataset.csv", "test_set.csv"])
def test_the_real_tables_open_without_maps(name, photoface_labels):
    table = open_table(photoface_labels / name)
    assert len(table.labels) == len(table.all_labels) == sum(1 for _ in (photoface_labels / name).open()) - 1


def test_a_data_set_with_mirrored_normals_is_opened_with_a_warning(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    for path in root.glob("data/*/*/normal.npy"):
        np.save(path, np.load(path) * np.array([1, -1, 1], dtype=np.float32))
    assert "mirrored in y; negate n_y" in open_dataset(root, ["albedo", "normal"]).notes[-1]
    assert open_dataset(root, ["albedo"]).notes == open_dataset(prepared, ["normal"]).notes == []
