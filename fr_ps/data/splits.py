"""The split into train, val, test and gallery parts: a pure function of the labels, the settings and a seed."""

from collections.abc import Collection, Iterator
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

    - subject_disjoint: all sessions of a subject are in one part.
    - session_disjoint: each subject with enough sessions is in all parts, with at least one session in the train part.
      Here `val_people` and `test_people` count sessions: a share of them, or a number per subject.

    Draws are stratified by the labels (see `stratify`) and independent of the order of the rows. If the files have no val
    part, it is drawn from the train part.

    Args:
        labels: the rows to split.
        config: the settings.
        left_out: (id, session) that the settings leave out of `labels`; the files may name them.

    Raises:
        InputError: fewer than two subjects are left to train on; the val or test part has no genuine pair (two sessions of a
            subject); no subject has enough sessions for the gallery and a genuine pair; files are unusable or violate the
            protocol.
    """
    split = _read_predefined_split(labels, config, left_out) if config.split else _draw_split(labels, config)
    if config.gallery and not len(split.gallery):
        split = _add_gallery(labels, split, config)
    if labels.count_subjects(split.train) < 2:
        test = f"data.test_people {config.test_people:g}"
        if config.folds or config.split:
            test = f"data.split {config.split}" if config.split else f"data.folds {config.folds}"
        raise InputError(
            f"{test} and data.val_people {config.val_people:g} leave fewer than two of {labels.count_subjects()} subjects to "
            "train on; change them"
        )
    for name, rows in (("val", split.val), ("test", split.test)):
        if len(rows):
            _check_genuine_pair(labels.subject_of[rows], f"the {name} part ({len(rows)} sessions)")
    return split


def _check_genuine_pair(subject_of: np.ndarray, name: str) -> None:
    """Reject rows without a genuine pair (two sessions of a subject), which verification requires."""
    if not _has_genuine_pair(subject_of):
        raise InputError(
            f"{name} has no genuine pair: no subject in it has two sessions; use more subjects or another data.split_seed"
        )


def _has_genuine_pair(subject_of: np.ndarray) -> bool:
    return len(np.unique(subject_of)) < len(subject_of)


def describe_split(labels: Labels, split: Split) -> list[str]:
    """Notes on the split: one for each class that a part lacks, one for test subjects that are not in the gallery, and one for
    rows in no part."""
    notes = []
    parts = {part: getattr(split, part) for part in PARTS if len(getattr(split, part))}
    for column, attribute in enumerate(ATTRIBUTES):
        for code, name in enumerate(labels.classes.get(attribute, ())):
            has = labels.codes[:, column] == code
            lacking = [part for part, rows in parts.items() if has.any() and not has[rows].any()]
            if lacking:
                notes.append(
                    f"not stratified: no session of {' and '.join(lacking)} has {attribute} {name} "
                    f"({_sessions_and_subjects(labels, np.flatnonzero(has))} have it)"
                )
    tested = np.unique(labels.subject_of[split.test])
    unenrolled = np.setdiff1d(tested, labels.subject_of[split.gallery])
    if len(split.gallery) and len(unenrolled):
        notes.append(f"not in the gallery: {len(unenrolled)} of {len(tested)} subjects of the test part")
    unused = np.setdiff1d(np.arange(len(labels)), np.concatenate([getattr(split, part) for part in PARTS]))
    if len(unused):
        notes.append(f"in no part: {_sessions_and_subjects(labels, unused)}")
    return notes


def _sessions_and_subjects(labels: Labels, rows: np.ndarray) -> str:
    return f"{len(rows)} sessions of {labels.count_subjects(rows)} subjects"


def _draw_split(labels: Labels, config: DataConfig) -> Split:
    order = labels.sorted_rows()
    draw = _split_by_subject if config.protocol == "subject_disjoint" else _split_by_session
    part = draw(labels.subject_of[order], labels.codes[order], config, np.random.default_rng(config.split_seed))
    return Split(*(np.sort(order[part == index]) for index in range(len(PARTS))))


def _read_predefined_split(labels: Labels, config: DataConfig, left_out: Collection[SessionKey]) -> Split:
    split = read_split(Path(config.split), labels, left_out)
    if not len(split.train):
        raise InputError(f"{config.split}: no session of the data is in the train part; name the split of this data set")
    if config.protocol == "subject_disjoint":
        _check_disjoint(labels, split, config.split)
    if len(split.val) or not config.val_people:
        return split
    inner = _draw_split(labels.subset(split.train), replace(config, split="", test_people=0, folds=0, fold=0))
    return replace(split, train=split.train[inner.train], val=split.train[inner.val])


def _check_disjoint(labels: Labels, split: Split, path: str) -> None:
    """Reject parts that share subjects. Only test (probes) and gallery may."""
    assigned: set[str] = set()
    for parts in (("train",), ("val",), ("test", "gallery")):
        subjects = {subject for part in parts for subject in labels.ids[getattr(split, part)].tolist()}
        shared = sorted(assigned & subjects)
        if shared:
            raise InputError(
                f"{path}: subject {shared[0]} of {' and '.join(parts)} is also in an earlier part ({len(shared)} such "
                "subjects), but data.protocol is subject_disjoint; set data.protocol=session_disjoint"
            )
        assigned |= subjects


def _add_gallery(labels: Labels, split: Split, config: DataConfig) -> Split:
    """Moves to the gallery `config.gallery` sessions of each test subject that has more than `config.gallery`."""
    order = labels.sorted_rows()
    order = order[np.isin(order, split.test)]
    subject_of, combined = labels.subject_of[order], combined_labels(labels.codes[order])
    rng = np.random.default_rng([config.split_seed, _GALLERY])
    allocator = SessionAllocator(2, np.bincount(combined, minlength=1))
    enrolled = np.zeros(len(order), dtype=bool)
    for subject_rows in _shuffled_subjects(subject_of, rng):
        rows = rng.permutation(subject_rows)
        if len(rows) > config.gallery:
            enrolled[rows] = _sample_sessions(allocator, combined[rows], config.gallery)
    if not enrolled.any():
        raise InputError(
            f"data.gallery is {config.gallery}, but no subject of the test part ({len(order)} sessions) has more sessions than "
            "that; lower it, or set 0 for none"
        )
    if _has_genuine_pair(subject_of) and not _has_genuine_pair(subject_of[~enrolled]):
        raise InputError(
            f"data.gallery is {config.gallery}, which leaves no subject of the test part "
            f"({_sessions_and_subjects(labels, order)}) two sessions to compare, because none has "
            f"{config.gallery + 2}; lower it, set 0 for none, or test on subjects with more sessions"
        )
    return replace(split, test=np.sort(order[~enrolled]), gallery=np.sort(order[enrolled]))


def _shuffled_subjects(subject_of: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The rows of one subject after another, in random order of the subjects; `subject_of` is sorted."""
    starts = np.flatnonzero(np.diff(subject_of, prepend=-1))
    ends = np.append(starts[1:], len(subject_of))
    for place in rng.permutation(len(starts)):
        yield np.arange(starts[place], ends[place])


