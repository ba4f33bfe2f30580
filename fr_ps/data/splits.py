"""Who is trained on, validated on and tested on: a pure function of the labels, the settings and a seed."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from fr_ps.config import DataConfig
from fr_ps.data.labels import ATTRIBUTES, Labels
from fr_ps.data.split_files import PARTS, Split, read_split
from fr_ps.data.stratify import SessionAllocator, allocate_subjects, combined_labels, count_strata
from fr_ps.errors import InputError
from fr_ps.tables import SessionKey

_TRAIN, _VAL, _TEST, _GALLERY = range(len(PARTS))


def make_split(labels: Labels, config: DataConfig, left_out: Collection[SessionKey] = ()) -> Split:
    """The parts: drawn by `config.protocol`, or read from the files at `config.split`.

    subject_disjoint: every person's sessions are in one part. session_disjoint: every person with sessions enough is
    in all parts, at least one session of each in training; shares count sessions, whole numbers sessions a person. The
    draws are stratified by the labels (see `stratify`), and the order of the rows has no influence. Of files without a val
    part, that is drawn from the train part.

    Args:
        labels: the rows to split.
        config: the settings.
        left_out: (id, session) that the data set has and `labels` lacks on purpose; files may name them.

    Raises:
        InputError: nobody is left to train on, a part that is scored has no genuine pair (two sessions of a person), nobody
            has sessions enough for a gallery or for it and a genuine pair, or files that cannot be used or break the protocol.
    """
    split = _read_predefined_split(labels, config, left_out) if config.split else _draw_split(labels, config)
    if config.gallery and not len(split.gallery):
        split = _add_gallery(labels, split, config)
    if len(np.unique(labels.ids[split.train])) < 2:
        raise InputError(
            f"data.val_people {config.val_people:g} and data.test_people {config.test_people:g} leave fewer than two of "
            f"{len(np.unique(labels.ids))} people to train on; lower them"
        )
    for name, rows in (("val", split.val), ("test", split.test)):
        if len(rows):
            check_genuine_pair(labels.ids[rows], f"the {name} part ({len(rows)} sessions)")
    return split


def check_genuine_pair(ids: np.ndarray, name: str) -> None:
    """Refuse rows among which nobody has two sessions: verification has nothing to accept there."""
    if not _has_genuine_pair(ids):
        raise InputError(
            f"{name} has no genuine pair: nobody in it has two sessions; take more people or another data.split_seed"
        )


def _has_genuine_pair(ids: np.ndarray) -> bool:
    return len(np.unique(ids)) < len(ids)


def describe_split(labels: Labels, split: Split) -> list[str]:
    """Where the parts could not be made to resemble the whole: a line for each class that the data have and a part lacks.

    Also how many people of the test part have no session in a gallery, and how many rows are in no part.
    """
    notes = []
    parts = {part: getattr(split, part) for part in PARTS if len(getattr(split, part))}
    for column, attribute in enumerate(ATTRIBUTES):
        for code, name in enumerate(labels.classes.get(attribute, ())):
            has = labels.codes[:, column] == code
            lacking = [part for part, rows in parts.items() if has.any() and not has[rows].any()]
            if lacking:
                notes.append(
                    f"not stratified: {attribute} {name} is in no session of {' and '.join(lacking)} "
                    f"({_sessions_and_subjects(labels, np.flatnonzero(has))} have it)"
                )
    tested = np.unique(labels.ids[split.test])
    unknown = np.setdiff1d(tested, labels.ids[split.gallery])
    if len(split.gallery) and len(unknown):
        notes.append(f"not in the gallery: {len(unknown)} of {len(tested)} people of the test part")
    unused = np.setdiff1d(np.arange(len(labels)), np.concatenate([getattr(split, part) for part in PARTS]))
    if len(unused):
        notes.append(f"in no part: {_sessions_and_subjects(labels, unused)}")
    return notes


def _sessions_and_subjects(labels: Labels, rows: np.ndarray) -> str:
    return f"{len(rows)} sessions of {len(np.unique(labels.ids[rows]))} people"


def _draw_split(labels: Labels, config: DataConfig) -> Split:
    order = labels.sorted_rows()
    draw = _split_by_subject if config.protocol == "subject_disjoint" else _split_by_session
    part = draw(labels.ids[order], labels.codes[order], config, np.random.default_rng(config.split_seed))
    return Split(*(np.sort(order[part == index]) for index in range(len(PARTS))))


def _read_predefined_split(labels: Labels, config: DataConfig, left_out: Collection[SessionKey]) -> Split:
    split = read_split(Path(config.split), labels, left_out)
    if not len(split.train):
        raise InputError(f"{config.split}: no session of the data is in the train part; give the split of these data")
    if config.protocol == "subject_disjoint":
        _check_disjoint(labels, split, config.split)
    if len(split.val) or not config.val_people:
        return split
    inner = _draw_split(labels.subset(split.train), replace(config, split="", test_people=0, folds=0, fold=0))
    return replace(split, train=split.train[inner.train], val=split.train[inner.val])


def _check_disjoint(labels: Labels, split: Split, path: str) -> None:
    """Test and gallery may share people, as they are enrolled in the one and recognised in the other."""
    known: set[str] = set()
    for parts in (("train",), ("val",), ("test", "gallery")):
        people = {person for part in parts for person in labels.ids[getattr(split, part)].tolist()}
        shared = sorted(known & people)
        if shared:
            raise InputError(
                f"{path}: person {shared[0]} of {' and '.join(parts)} is in an earlier part too ({len(shared)} such people), but "
                "data.protocol is subject_disjoint; set data.protocol=session_disjoint"
            )
        known |= people


def _add_gallery(labels: Labels, split: Split, config: DataConfig) -> Split:
    """Moves `config.gallery` sessions of each test person who has more than that to the gallery."""
    order = labels.sorted_rows()
    order = order[np.isin(order, split.test)]
    ids, combined = labels.ids[order], combined_labels(labels.codes[order])
    rng = np.random.default_rng([config.split_seed, _GALLERY])
    deal = SessionAllocator(2, np.bincount(combined, minlength=1))
    enrolled = np.zeros(len(order), dtype=bool)
    for person in rng.permutation(np.unique(ids)):
        rows = rng.permutation(np.flatnonzero(ids == person))
        if len(rows) > config.gallery:
            enrolled[rows] = deal.allocate(combined[rows], (np.arange(len(rows)) < config.gallery) * 1) == 1
    if not enrolled.any():
        raise InputError(
            f"data.gallery is {config.gallery}, but nobody of the test part ({len(order)} sessions) has more sessions than that; "
            "lower it, or 0 for none"
        )
    if _has_genuine_pair(ids) and not _has_genuine_pair(ids[~enrolled]):
        raise InputError(
            f"data.gallery is {config.gallery}, which leaves no subject of the test part "
            f"({_sessions_and_subjects(labels, order)}) two sessions to compare, as none has "
            f"{config.gallery + 2}; lower it, 0 for none, or test on subjects with more sessions"
        )
    return replace(split, test=np.sort(order[~enrolled]), gallery=np.sort(order[enrolled]))


def _split_by_subject(ids: np.ndarray, codes: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """(n,) the part of each row."""
    people, person_of = np.unique(ids, return_inverse=True)
    counts = count_strata(codes, person_of)
    part = np.full(len(people), _TRAIN)
    if config.folds:
        if config.folds > len(people):
            raise InputError(f"data.folds is {config.folds}, but there are {len(people)} people")
        sizes = [len(fold) for fold in np.array_split(people, config.folds)]
        part[allocate_subjects(counts, sizes, rng) == config.fold] = _TEST
    else:
        part[_sample_subjects(counts, _resolve_count(config.test_people, len(people), "data.test_people"), rng)] = _TEST
    rest = np.flatnonzero(part == _TRAIN)
    count = _resolve_count(config.val_people, len(people), "data.val_people")
    part[rest[_sample_subjects(counts[rest], min(count, len(rest)), rng)]] = _VAL
    return part[person_of]


def _sample_subjects(counts: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(people,) bool, True for exactly `count` of them."""
    if count in (0, len(counts)):
        return np.full(len(counts), count > 0)
    return allocate_subjects(counts, [len(counts) - count, count], rng) == 1


