"""Every bad file is listed, and nothing else."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np

from fr_ps.data.check import check_maps
from fr_ps.data.labels import read_labels
from tests.test_npy import BAD_HEADERS, forged


def found(root):
    done = []
    result = check_maps(root, read_labels(root / "labels.csv"), done.append)
    return result, {str(path.relative_to(root / "data")): reason for path, reason in result.bad}, sum(done)


def test_a_valid_data_set_has_no_bad_file_and_is_only_read(prepared):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    result, bad, done = found(prepared)
    assert (result.files, result.modalities, bad, done) == (72, ["albedo", "normal", "depth"], {}, 24)
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*")} == before


def test_every_bad_file_is_listed_with_its_reason(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    data = root / "data"
    (data / "S000/s01/depth.npy").unlink()
    whole = (data / "S001/s00/albedo.npy").read_bytes()
    (data / "S001/s00/albedo.npy").write_bytes(whole[: len(whole) // 2])
    (data / "S001/s01/albedo.npy").write_bytes(b"")
    np.save(data / "S002/s00/depth.npy", np.full((48, 48), np.nan, dtype=np.float32))
    np.save(data / "S002/s01/albedo.npy", np.arange(48 * 48 * 3, dtype=np.float32).reshape(48, 48, 3))
    np.save(data / "S003/s00/albedo.npy", np.full((48, 48), None), allow_pickle=True)
    np.save(data / "S003/s01/normal.npy", np.full((48, 48, 3), 90, dtype=np.float32))
    np.save(data / "S004/s00/depth.npy", np.ones((40, 40), dtype=np.float32))
    np.save(data / "S004/s01/depth.npy", np.ones((48, 40), dtype=np.float32))
    result, bad, done = found(root)
    words = {
        "S000/s01/depth.npy": "no such file",
        "S001/s00/albedo.npy": "not a readable .npy",
        "S001/s01/albedo.npy": "not a readable .npy",
        "S002/s00/depth.npy": "NaN",
        "S002/s01/albedo.npy": "48 x 48 x 3",
        "S003/s00/albedo.npy": "Python objects",
        "S003/s01/normal.npy": "unit vectors",
        "S004/s00/depth.npy": "40 x 40, but most maps are 48 x 48",
        "S004/s01/depth.npy": "40 x 48; maps must be square",
    }
    assert list(bad) == list(words)  # in the order of the table
    for name, word in words.items():
        assert word in bad[name]
        assert str(root) not in bad[name]
    assert (result.files, done) == (72, 24)


def test_an_inaccessible_session_is_listed_and_the_others_are_read(prepared, tmp_path, monkeypatch):
    root = shutil.copytree(prepared, tmp_path / "set")
    long = "x" * 300  # longer than any file system's names
    with (root / "labels.csv").open("a") as file:
        file.write(f"S000,{long}" + "," * (len((root / "labels.csv").read_text().splitlines()[0].split(",")) - 2) + "\n")
    is_file = Path.is_file

    def closed(path: Path) -> bool:
        if path.parent == root / "data/S001/s02":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", closed)
    result, bad, done = found(root)
    assert list(bad) == [f"{key}/{name}.npy" for key in ("S001/s02", f"S000/{long}") for name in ("albedo", "normal", "depth")]
    assert "unreadable (Permission denied)" in bad["S001/s02/depth.npy"]
    assert "unreadable (File name too long)" in bad[f"S000/{long}/albedo.npy"]
    assert (result.files, done) == (75, 25)


def test_stored_pictures_that_a_training_would_reject_are_listed(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    np.save(root / "data/S000/s00/pictures.npy", np.ones((3, 48, 48), dtype=np.float16))
    np.save(root / "data/S000/s01/pictures.npy", np.ones((4, 40, 40), dtype=np.float16))
    np.save(root / "data/S000/s01/confidence.npy", np.ones((40, 40), dtype=np.float32))
    (root / "data/S001/s00/pictures.npy").unlink()
    result, bad, _ = found(root)
    assert result.files == 72
    assert "float16 of shape 3 x 48 x 48 does not fit" in bad.pop("S000/s00/pictures.npy")
    assert bad == {"S000/s01/pictures.npy": "40 x 40, but most maps are 48 x 48"}


def test_a_modality_without_any_map_is_not_reported(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    for path in root.glob("data/*/*/depth.npy"):
        path.unlink()
    for path in root.glob("data/*/*/normal.npy"):
        path.rename(path.with_name("normal_map_new_crop.exr.npy"))
    result, bad, _ = found(root)
    assert (result.files, result.modalities, bad) == (48, ["albedo", "normal"], {})


def test_a_table_without_any_map_is_all_bad(prepared, tmp_path):
    shutil.copy(prepared / "labels.csv", tmp_path / "labels.csv")
    result, bad, _ = found(tmp_path)
    assert len(bad) == result.files == 72


def test_encoded_normals_are_bad_files_and_wrong_axes_a_warning(prepared, tmp_path):
    for change in ("encoded", "bgr"):
        root = shutil.copytree(prepared, tmp_path / change)
        for path in root.glob("data/*/*/normal.npy"):
            normal = np.load(path)
            np.save(path, (normal + 1) / 2 if change == "encoded" else normal[..., ::-1])
        result, bad, _ = found(root)
        if change == "encoded":
            assert len(bad) == 24
            assert all("store 2 m - 1" in reason for reason in bad.values())
        else:
            assert bad == {}
            assert "n_z seems to be in the first channel" in result.warning
    assert found(prepared)[0].warning is None


def test_every_forged_header_and_every_fifo_is_listed(prepared, tmp_path):
    root = shutil.copytree(prepared, tmp_path / "set")
    paths = sorted(root.glob("data/*/*/albedo.npy"))[: len(BAD_HEADERS)]
    for path, header in zip(paths, BAD_HEADERS.values(), strict=True):
        path.write_bytes(forged(header))
    path = root / "data/S005/s03/depth.npy"
    path.unlink()
    os.mkfifo(path)
    _, bad, _ = found(root)
    assert len(bad) == len(BAD_HEADERS) + 1
    assert bad["S005/s03/depth.npy"] == "no such file"