def _split_by_subject(subject_of: np.ndarray, codes: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """(n,) the part of each row; `subject_of` is sorted, from 0 without gaps."""
    subjects = np.arange(subject_of[-1] + 1)
    counts = count_strata(codes, subject_of)
    part = np.full(len(subjects), _TRAIN)
    if config.folds:
        if config.folds > len(subjects):
            raise InputError(f"data.folds is {config.folds}, but there are {len(subjects)} subjects")
        sizes = [len(fold) for fold in np.array_split(subjects, config.folds)]
        part[allocate_subjects(counts, sizes, rng) == config.fold] = _TEST
    else:
        part[_sample_subjects(counts, _resolve_count(config.test_people, len(subjects), "data.test_people"), rng)] = _TEST
    rest = np.flatnonzero(part == _TRAIN)
    count = _resolve_count(config.val_people, len(subjects), "data.val_people")
    part[rest[_sample_subjects(counts[rest], min(count, len(rest)), rng)]] = _VAL
    return part[subject_of]


def _sample_subjects(counts: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(subjects,) bool, True for exactly `count` of them."""
    if count in (0, len(counts)):
        return np.full(len(counts), count > 0)
    return allocate_subjects(counts, [len(counts) - count, count], rng) == 1


def _split_by_session(subject_of: np.ndarray, codes: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """(n,) the part of each row; `subject_of` is sorted."""
    combined = combined_labels(codes)
    totals = np.bincount(combined)
    part = np.full(len(subject_of), _TRAIN)
    test_quota, val_quota = _SessionQuota(config.test_people), _SessionQuota(config.val_people)
    fold_allocator = SessionAllocator(max(config.folds, 1), totals)
    test_allocator, val_allocator = SessionAllocator(2, totals), SessionAllocator(2, totals)
    allocated = 0
    for subject_rows in _shuffled_subjects(subject_of, rng):
        rows = rng.permutation(subject_rows)
        limit = len(rows) - 1  # one session remains in the train part
        if config.folds:
            # Consecutive over all subjects, so that the sizes of folds differ by one session at most.
            slots = (allocated + np.arange(len(rows))) % config.folds
            allocated += len(rows)
            tested = rows[fold_allocator.allocate(combined[rows], slots) == config.fold][:limit]
        else:
            tested = rows[_sample_sessions(test_allocator, combined[rows], test_quota.next_count(len(rows), limit))]
        part[tested] = _TEST
        rest = rows[part[rows] == _TRAIN]
        num_val = val_quota.next_count(len(rows), limit - len(tested))
        part[rest[_sample_sessions(val_allocator, combined[rest], num_val)]] = _VAL
    return part


def _sample_sessions(allocator: SessionAllocator, combined: np.ndarray, count: int) -> np.ndarray:
    """(n,) bool, True for exactly `count` sessions of a subject."""
    return allocator.allocate(combined, (np.arange(len(combined)) < count) * 1) == 1


class _SessionQuota:
    """Decides, subject by subject, how many of its sessions go to one part.

    A small share of few sessions would round to 0 for each subject, so the remainder carries over to the next subject.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.remainder = 0.0

    def next_count(self, sessions: int, limit: int) -> int:
        if self.share >= 1:
            return min(int(self.share), limit)
        self.remainder += self.share * sessions
        count = min(int(self.remainder + 1e-9), limit)
        self.remainder -= count
        return count


def _resolve_count(share: float, subjects: int, setting: str) -> int:
    count = round(share * subjects) if share < 1 else int(share)
    if share > 0 and count == 0:
        raise InputError(f"{setting} is {share:g}, which is 0 of {subjects} subjects; raise it, or set 0 for none")
    if count >= subjects:
        raise InputError(f"{setting} is {share:g}, but there are {subjects} subjects in total; lower it")
    return count
