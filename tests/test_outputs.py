"""Inputs and foreign files are protected from outputs; own files are replaced."""

import os
import shutil
from pathlib import Path

import pytest

from fr_ps.outputs import (
    check_contains_no_input,
    check_output_file,
    check_output_folder,
    check_outside,
    check_replaceable,
    is_output,
    write_output,
)


def is_ours(folder: Path) -> bool:
    return (folder / "ours").exists()


@pytest.mark.parametrize("link", ["itself", "relative", "symbolic", "hard", "through a folder"])
def test_an_output_that_is_an_input_is_rejected_even_to_be_overwritten(link, tmp_path, rejected, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "labels.csv"
    source.write_text("id\n")
    out = tmp_path / "out.csv"
    if link == "symbolic":
        out.symlink_to(source)
    elif link == "hard":
        os.link(source, out)
    elif link == "through a folder":
        (tmp_path / "link").symlink_to(tmp_path)
        out = tmp_path / "link/labels.csv"
    else:
        out = source if link == "itself" else Path("x/../labels.csv")
        (tmp_path / "x").mkdir()
    for overwrite in (False, True):
        with rejected(out, "the input --labels"):
            check_output_file(out, "kind", {"--labels": str(source), "--prior": None}, overwrite)


def test_only_unchanged_own_files_are_replaced(tmp_path, rejected):
    out = tmp_path / "out.csv"
    check_output_file(out, "split", {})
    write_output(out, "split", b"a\n")
    check_output_file(out, "split", {})
    with rejected(out, "another command of fr-ps wrote it", "--overwrite true"):
        check_output_file(out, "labels", {})
    out.write_bytes(b"a\nby hand\n")
    with rejected(out, "changed since", "--overwrite true"):
        check_output_file(out, "split", {})
    check_output_file(out, "split", {}, overwrite=True)
    out.write_bytes(b"")
    check_output_file(out, "split", {})


def test_a_file_without_a_record_is_foreign(tmp_path, rejected, monkeypatch):
    monkeypatch.setenv("FR_PS_CACHE", str(tmp_path / "cache"))
    write_output(tmp_path / "out.csv", "split", b"a\n")
    shutil.rmtree(tmp_path / "cache")
    with rejected("out.csv", "--overwrite true"):
        check_output_file(tmp_path / "out.csv", "split", {})


def test_a_file_is_an_output_of_its_kind_wherever_it_is(tmp_path):
    write_output(tmp_path / "a.png", "figure", b"picture")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    assert is_output(tmp_path / "b.png", "figure")
    assert not is_output(tmp_path / "b.png", "split")
    (tmp_path / "b.png").write_bytes(b"another")
    assert not is_output(tmp_path / "b.png", "figure")
    assert not is_output(tmp_path / "none.png", "figure")


def test_an_output_folder_in_an_input_is_rejected(tmp_path, rejected):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    for out in ("data", "data/a/b", "link", "link/a"):
        with rejected(tmp_path / out, "inside the input --captures"):
            check_outside(tmp_path / out, {"--captures": tmp_path / "data", "--labels": None})
    check_outside(tmp_path, {"--captures": tmp_path / "data"})
    check_outside(tmp_path / "data2", {"--captures": tmp_path / "data"})


def test_a_read_only_cache_does_not_prevent_output(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("FR_PS_CACHE", str(tmp_path / "cache"))
    write_output(tmp_path / "out.csv", "split", b"a\n")
    assert (tmp_path / "out.csv").read_bytes() == b"a\n"


def test_a_file_of_an_input_folder_is_never_replaced(tmp_path, rejected):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/labels.csv").write_text("id\n")
    with rejected("labels.csv", "a file of the input data.root"):
        check_output_file(tmp_path / "data/labels.csv", "split", {"data.root": tmp_path / "data"}, overwrite=True)
    check_output_file(tmp_path / "data/new.csv", "split", {"data.root": tmp_path / "data"})


def test_a_name_that_is_too_long_is_rejected_before_anything_is_computed(tmp_path, rejected):
    for name in ("a" * 255, "ä" * 127 + "a"):
        check_output_file(tmp_path / name, "split", {})
        write_output(tmp_path / name, "split", b"x")
        assert (tmp_path / name).read_bytes() == b"x"
    with rejected("cannot be written", "choose another"):
        check_output_file(tmp_path / ("a" * 256), "split", {})


def test_a_folder_and_a_link_to_nothing_are_no_files_to_replace(tmp_path, rejected):
    (tmp_path / "link").symlink_to("gone")
    for out in (tmp_path, tmp_path / "link"):
        with rejected(out, "not a file"):
            check_output_file(out, "split", {}, overwrite=True)


def test_a_folder_is_written_if_no_foreign_file_is_replaced(tmp_path, rejected):
    out, names = tmp_path / "out", ("metrics.json", "*.png")
    check_output_folder(out, {}, is_ours, names)
    out.mkdir()
    (out / "notes.txt").write_text("x")
    check_output_folder(out, {}, is_ours, names)
    (out / "roc.png").write_text("x")
    with rejected("roc.png", "--overwrite true"):
        check_output_folder(out, {}, is_ours, names)
    check_output_folder(out, {}, is_ours, names, overwrite=True)
    (out / "ours").touch()
    check_output_folder(out, {}, is_ours, names)
    with rejected("notes.txt", "not a folder"):
        check_output_folder(out / "notes.txt", {}, is_ours, names, overwrite=True)


def test_a_folder_that_is_or_contains_an_input_is_an_error(tmp_path, rejected):
    data = tmp_path / "a/data"
    data.mkdir(parents=True)
    pairs = tmp_path / "a/pairs.csv"
    pairs.write_text("x")
    for out in (data, tmp_path / "a", tmp_path):
        with rejected(out, "the input --data"):
            check_contains_no_input(out, {"--data": data})
    check_contains_no_input(data / "report", {"--data": data})
    check_contains_no_input(tmp_path / "a", {"--pairs": pairs}, ("metrics.json",))
    with rejected("contains the input --pairs"):
        check_contains_no_input(tmp_path / "a", {"--pairs": pairs}, ("*.csv",))


def test_a_folder_is_replaced_only_if_all_its_files_are_ours(tmp_path, rejected):
    folder = tmp_path / "s"
    check_replaceable(folder, "marker", ["a"])
    folder.mkdir()
    check_replaceable(folder, "marker", ["a"])
    (folder / "a").write_text("x")
    with rejected(folder, "no marker", "move it away"):
        check_replaceable(folder, "marker", ["a"])
    (folder / "marker").write_text("x")
    check_replaceable(folder, "marker", ["a"])
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a"):
        (folder / name).write_text("x")
    check_replaceable(folder, "marker", ["a"])
    (folder / "note").write_text("x")
    check_replaceable(folder, "marker", None)
    with rejected("note", "move it away"):
        check_replaceable(folder, "marker", ["a"])
    with rejected("note", "move it away"):
        check_replaceable(folder / "note", "marker", ["a"])
