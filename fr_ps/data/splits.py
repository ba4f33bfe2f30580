"""Who is trained on, validated on and tested on: a pure function of the labels, the settings and a seed."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fr_ps.config import DataConfig
from fr_ps.data.labels import Labels
from fr_ps.errors import InputError
from fr_ps.files import read_csv_rows, write_text

SPLIT_FILE = "split.csv"
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row indices of the labels table, sorted, in each part; a part may be empty."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def make_split(labels: Labels, config: DataConfig) -> Split:
    """Draw the parts by `config.protocol`.

    subject_disjoint: every person's sessions are in one part. session_disjoint: every person with sessions enough is
    in all parts, at least one session of each in training; shares count sessions, whole numbers sessions a person.

    Raises:
        InputError: nobody is left to train on, or a part that is scored has no genuine pair (two sessions of a person).
    """
    draw = _by_person if config.protocol == "subject_disjoint" else _by_session
    part = draw(labels.ids, config)
    split = Split(*(np.flatnonzero(part == index) for index in range(len(PARTS))))
    if len(np.unique(labels.ids[split.train])) < 2:
        raise InputError(
            f"data.val_people {config.val_people:g} and data.test_people {config.test_people:g} leave fewer than two of "
            f"{len(np.unique(labels.ids))} people to train on; lower them"
        )
    for name, rows in (("val", split.val), ("test", split.test)):
        if len(rows):
            check_genuine_pair(labels.ids[rows], f"the {name} part ({len(rows)} sessions)")
    return split


def check_genuine_pair(ids: np.ndarray, what: str) -> None:
    """Refuse rows among which nobody has two sessions: verification has nothing to accept there."""
    if len(np.unique(ids)) == len(ids):
        raise InputError(
            f"{what} has no genuine pair: nobody in it has two sessions; take more people or another data.split_seed"
        )


def write_split(path: Path, labels: Labels, split: Split) -> None:
    """Write the parts as a CSV of id, session, part."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "session", "part"])
    for part in PARTS:
        writer.writerows([labels.ids[row], labels.sessions[row], part] for row in getattr(split, part))
    write_text(path, text.getvalue())


def read_part(path: Path, part: str, labels: Labels) -> np.ndarray:
    """The rows of `labels` that the split file at `path` puts in `part`.

    Raises:
        InputError: the file cannot be read, nobody is in that part, or a session of it is not in the labels.
    """
    _, rows = read_csv_rows(path)
    index = {key: row for row, key in enumerate(zip(labels.ids.tolist(), labels.sessions.tolist()))}
    wanted = [(row["id"], row["session"]) for _, row in rows if row["part"] == part]
    if not wanted:
        raise InputError(f"{path}: nobody is in the part {part!r} of that run")
    absent = [key for key in wanted if key not in index]
    if absent:
        raise InputError(
            f"{path}: {'/'.join(absent[0])} is not in the data set ({len(absent)} such sessions); give the data of that run"
        )
    return np.array([index[key] for key in wanted])


def _by_person(ids: np.ndarray, config: DataConfig) -> np.ndarray:
    people = np.unique(ids)
    shuffled = np.random.default_rng(config.split_seed).permutation(people)
    if config.folds:
        if config.folds > len(people):
            raise InputError(f"data.folds is {config.folds}, but there are {len(people)} people")
        test = np.array_split(shuffled, config.folds)[config.fold]
    else:
        test = shuffled[: _count(config.test_people, len(people), "data.test_people")]
    rest = shuffled[~np.isin(shuffled, test)]
    val = rest[: _count(config.val_people, len(people), "data.val_people")]
    return np.isin(ids, val) * 1 + np.isin(ids, test) * 2


def _by_session(ids: np.ndarray, config: DataConfig) -> np.ndarray:
    rng = np.random.default_rng(config.split_seed)
    part = np.zeros(len(ids), dtype=int)
    test, val = _Quota(config.test_people), _Quota(config.val_people)
    dealt = 0
    for person in rng.permutation(np.unique(ids)):
        rows = rng.permutation(np.flatnonzero(ids == person))
        most = len(rows) - 1
        if config.folds:
            # Dealt like cards, from person to person without a restart, so that folds differ by one session at most.
            chosen = (dealt + np.arange(len(rows))) % config.folds == config.fold
            dealt += len(rows)
            rows = np.concatenate([rows[chosen], rows[~chosen]])
            tested = min(int(chosen.sum()), most)
        else:
            tested = test.take(len(rows), most)
        validated = val.take(len(rows), most - tested)
        part[rows[:tested]] = 2
        part[rows[tested : tested + validated]] = 1
    return part


class _Quota:
    """How many sessions each person gives to a part. A share of few sessions rounds to none for everybody, so what one
    person could not give is owed by the next."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.owed = 0.0

    def take(self, sessions: int, most: int) -> int:
        if self.share >= 1:
            return min(int(self.share), most)
        self.owed += self.share * sessions
        given = min(int(self.owed + 1e-9), most)
        self.owed -= given
        return given


def _count(share: float, people: int, key: str) -> int:
    count = round(share * people) if share < 1 else int(share)
    if share > 0 and count == 0:
        raise InputError(f"{key} is {share:g}, which is nobody of {people} people; raise it, or set 0 for none")
    if count >= people:
        raise InputError(f"{key} is {share:g}, but there are {people} people in all; lower it")
    return count