def _split_by_session(ids: np.ndarray, codes: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """(n,) the part of each row."""
    combined = combined_labels(codes)
    totals = np.bincount(combined)
    part = np.full(len(ids), _TRAIN)
    test, val = _SessionQuota(config.test_people), _SessionQuota(config.val_people)
    folds, tests, vals = SessionAllocator(max(config.folds, 1), totals), SessionAllocator(2, totals), SessionAllocator(2, totals)
    dealt = 0
    for person in rng.permutation(np.unique(ids)):
        rows = rng.permutation(np.flatnonzero(ids == person))
        most = len(rows) - 1
        if config.folds:
            # Dealt like cards, from person to person without a restart, so that folds differ by one session at most.
            seats = (dealt + np.arange(len(rows))) % config.folds
            dealt += len(rows)
            tested = rows[folds.allocate(combined[rows], seats) == config.fold][:most]
        else:
            tested = rows[_sample_sessions(tests, combined[rows], test.next_count(len(rows), most))]
        part[tested] = _TEST
        rest = rows[part[rows] == _TRAIN]
        validated = val.next_count(len(rows), most - len(tested))
        part[rest[_sample_sessions(vals, combined[rest], validated)]] = _VAL
    return part


def _sample_sessions(allocator: SessionAllocator, combined: np.ndarray, count: int) -> np.ndarray:
    """(n,) bool, True for exactly `count` sessions of a person."""
    return allocator.allocate(combined, (np.arange(len(combined)) < count) * 1) == 1


class _SessionQuota:
    """How many sessions each person gives to a part. A share of few sessions rounds to none for everybody, so what one
    person could not give is owed by the next."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.remainder = 0.0

    def next_count(self, sessions: int, limit: int) -> int:
        if self.share >= 1:
            return min(int(self.share), limit)
        self.remainder += self.share * sessions
        given = min(int(self.remainder + 1e-9), limit)
        self.remainder -= given
        return given


def _resolve_count(share: float, people: int, setting: str) -> int:
    count = round(share * people) if share < 1 else int(share)
    if share > 0 and count == 0:
        raise InputError(f"{setting} is {share:g}, which is nobody of {people} people; raise it, or set 0 for none")
    if count >= people:
        raise InputError(f"{setting} is {share:g}, but there are {people} people in all; lower it")
    return count
