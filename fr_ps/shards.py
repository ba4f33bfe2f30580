"""Shards: the parts I/N of a list of work that independent processes do, and the files that they leave for a merge.

No locks, which shared file systems often lack: each shard writes only its own file, atomically, and reads those of the others.
The merge alone removes files.
"""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from fr_ps.errors import InputError
from fr_ps.files import TEMP_PREFIX, translate_write_errors

MAX_SHARDS = 100_000
T = TypeVar("T")
Setting = str | int | float | bool | None
Job = Mapping[str, Setting]
"""What all shards of one merge have in common, by the name for messages; `digest` of a long value."""

_DIGEST_PREFIX = "sha256:"
_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)
_FILE = re.compile(r"([1-9]\d{0,5})-of-([1-9]\d{0,5})", re.ASCII)


@dataclass(frozen=True, order=True)
class Shard:
    """Part `index` of `count`; the first is 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def select(self, items: Sequence[T]) -> list[T]:
        """The items of this shard: every `count`-th, in order.

        Each item is in exactly one shard, and the sizes differ by one at most. Neighbours, as the sessions of one subject,
        usually take equally long, and so go to different shards.
        """
        return list(items[self.index - 1 :: self.count])


def parse_shard(text: str) -> Shard:
    """The shard of a flag `--shard I/N`.

    Raises:
        InputError: not two whole numbers, or I is not from 1 to N.
    """
    found = _SHARD.fullmatch(text.strip())
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count <= MAX_SHARDS:
        raise InputError(f"--shard {text}: expected I/N with I from 1 to N, and N at most {MAX_SHARDS}, as 3/16")
    return Shard(index, count)


def parse_shard_flags(shard: str | None, merge: bool) -> Shard | None:
    """The shard of the flags `--shard` and `--merge`; None without `--shard`.

    Raises:
        InputError: both are given, or as `parse_shard`.
    """
    if shard is None:
        return None
    if merge:
        raise InputError("--shard and --merge: expected one of them; merge when all shards are done")
    return parse_shard(shard)


def shard_file(folder: Path, shard: Shard, suffix: str) -> Path:
    """The file that `shard` leaves in `folder`."""
    return folder / f"{shard.index}-of-{shard.count}{suffix}"


def find_shard_files(folder: Path, suffix: str) -> dict[Shard, Path]:
    """The files that shards left in `folder`, sorted; empty if there is no folder.

    Raises:
        InputError: the folder contains another file, which the merge would remove.
    """
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith("."):  # the temporary file of a killed shard, or of the system
            continue
        name = _FILE.fullmatch(path.name.removesuffix(suffix))
        if name is None or path.suffix != suffix:
            raise InputError(f"{path}: not the file of a shard; move it away")
        found[Shard(int(name[1]), int(name[2]))] = path
    return dict(sorted(found.items()))


def check_startable(files: Mapping[Shard, Path], shard: Shard, job: Job, read_job: Callable[[Path], Job]) -> None:
    """Check that `shard` fits to the earlier attempt of it and to one other shard; the merge looks at all of them.

    Args:
        files: of the shards that started, by `find_shard_files`.
        shard: the shard to start.
        job: its job.
        read_job: reads the job in a file.

    Raises:
        InputError: another shard is of another number, or has another job.
    """
    for other in {shard, next(iter(files), shard)} & files.keys():
        _check_count(files[other].parent, files, shard.count)
        check_same_job(files[other], read_job(files[other]), job)


def _check_count(folder: Path, found: Collection[Shard], count: int) -> None:
    if others := sorted({shard.count for shard in found} - {count}):
        raise InputError(
            f"{folder}: has shards of {others[0]}, but here they are of {count}; run all shards with one number, or remove "
            f"{folder} to start again"
        )


def check_all_done(folder: Path, found: Collection[Shard], done: Collection[Shard]) -> None:
    """Check that every shard is done.

    Args:
        folder: of the files of the shards.
        found: the shards that started.
        done: those that completed their work.

    Raises:
        InputError: lists the missing shards; or no shard started, or the shards have several counts.
    """
    if not found:
        raise InputError(f"{folder}: no shards to merge; run each part with --shard I/N first (a merge removes its shards)")
    count = max(shard.count for shard in found)
    _check_count(folder, found, count)
    missing = [index for index in range(1, count + 1) if Shard(index, count) not in done]
    if missing:
        what = f"shard{'s' * (len(missing) > 1)} {_ranges(missing)} of {count}"
        unfinished = [shard.index for shard in found if shard not in done]
        state = f" (started, but not finished: {_ranges(sorted(unfinished))})" if unfinished else ""
        raise InputError(f"{folder}: {what} missing{state}; run --shard {missing[0]}/{count}{' etc.' * (len(missing) > 1)} first")


def check_same_job(file: Path, theirs: Job, mine: Job) -> None:
    """Check that the shard that wrote `file` did a part of the same work.

    Args:
        file: of the other shard.
        theirs: its job.
        mine: the job of this process.

    Raises:
        InputError: names the first setting that differs.
    """
    for name in mine:
        if theirs.get(name) != mine[name]:
            raise InputError(
                f"{file}: that shard has {_difference(name, theirs.get(name), mine[name])}; run all shards and the merge with "
                f"the same settings and data, or remove {file.parent} to start again"
            )


def digest(value: object) -> str:
    """The digest of a value of JSON, for a `Job`."""
    return _DIGEST_PREFIX + hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _difference(name: str, theirs: Setting, mine: Setting) -> str:
    """A digest means nothing to the reader, and is left out."""
    if str(theirs).startswith(_DIGEST_PREFIX) or str(mine).startswith(_DIGEST_PREFIX):
        return f"other {name}"
    return f"{name} {theirs}, but here it is {mine}"


def remove_shard_files(folder: Path) -> None:
    """Remove the folder of the shards, at once, so that a killed merge leaves all of them or none."""
    with translate_write_errors(folder):
        removed = folder.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-old")
        folder.rename(removed)
        shutil.rmtree(removed)


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as text: `2, 5-7`."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
