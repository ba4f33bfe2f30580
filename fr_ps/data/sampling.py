"""Batch samplers: the batches of an epoch as pure functions of (seed, epoch)."""

import math
from collections import deque

import numpy as np

from fr_ps.data.labels import MISSING


def pk_batches(
    identities: np.ndarray, subjects_per_batch: int, sessions: int, seed: int, epoch: int, num_batches: int = 0
) -> list[np.ndarray]:
    """P x K batches of one epoch: each contains `sessions` (K) rows of each of `subjects_per_batch` (P) different subjects.

    Subjects are sampled round-robin, so each is seen equally often, whatever its number of sessions. The sessions of one subject
    are sampled round-robin too. A subject with fewer than K sessions repeats some in a batch. If a subject's number of sessions
    is not a multiple of K, a pass over its sessions can end, and the next begin, within a batch, which can then contain a session
    twice. With fewer than P subjects, a batch contains all of them.

    Args:
        identities: (n,) the subject of each row.
        subjects_per_batch: P.
        sessions: K.
        seed: of the run.
        epoch: from 0.
        num_batches: of the epoch; 0: ceil(rows / (P K)), about one pass over the rows.

    Returns:
        Index arrays into `identities`, each of min(P, number of subjects) x K rows, the rows of a subject side by side.
    """
    rng = np.random.default_rng([seed, epoch])
    _, subject_of = np.unique(identities, return_inverse=True)
    subjects_per_batch = min(subjects_per_batch, int(subject_of.max()) + 1)
    num_batches = num_batches or math.ceil(len(identities) / (subjects_per_batch * sessions))
    slots_per_group, group_of = np.full((num_batches, 1), subjects_per_batch), np.zeros_like(subject_of)  # one group of all rows
    return _fill_batches(slots_per_group, group_of, subject_of, sessions, rng)


def class_batches(
    identities: np.ndarray,
    classes: np.ndarray,
    subjects_per_batch: int,
    sessions: int,
    seed: int,
    epoch: int,
    num_batches: int = 0,
) -> list[np.ndarray]:
    """Class-balanced batches of one epoch. A batch has P slots, each with K rows of one subject. The classes get slots in turn.

    In each batch, the numbers of slots of any two classes differ by at most one, whatever the class frequencies. Within a class,
    subjects are sampled round-robin as in `pk_batches`, and a slot contains K sessions of one subject, all of that class. A
    subject with sessions of several classes takes part in each of them. A class with fewer subjects than slots in a batch
    repeats some of them.

    Rows without a label still train identity: they are one more group, whose share of the slots is its share of the rows.

    Args:
        identities: (n,) the subject of each row.
        classes: (n,) the class of each row; `MISSING` if unknown.
        subjects_per_batch: P.
        sessions: K.
        seed: of the run.
        epoch: from 0.
        num_batches: of the epoch; 0: ceil(rows / (P K)), about one pass over the rows.

    Returns:
        Index arrays into `identities`, as many and of the same size as those of `pk_batches`.
    """
    rng = np.random.default_rng([seed, epoch])
    _, subject_of = np.unique(identities, return_inverse=True)
    subjects_per_batch = min(subjects_per_batch, int(subject_of.max()) + 1)
    groups, group_of = np.unique(classes, return_inverse=True)
    num_batches = num_batches or math.ceil(len(identities) / (subjects_per_batch * sessions))
    group_of_slot = _assign_groups(classes, num_batches * subjects_per_batch, rng).reshape(num_batches, subjects_per_batch, 1)
    slots_per_group = (group_of_slot == np.arange(len(groups))).sum(axis=1)
    return _fill_batches(slots_per_group, group_of, subject_of, sessions, rng)


def random_batches(num_rows: int, size: int, seed: int, epoch: int, num_batches: int = 0) -> list[np.ndarray]:
    """Random batches of one epoch: passes over all `num_rows` rows in random order, split into batches of `size`.

    The last batch of a pass is completed with random rows from the earlier batches of that pass. Hence all batches have the same
    size, and none has a single row, for which batch normalisation has no variance. With fewer rows than `size`, each batch
    contains them all.

    Args:
        num_rows: number of rows.
        size: of a batch.
        seed: of the run.
        epoch: from 0.
        num_batches: of the epoch; the last pass may be incomplete. 0: one pass.

    Returns:
        Index arrays of min(size, num_rows) different rows each.
    """
    rng = np.random.default_rng([seed, epoch])
    size = min(size, num_rows)
    num_batches = num_batches or math.ceil(num_rows / size)
    batches: list[np.ndarray] = []
    while len(batches) < num_batches:
        batches += _random_pass(num_rows, size, rng)
    return batches[:num_batches]


