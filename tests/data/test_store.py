"""The packed store equals the files, is built once, and is rebuilt when files change."""

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fr_ps.cache import cache_folder
from fr_ps.data.labels import read_labels
from fr_ps.data.store import open_store


@pytest.fixture
def root(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FR_PS_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(prepared, tmp_path / "set")


def opened(root: Path, *modalities: str):
    done: list[int] = []
    store = open_store(root, read_labels(root / "labels.csv"), modalities or ("albedo",), done.append)
    return store, sum(done)


def packs() -> set[Path]:
    return {path for path in (cache_folder() / "packed").glob("*/*") if path.is_dir()}


def test_the_store_equals_the_files_bit_for_bit(root):
    labels = read_labels(root / "labels.csv")
    store, packed = opened(root, "albedo", "normal", "depth")
    assert packed == 3 * len(labels)
    assert store.map_size == 48
    rows = np.array([5, 0, 17, 5])
    read = store.read(rows)
    for place, row in enumerate(rows):
        folder = root / "data" / labels.ids[row] / labels.sessions[row]
        np.testing.assert_array_equal(read["albedo"][place, 0], np.load(folder / "albedo.npy"))
        np.testing.assert_array_equal(read["depth"][place, 0], np.load(folder / "depth.npy"))
        np.testing.assert_array_equal(read["normal"][place], np.load(folder / "normal.npy").transpose(2, 0, 1))
    assert all(isinstance(maps, np.memmap) for maps in store.maps.values())


def test_maps_are_packed_once_and_the_data_set_is_only_read(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    first, packed = opened(root)
    again, nothing = opened(root)
    assert (packed, nothing) == (24, 0)
    assert first.digest == again.digest
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def flip(path: Path, place: float) -> None:
    """Flip one bit at a relative position of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(bytes(content))


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")


def to_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


DAMAGES = {
    "emptied": lambda pack: os.truncate(pack / "albedo.npy", 0),
    "truncated in the header": lambda pack: os.truncate(pack / "albedo.npy", 40),
    "truncated in the maps": lambda pack: os.truncate(pack / "albedo.npy", 40_000),
    "truncated by a byte": lambda pack: os.truncate(pack / "albedo.npy", (pack / "albedo.npy").stat().st_size - 1),
    "grown": lambda pack: (pack / "albedo.npy").open("ab").write(b"x"),
    "a bit of the header": lambda pack: flip(pack / "albedo.npy", 0.0004),
    "no maps": lambda pack: (pack / "albedo.npy").unlink(),
    "a folder for the maps": lambda pack: to_folder(pack / "albedo.npy"),
    "a bit of the checksums": lambda pack: flip(pack / "crc32.npy", 0.9),
    "no checksums": lambda pack: (pack / "crc32.npy").unlink(),
    "no info": lambda pack: (pack / "info.json").unlink(),
    "info emptied": lambda pack: os.truncate(pack / "info.json", 0),
    "info cut": lambda pack: os.truncate(pack / "info.json", 30),
    "another digest": lambda pack: flip(pack / "info.json", 0.4),
    "info of another type": lambda pack: (pack / "info.json").write_text("[1]"),
    "info nested deep": lambda pack: (pack / "info.json").write_text("[" * 100_000),
    "info without a number": lambda pack: (pack / "info.json").write_text('{"digest": "x", "crc32": 1e400}'),
    "a folder for the info": lambda pack: to_folder(pack / "info.json"),
    "a file for the pack": to_file,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pack_is_never_used_and_packed_again(root, damage, capsys):
    first, _ = opened(root)
    before = np.array(first.maps["albedo"])
    (pack,) = packs()
    del first
    DAMAGES[damage](pack)
    again, packed = opened(root)
    assert packed == 24
    assert "is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(again.maps["albedo"], before)
    assert packs() == {pack}
    assert opened(root)[1] == 0
    assert capsys.readouterr().err == ""


def test_temporary_files_of_a_killed_packing_are_removed(root):
    opened(root)
    (pack,) = packs()
    (pack.parent / ".partial-1234-x").mkdir()
    (pack / "info.json").unlink()
    opened(root)
    assert packs() == {pack}


@pytest.mark.parametrize("place", [0.5, 1])
def test_a_damaged_map_is_read_from_its_file_and_packed_again_at_the_next_opening(root, place, capsys):
    store, _ = opened(root)
    rows = np.arange(24)
    before = store.read(rows)["albedo"]
    (pack,) = packs()
    status = (pack / "albedo.npy").stat()
    flip(pack / "albedo.npy", place)
    os.utime(pack / "albedo.npy", ns=(status.st_atime_ns, status.st_mtime_ns))  # as a disk damages a file
    damaged, packed = opened(root)
    assert packed == 0
    row = int(place * 23)
    np.testing.assert_array_equal(damaged.read(rows[rows != row])["albedo"], before[rows != row])
    assert capsys.readouterr().err == ""
    for _ in range(2):
        np.testing.assert_array_equal(damaged.read(rows)["albedo"], before)
    assert capsys.readouterr().err.count("is damaged") == 1
    assert opened(root)[1] == 24


def test_a_damaged_map_whose_file_changed_too_is_an_error(root, rejected):
    opened(root)
    (pack,) = packs()
    flip(pack / "albedo.npy", 1)
    store, _ = opened(root)
    labels = read_labels(root / "labels.csv")
    path = root / "data" / labels.ids[23] / labels.sessions[23] / "albedo.npy"
    np.save(path, np.load(path) + 1)
    with rejected(path, "changed since it was packed"):
        store.read(np.array([23]))
    assert opened(root)[1] == 24


def test_the_checksum_of_a_map_is_compared_once_per_opening(root, monkeypatch):
    store, _ = opened(root)
    compared: list[int] = []

    def count(content: np.ndarray) -> int:
        compared.append(1)
        return zlib.crc32(content)

    monkeypatch.setattr("fr_ps.data.pack.zlib", SimpleNamespace(crc32=count))
    for rows in ([3, 5], [5, 7], [3, 5, 7]):
        store.read(np.array(rows))
    assert len(compared) == 3


def test_relative_and_linked_roots_share_the_pack(root, monkeypatch, tmp_path):
    opened(root)
    monkeypatch.chdir(root.parent)
    assert opened(Path(root.name))[1] == 0
    (tmp_path / "link").symlink_to(root)
    assert opened(tmp_path / "link")[1] == 0
    monkeypatch.chdir(root)
    assert opened(Path())[1] == 0


def test_a_changed_map_is_packed_again_and_the_old_pack_is_removed(root):
    first, _ = opened(root)
    (old,) = packs()
    path = root / "data/S001/s01/albedo.npy"
    before = np.load(path)
    np.save(path, before + 1)
    second, packed = opened(root)
    (new,) = packs()
    assert packed == 24
    assert new != old
    assert first.digest != second.digest
    row = read_labels(root / "labels.csv").ids.tolist().index("S001") + 1
    np.testing.assert_array_equal(second.maps["albedo"][row, 0], np.load(path))
    np.testing.assert_array_equal(first.maps["albedo"][row, 0], before)  # a run that is under way keeps what it opened


def test_touching_a_file_packs_again_and_keeps_the_digest(root):
    first, _ = opened(root)
    os.utime(root / "data/S001/s01/albedo.npy", ns=(0, 0))
    second, packed = opened(root)
    assert packed == 24
    assert first.digest == second.digest


def test_other_labels_change_the_digest(root):
    first, _ = opened(root)
    text = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(text.replace(",yes,", ",no,", 1))
    assert opened(root)[0].digest != first.digest


def test_a_map_of_another_size_and_one_that_is_not_square_are_named(root, rejected):
    path = root / "data/S002/s00/albedo.npy"
    np.save(path, np.ones((40, 40), dtype=np.float32))
    with rejected(path, "40 x 40", "48 x 48"):
        opened(root)
    assert not packs()
    first = root / "data/S000/s00/albedo.npy"
    np.save(first, np.ones((40, 48), dtype=np.float32))
    with rejected(first, "48 x 40", "square"):
        opened(root)


@pytest.mark.slow
def test_two_processes_that_pack_at_once_both_succeed(root):
    code = "import sys\nfrom pathlib import Path\nfrom fr_ps.data.labels import read_labels\n"
    code += "from fr_ps.data.store import open_store\n"
    code += "root = Path(sys.argv[1]); print(open_store(root, read_labels(root / 'labels.csv'), ['normal', 'depth']).digest)"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = [worker.communicate(timeout=60) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1
