"""Batch samplers: the batches of an epoch as pure functions of (seed, epoch)."""

import math

import numpy as np

from fr_ps.data.labels import MISSING


def pk_batches(identities: np.ndarray, num_subjects: int, sessions: int, seed: int, epoch: int) -> list[np.ndarray]:
    """P x K batches of one epoch: each contains `sessions` (K) rows of each of `num_subjects` (P) different subjects.

    Subjects are sampled round-robin, so each is seen equally often, whatever its number of sessions; the sessions of a subject
    likewise. A subject with fewer than K sessions repeats some in a batch. With fewer than P subjects, a batch contains all of
    them. An epoch has ceil(rows / (P K)) batches, about one pass over the rows.

    Args:
        identities: (n,) the subject of each row.
        num_subjects: P.
        sessions: K.
        seed: of the run.
        epoch: from 0.

    Returns:
        Index arrays into `identities`, each of min(P, number of subjects) x K rows, the rows of a subject side by side.
    """
    rng = np.random.default_rng([seed, epoch])
    _, subject_of = np.unique(identities, return_inverse=True)
    num_subjects = min(num_subjects, int(subject_of.max()) + 1)
    slots = np.full((math.ceil(len(identities) / (num_subjects * sessions)), 1), num_subjects)
    return _fill_batches(slots, np.zeros_like(subject_of), subject_of, sessions, rng)


def class_batches(
    identities: np.ndarray, classes: np.ndarray, num_subjects: int, sessions: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Class-balanced batches of one epoch: P slots for subjects, assigned to the classes of an attribute in turn, K rows each.

    In each batch, the numbers of slots of two classes differ by at most one, whatever the class frequencies. Within a class,
    subjects are sampled round-robin as in `pk_batches`, and a slot contains K sessions of one subject, all of that class. A
    subject with sessions of several classes takes part in each of them. A class with fewer subjects than slots in a batch
    repeats some of them.

    Rows without a label still train identity: they are one more group, whose share of the slots is its share of the rows.

    Args:
        identities: (n,) the subject of each row.
        classes: (n,) the class of each row; `MISSING` if unknown.
        num_subjects: P.
        sessions: K.
        seed: of the run.
        epoch: from 0.

    Returns:
        Index arrays into `identities`, as many and of the same size as those of `pk_batches`.
    """
    rng = np.random.default_rng([seed, epoch])
    _, subject_of = np.unique(identities, return_inverse=True)
    num_subjects = min(num_subjects, int(subject_of.max()) + 1)
    names, group_of = np.unique(classes, return_inverse=True)
    count = math.ceil(len(identities) / (num_subjects * sessions))
    group_at = _assign_groups(names, int(np.sum(classes == MISSING)), len(classes), count * num_subjects, rng)
    slots = (group_at.reshape(count, num_subjects, 1) == np.arange(len(names))).sum(axis=1)
    return _fill_batches(slots, group_of, subject_of, sessions, rng)


def random_batches(rows: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Random batches of one epoch: all `rows` in random order, split into batches of `size`.

    The last batch is completed with random rows of the earlier ones. Hence all batches have the same size, and none has a
    single row, for which batch normalisation has no variance. With fewer rows than `size`, one batch contains them all.

    Returns:
        Index arrays of min(size, rows) different rows each.
    """
    rng = np.random.default_rng([seed, epoch])
    size = min(size, rows)
    order = rng.permutation(rows)
    whole = rows // size * size
    batches = list(order[:whole].reshape(-1, size))
    if whole < rows:
        again = rng.permutation(order[:whole])[: size - (rows - whole)]
        batches.append(np.concatenate([order[whole:], again]))
    return batches


def _assign_groups(names: np.ndarray, missing: int, rows: int, slots: int, rng: np.random.Generator) -> np.ndarray:
    """(slots,) group of each slot, as an index into `names`: the classes in turn; unlabelled rows by their share of the rows."""
    # With a random phase, a share of less than one slot per epoch gets a slot in some epochs.
    due = (np.arange(slots + 1) * missing + rng.integers(rows)) // rows
    unknown = np.diff(due) > 0
    in_turn = rng.permutation(np.flatnonzero(names != MISSING))
    group_at = np.full(slots, np.argmax(names == MISSING))
    group_at[~unknown] = np.resize(in_turn, int(np.sum(~unknown)))
    return group_at


def _fill_batches(
    slots: np.ndarray, group_of: np.ndarray, subject_of: np.ndarray, sessions: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The rows of each batch: for each slot of a group, `sessions` rows of one subject in that group.

    Args:
        slots: (batches, groups) numbers of subjects.
        group_of: (n,) the group of each row, from 0.
        subject_of: (n,) the subject of each row, from 0.
        sessions: K.
        rng: shuffles each round.
    """
    subjects = int(subject_of.max()) + 1
    keys, member_of = np.unique(group_of * subjects + subject_of, return_inverse=True)
    rows_of = np.split(np.argsort(member_of, kind="stable"), np.cumsum(np.bincount(member_of))[:-1])
    groups = [_RoundRobin(np.flatnonzero(keys // subjects == group), rng) for group in range(slots.shape[1])]
    members = [_RoundRobin(rows, rng) for rows in rows_of]
    batches = []
    for counts in slots.tolist():
        chosen = [member for group, count in zip(groups, counts, strict=True) for member in group.next_distinct(count)]
        batches.append(np.array([row for member in chosen for row in members[member].next(sessions)]))
    return batches


class _RoundRobin:
    """Round-robin sampler: every member occurs once in each round, in random order.

    Args:
        members: the values to sample.
        rng: shuffles each round.
    """

    def __init__(self, members: np.ndarray, rng: np.random.Generator) -> None:
        self.members, self.rng = members, rng
        self.queue: list[int] = []

    def next(self, count: int) -> list[int]:
        """The next `count` members."""
        while len(self.queue) < count:
            self._start_round()
        drawn, self.queue = self.queue[:count], self.queue[count:]
        return drawn

    def next_distinct(self, count: int) -> list[int]:
        """The next `count` members; all different if there are that many."""
        if count > len(self.members):
            return self.next(count)
        drawn: list[int] = []
        while len(drawn) < count:
            if not set(self.queue) - set(drawn):
                self._start_round()
            drawn.append(next(member for member in self.queue if member not in drawn))
            self.queue.remove(drawn[-1])
        return drawn

    def _start_round(self) -> None:
        self.queue += self.rng.permutation(self.members).tolist()