def _random_pass(num_rows: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The batches of one pass of `random_batches`."""
    order = rng.permutation(num_rows)
    in_full_batches, rest = np.split(order, [num_rows // size * size])
    batches = list(in_full_batches.reshape(-1, size))
    if len(rest):
        repeated = rng.permutation(in_full_batches)[: size - len(rest)]
        batches.append(np.concatenate([rest, repeated]))
    return batches


def _assign_groups(classes: np.ndarray, num_slots: int, rng: np.random.Generator) -> np.ndarray:
    """(num_slots,) the group of each slot, as an index into the sorted distinct `classes` of the rows.

    Rows without a label get their share of the slots, spread evenly; the other slots go to the classes in turn.
    """
    groups, num_missing = np.unique(classes), int(np.sum(classes == MISSING))
    # due[i]: how many of the first i slots go to rows without a label: i times their share of the rows, plus a random offset from
    # 0 to below 1, rounded down. If their share is less than one slot per epoch, the offset decides whether they get one.
    due = (np.arange(num_slots + 1) * num_missing + rng.integers(len(classes))) // len(classes)
    unlabelled = np.diff(due) > 0
    in_turn = rng.permutation(np.flatnonzero(groups != MISSING))
    group_of_slot = np.empty(num_slots, int)
    group_of_slot[unlabelled] = 0  # MISSING is negative, so its group is the first; without it, no slot is `unlabelled`
    group_of_slot[~unlabelled] = np.resize(in_turn, int(np.sum(~unlabelled)))
    return group_of_slot


def _fill_batches(
    slots_per_group: np.ndarray, group_of: np.ndarray, subject_of: np.ndarray, sessions: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The rows of each batch. A batch consists of slots.

    Each slot belongs to a group (in `class_batches` a class, or the rows without a label; in `pk_batches` all rows are one group)
    and holds `sessions` rows of one subject, all of that group.

    Args:
        slots_per_group: (batches, groups) number of slots of each group in each batch.
        group_of: (n,) the group of each row, from 0.
        subject_of: (n,) the subject of each row, from 0.
        sessions: K.
        rng: draws the order of the subjects of a group, and of the rows of a subject (`_RoundRobin`).
    """
    # A member is a pair of a subject and a group: a subject with sessions of several classes gives several members. Members are
    # numbered by group, then by subject.
    num_subjects = int(subject_of.max()) + 1
    group_and_subject, member_of = np.unique(group_of * num_subjects + subject_of, return_inverse=True)
    group_of_member = group_and_subject // num_subjects
    # rows_of_member[m]: the rows of member m.
    rows_of_member = np.split(np.argsort(member_of, kind="stable"), np.cumsum(np.bincount(member_of))[:-1])
    num_groups = slots_per_group.shape[1]
    member_queues = [_RoundRobin(np.flatnonzero(group_of_member == group), rng) for group in range(num_groups)]
    row_queues = [_RoundRobin(rows, rng) for rows in rows_of_member]
    batches = []
    for counts in slots_per_group.tolist():
        chosen = [member for queue, count in zip(member_queues, counts, strict=True) for member in queue.take_distinct(count)]
        # `take` can repeat a row where a round ends within the slot. `take_distinct` would not, but it would change the batches
        # that a seed has always given.
        batches.append(np.array([row for member in chosen for row in row_queues[member].take(sessions)]))
    return batches


class _RoundRobin:
    """Round-robin sampler: every value occurs once in each round, in random order.

    Args:
        values: what to sample, all different.
        rng: shuffles each round.
    """

    def __init__(self, values: np.ndarray, rng: np.random.Generator) -> None:
        self.values, self.rng = values, rng
        self.queue: deque[int] = deque()

    def take(self, count: int) -> list[int]:
        """The next `count` values."""
        while len(self.queue) < count:
            self._start_round()
        return [self.queue.popleft() for _ in range(count)]

    def take_distinct(self, count: int) -> list[int]:
        """The next `count` values; all different if there are that many."""
        if count > len(self.values):
            return self.take(count)
        drawn: list[int] = []
        while len(drawn) < count:
            # Nearly always position 0, so the search is short. Only a new round takes time in proportion to all values.
            position = next((place for place, value in enumerate(self.queue) if value not in drawn), None)
            if position is None:
                self._start_round()
            else:
                drawn.append(self.queue[position])
                del self.queue[position]
        return drawn

    def _start_round(self) -> None:
        self.queue.extend(self.rng.permutation(self.values).tolist())
