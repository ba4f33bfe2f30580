"""Shards: a fair split, and a merge that names what is missing or does not belong together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.errors import InputError
from fr_ps.shards import (
    Shard,
    check_all_done,
    check_same_job,
    check_startable,
    digest,
    find_shard_files,
    parse_shard,
    parse_shard_flags,
    remove_shard_files,
    shard_file,
)
from tests.conftest import AssertRejected


@given(items=st.lists(st.integers(), unique=True), count=st.integers(1, 40))
def test_every_item_is_in_exactly_one_shard_and_sizes_differ_by_one_at_most(items: list[int], count: int) -> None:
    parts = [Shard(index, count).select(items) for index in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == sorted(items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:
        assert part == [item for item in items if item in set(part)]


@given(count=st.integers(1, 100_000), data=st.data())
def test_a_shard_is_read_back_from_its_text(count: int, data: st.DataObject) -> None:
    shard = Shard(data.draw(st.integers(1, count)), count)
    assert parse_shard(str(shard)) == shard


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/b", "1/0", "", "3", "1/2/3", "-1/4", "1.0/4", "1/1000000", "٣/٤", "9" * 5000])
def test_a_bad_shard_is_rejected(text: str, rejected: AssertRejected) -> None:
    with rejected(f"--shard {text[:5]}", "expected I/N with I from 1 to N"):
        parse_shard(text)


def test_a_shard_and_a_merge_exclude_each_other(rejected: AssertRejected) -> None:
    with rejected("--shard and --merge"):
        parse_shard_flags("1/2", merge=True)
    assert parse_shard_flags(None, merge=True) is None


def test_missing_and_unfinished_shards_are_listed(tmp_path: Path, rejected: AssertRejected) -> None:
    every = [Shard(index, 9) for index in range(1, 10)]
    check_all_done(tmp_path, every, every)
    started = [shard for shard in every if shard.index not in (2, 5, 6, 7)]
    with rejected("shards 2, 5-7, 9 of 9 missing (started, but not finished: 9)", "run --shard 2/9 etc."):
        check_all_done(tmp_path, started, started[:-1])
    with rejected("shard 1 of 9 missing", "run --shard 1/9 first"):
        check_all_done(tmp_path, every[1:], every[1:])
    with rejected("no shards to merge"):
        check_all_done(tmp_path, [], [])
    with rejected("shards of 4, but here they are of 9"):
        check_all_done(tmp_path, [*every, Shard(1, 4)], every)


def test_the_setting_that_differs_is_named(tmp_path: Path, rejected: AssertRejected) -> None:
    job = {"size": 112, "labels": digest(["a"])}
    check_same_job(tmp_path / "1-of-2.json", job, job)
    with rejected("1-of-2.json: that shard has size 96, but here it is 112"):
        check_same_job(tmp_path / "1-of-2.json", job | {"size": 96}, job)
    with rejected("that shard has other labels;"):
        check_same_job(tmp_path / "1-of-2.json", job | {"labels": digest(["b"])}, job)


def test_a_shard_of_another_number_does_not_start(tmp_path: Path, rejected: AssertRejected) -> None:
    files = {Shard(1, 4): shard_file(tmp_path, Shard(1, 4), ".json")}
    check_startable(files, Shard(2, 4), {"size": 8}, lambda _: {"size": 8})
    with rejected("shards of 4, but here they are of 5"):
        check_startable(files, Shard(1, 5), {"size": 8}, lambda _: {"size": 8})


def test_files_are_found_and_removed_but_foreign_ones_are_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "out.shards"
    assert find_shard_files(folder, ".json") == {}
    folder.mkdir()
    files = {Shard(index, 12): shard_file(folder, Shard(index, 12), ".json") for index in (10, 9)}
    for file in [*files.values(), folder / ".partial-0123abcd-9-of-12.json"]:
        file.touch()
    assert list(find_shard_files(folder, ".json").items()) == sorted(files.items())
    (folder / "notes.json").touch()
    with pytest.raises(InputError, match=r"notes\.json: not the file of a shard; move it away"):
        find_shard_files(folder, ".json")
    remove_shard_files(folder)
    assert list(tmp_path.iterdir()) == []
