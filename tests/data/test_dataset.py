"""Opening a prepared data set."""

import shutil

from fr_ps.data.dataset import open_dataset


def test_a_folder_that_is_no_finished_data_set_is_refused(prepared, tmp_path, refused):
    with refused(tmp_path / "nowhere", "prepare"):
        open_dataset(tmp_path / "nowhere", ["albedo"])
    root = shutil.copytree(prepared, tmp_path / "set")
    (root / "labels.csv").unlink()
    with refused(root / "labels.csv", "prepare"):
        open_dataset(root, ["albedo"])


def test_sessions_without_a_row_are_reported_and_not_read(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join(lines[:-2]) + "\n")
    dataset = open_dataset(root, ["depth"])
    assert len(dataset.labels) == len(dataset.store.maps["depth"]) == 22
    assert len(dataset.ignored) == 2
