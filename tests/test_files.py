"""Atomic writes and checked reads."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.files import atomic_folder, check_path_component, check_regular_file, open_regular, write_json, write_text
from fr_ps.npy import read_array, write_array


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a", {"x": float("nan")})

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    from fr_ps.files import write_atomic

    with pytest.raises(InputError, match="the disk is full"):
        write_atomic(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == {"a"}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fail() -> None:
        with atomic_folder(tmp_path / "x") as temporary:
            (temporary / "a").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == set()
    with atomic_folder(tmp_path / "x") as temporary:
        (temporary / "a").write_text("whole")
        assert not (tmp_path / "x").exists()
    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "x/a").read_text() == "whole"
    with atomic_folder(tmp_path / "x") as temporary:
        (temporary / "b").write_text("new")
    assert names(tmp_path / "x") == {"b"}
    assert names(tmp_path) == {"x"}


def test_a_disk_that_fills_up_during_a_write_is_an_error(small_disk, rejected):
    with rejected(small_disk / "a", "the disk is full"), atomic_folder(small_disk / "a") as folder:
        write_array(folder / "large.npy", np.zeros(100_000))
    with rejected(small_disk / "b", "the disk is full"):
        write_text(small_disk / "b", "x" * 1_000_000)
    assert names(small_disk) == set()


def test_json_and_arrays_are_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, None, "é"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, None, "é"]}
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    write_array(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("form", ["object array", "bare pickle", "zip archive", "truncated", "empty", "text"])
def test_a_file_that_is_not_a_plain_array_is_an_error_and_not_executed(form, tmp_path, rejected):
    path, trace = tmp_path / "a.npy", tmp_path / "trace"
    if form == "object array":
        np.save(path, np.array([Bomb(trace)], dtype=object), allow_pickle=True)
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(Bomb(trace)))
    elif form == "zip archive":
        np.savez(tmp_path / "a.npz", a=np.ones(3))
        (tmp_path / "a.npz").rename(path)
    elif form == "truncated":
        np.save(path, np.ones(100))
        path.write_bytes(path.read_bytes()[:-50])
    else:
        path.write_text("" if form == "empty" else "1 2 3\n")
    with rejected(path):
        read_array(path)
    assert not trace.exists()


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_a_file_that_is_not_regular_is_an_error_without_waiting(kind, tmp_path, rejected):
    path = tmp_path / "a.npy"
    {"fifo": lambda: os.mkfifo(path), "folder": path.mkdir, "device": lambda: path.symlink_to("/dev/zero")}[kind]()
    for read in (read_array, check_regular_file, open_regular):
        with rejected(path, "not a regular file"):
            read(path)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", ".hidden", "a\0b", "a\nb", "a\x7fb", "a\x9bb", "C:x"]
)
def test_names_that_leave_their_folder_are_rejected(name):
    with pytest.raises(InputError, match="row 3"):
        check_path_component(name, "t.csv: row 3")


@given(st.text(min_size=1, max_size=20))
def test_a_name_that_is_accepted_stays_in_its_folder(name):
    try:
        check_path_component(name, "x")
    except InputError:
        return
    assert (Path("/root") / name).parent == Path("/root")
    assert Path(name).name == name
