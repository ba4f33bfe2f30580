"""Shards of `prepare` merge into the data set of a run without shards, whatever fails in between."""

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fr_ps.config import PrepareConfig
from fr_ps.data.prepare import prepare
from fr_ps.data.prepare_shards import SHARDS_FOLDER, merge_prepared, prepare_shard
from fr_ps.errors import InputError
from fr_ps.shards import Shard
from fr_ps.synthetic.captures import write_synthetic_captures
from tests.conftest import AssertRejected, Command


def config(raw: Path, out: Path, **settings: Any) -> PrepareConfig:
    chosen = {"captures": str(raw / "captures"), "labels": str(raw / "labels.csv"), "out": str(out), "size": 32} | settings
    return PrepareConfig(**chosen)


def content(out: Path) -> dict[str, bytes]:
    """Every file of a data set, but the lock."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}


def spoil(raw: Path) -> None:
    """A picture that cannot be read, a row without a capture, and a capture without a row."""
    (raw / "captures/S001/s01/im2.png").write_bytes(b"no picture")
    shutil.rmtree(raw / "captures/S002/s02")
    lines = (raw / "labels.csv").read_text().splitlines()
    (raw / "labels.csv").write_text("\n".join(line for line in lines if not line.startswith("S000,s00")))


@pytest.mark.parametrize("count", [1, 4, 20])
def test_shards_in_any_order_merge_into_the_bytes_of_one_run(raw: Path, tmp_path: Path, count: int) -> None:
    expected = prepare(config(raw, tmp_path / "whole"))
    settings = config(raw, tmp_path / "out")
    results = [prepare_shard(settings, Shard(index, count)) for index in range(count, 0, -1)]
    assert sorted(len(part) for part in results) == sorted(
        len(Shard(index, count).select(expected)) for index in range(1, count + 1)
    )
    assert not (tmp_path / "out/labels.csv").exists()
    assert merge_prepared(settings) == expected
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_bad_sessions_merge_into_the_list_of_one_run(raw: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    spoil(raw)
    expected = prepare(config(raw, tmp_path / "whole", on_bad="skip"))
    assert sum(result.status == "skipped" for result in expected) == 3
    settings = config(raw, tmp_path / "out", on_bad="skip")
    for index in (1, 2, 3):
        prepare_shard(settings, Shard(index, 3))
    shutil.copytree(tmp_path / "out", tmp_path / "again")
    assert merge_prepared(settings) == expected
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    shutil.copytree(raw / "captures/S002/s01", raw / "captures/S002/s02")
    shutil.copytree(raw / "captures/S000/s00", raw / "captures/S000/s09")
    with rejected("other captures"):
        merge_prepared(config(raw, tmp_path / "again", on_bad="skip"))


@pytest.mark.parametrize("skipping", [False, True])
def test_without_a_table_the_labels_of_the_captures_are_merged(tmp_path: Path, skipping: bool) -> None:
    heads = tmp_path / "heads"
    write_synthetic_captures(heads, people=3, sessions=2, seed=0, size=48, layout="photoface")
    sessions = sorted(path.parent for path in heads.rglob("metadataII.txt"))
    (sessions[1] / "metadataII.txt").unlink()  # a session without labels among others
    if skipping:
        (sessions[2] / "metadataII.txt").write_text("no attributes")
    settings = {"captures": str(heads), "size": 32, "on_bad": "skip" if skipping else "fail"}
    expected = prepare(PrepareConfig(out=str(tmp_path / "whole"), **settings))
    sharded = PrepareConfig(out=str(tmp_path / "out"), **settings)
    for index in (2, 3, 1, 4):
        prepare_shard(sharded, Shard(index, 4))
    assert merge_prepared(sharded) == expected
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_failed_shard_is_run_again_alone(raw: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    expected = prepare(config(raw, tmp_path / "whole"))
    settings = config(raw, tmp_path / "out")
    bad = raw / "captures/S001/s01/im2.png"  # the fifth session: the second of shard 1/4
    picture, state = bad.read_bytes(), bad.stat()
    bad.write_bytes(b"no picture")
    with rejected("S001/s01"):
        prepare_shard(settings, Shard(1, 4))
    for index in (2, 3):
        prepare_shard(settings, Shard(index, 4))
    with rejected("shards 1, 4 of 4 missing (started, but not finished: 1)"):
        merge_prepared(settings)
    killed = tmp_path / "out/data/S001/.partial-0123abcd-s01"
    killed.mkdir()
    (killed / "albedo.npy").touch()
    bad.write_bytes(picture)
    restore_times(bad, state)
    again = prepare_shard(settings, Shard(1, 4))
    assert [result.status for result in again] == ["written"] * 3
    prepare_shard(settings, Shard(4, 4))
    prepare_shard(settings, Shard(2, 4))  # needlessly
    assert merge_prepared(settings) == expected
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def restore_times(path: Path, state: Any) -> None:
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_sessions_of_an_earlier_run_are_kept_as_in_one_run(raw: Path, tmp_path: Path) -> None:
    for name in ("whole", "out"):
        prepare(config(raw, tmp_path / name))
    shutil.copy(raw / "captures/S000/s00/im0.png", raw / "captures/S001/s01/im0.png")
    expected = prepare(config(raw, tmp_path / "whole"))
    assert sorted(result.status for result in expected) == ["kept"] * 8 + ["written"]
    for index in (1, 2):
        prepare_shard(config(raw, tmp_path / "out"), Shard(index, 2))
    assert merge_prepared(config(raw, tmp_path / "out")) == expected
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_shards_at_the_same_time_share_a_folder(raw: Path, tmp_path: Path) -> None:
    expected = prepare(config(raw, tmp_path / "whole"))
    settings = config(raw, tmp_path / "out")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda index: prepare_shard(settings, Shard(index, 3)), (1, 2, 3)))
    assert merge_prepared(settings) == expected
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"size": 24}, "size 32, but here it is 24"),
        ({"solver": "least_squares"}, "solver robust, but here it is least_squares"),
        ({"labels": None}, "other labels"),
    ],
)
def test_shards_of_other_settings_are_rejected(
    raw: Path, tmp_path: Path, changed: dict[str, Any], words: str, rejected: AssertRejected
) -> None:
    prepare_shard(config(raw, tmp_path / "out"), Shard(1, 2))
    before = content(tmp_path / "out")
    other = config(raw, tmp_path / "out", **changed)
    with rejected("1-of-2.json", words):
        prepare_shard(other, Shard(2, 2))
    with rejected("1-of-2.json", words):
        merge_prepared(other)
    with rejected("shards of 2, but here they are of 3"):
        prepare_shard(config(raw, tmp_path / "out"), Shard(3, 3))
    assert content(tmp_path / "out") == before


def test_a_session_that_changed_after_its_shard_is_named(raw: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    settings = config(raw, tmp_path / "out")
    for index in (1, 2):
        prepare_shard(settings, Shard(index, 2))
    (tmp_path / "out/data/S000/s01/depth.npy").unlink()
    with rejected("S000/s01: incomplete", "run --shard 2/2 again"):
        merge_prepared(settings)
    assert not (tmp_path / "out/labels.csv").exists()
    prepare_shard(settings, Shard(2, 2))
    merge_prepared(settings)
    assert (tmp_path / "out/labels.csv").exists()
    assert not (tmp_path / "out" / SHARDS_FOLDER).exists()
    with rejected("no shards to merge"):
        merge_prepared(settings)


def test_a_skipped_session_needs_the_flag_in_the_merge_too(raw: Path, tmp_path: Path, rejected: AssertRejected) -> None:
    (raw / "captures/S001/s01/im2.png").write_bytes(b"no picture")
    prepare_shard(config(raw, tmp_path / "out", on_bad="skip"), Shard(1, 1))
    with rejected("session S001/s01", "--on-bad skip"):
        merge_prepared(config(raw, tmp_path / "out"))
    assert len(merge_prepared(config(raw, tmp_path / "out", on_bad="skip"))) == 9


@pytest.mark.parametrize("damage", ["{", '{"job": {}}', json.dumps({"job": {}, "done": True, "kept": [["a"]], "skipped": []})])
def test_a_damaged_record_is_named(raw: Path, tmp_path: Path, damage: str) -> None:
    settings = config(raw, tmp_path / "out")
    prepare_shard(settings, Shard(1, 1))
    (tmp_path / "out" / SHARDS_FOLDER / "1-of-1.json").write_text(damage)
    with pytest.raises(InputError, match=r"1-of-1\.json: .*; remove it, and run that shard again"):
        merge_prepared(settings)


def test_the_command_prepares_shards_and_merges_them(
    raw: Path, tmp_path: Path, run_command: Command, command_error: Command
) -> None:
    folders = ["--captures", raw / "captures", "--labels", raw / "labels.csv", "--out", tmp_path / "out"]
    command = ["prepare", *folders, "--size", "32"]
    output = run_command(*command, "--shard", "1/2")
    assert re.search(r"written +5", output)
    assert "shard 1/2 of" in output
    assert "shard 2 of 2 missing" in command_error(*command, "--merge")
    run_command(*command, "--shard=2/2")
    assert f"prepared data set: {tmp_path / 'out'}" in run_command(*command, "--merge")
    for bad in ("0/4", "5/4", "a/b", "1/0"):
        assert f"--shard {bad}: expected I/N" in command_error(*command, "--shard", bad)
    assert "--shard and --merge" in command_error(*command, "--shard", "1/2", "--merge")
