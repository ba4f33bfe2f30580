"""The batches of an epoch as pure functions of (seed, epoch)."""

import math

import numpy as np

from fr_ps.data.labels import MISSING


def pk_batches(identities: np.ndarray, num_subjects: int, sessions: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch: each holds `sessions` (K) rows of each of `people` (P) different people.

    People take turns: nobody comes again before everybody came, so that each is seen equally often however many
    sessions there are. A person's sessions take turns likewise; one with fewer than K has some twice in the batch. With
    fewer than P people, a batch has all of them. An epoch has as many batches as hold about every row once,
    ceil(rows / (P K)).

    Args:
        identities: (n,) the person of each row.
        people: P.
        sessions: K.
        seed: of the run.
        epoch: from 0.

    Returns:
        Index arrays into `identities`, each of min(P, number of people) x K rows, a person's rows side by side.
    """
    rng = np.random.default_rng([seed, epoch])
    _, person_of = np.unique(identities, return_inverse=True)
    num_subjects = min(num_subjects, int(person_of.max()) + 1)
    places = np.full((math.ceil(len(identities) / (num_subjects * sessions)), 1), num_subjects)
    return _fill_batches(places, np.zeros_like(person_of), person_of, sessions, rng)


def class_batches(
    identities: np.ndarray, classes: np.ndarray, num_subjects: int, sessions: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """The batches of one epoch: P places for people, which the classes of an attribute take in turn, with K rows each.

    In no batch do two classes differ by more than one place, however frequent they are. In a class its people take
    turns as in `pk_batches`, and a place has K sessions of one person that are of that class: who has sessions of several
    classes comes for each of them. A class of fewer people than it has places in a batch brings some of them twice.

    Rows without a label teach identity all the same: they are one more group, which gets the share of the places that it
    has of the rows.

    Args:
        identities: (n,) the person of each row.
        classes: (n,) the class of each row; `MISSING` where it is unknown.
        people: P.
        sessions: K.
        seed: of the run.
        epoch: from 0.

    Returns:
        Index arrays into `identities`, as many and of the same size as those of `pk_batches`.
    """
    rng = np.random.default_rng([seed, epoch])
    _, person_of = np.unique(identities, return_inverse=True)
    num_subjects = min(num_subjects, int(person_of.max()) + 1)
    names, group_of = np.unique(classes, return_inverse=True)
    count = math.ceil(len(identities) / (num_subjects * sessions))
    group_at = _assign_groups(names, int(np.sum(classes == MISSING)), len(classes), count * num_subjects, rng)
    places = (group_at.reshape(count, num_subjects, 1) == np.arange(len(names))).sum(axis=1)
    return _fill_batches(places, group_of, person_of, sessions, rng)


def random_batches(rows: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch: all `rows` in random order, cut in batches of `size`.

    The last batch is filled up with rows of the earlier ones, drawn anew: all batches have one size, and none has a
    single row, of which batch normalisation would know no variance. With fewer rows than `size`, one batch has them all.

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
    """(places,) the group at each place, as an index into `names`: the classes in turn, the missing label by its share."""
    # A random phase, as a share of less than one place an epoch must get one now and then.
    due = (np.arange(slots + 1) * missing + rng.integers(rows)) // rows
    unknown = np.diff(due) > 0
    in_turn = rng.permutation(np.flatnonzero(names != MISSING))
    group_at = np.full(slots, np.argmax(names == MISSING))
    group_at[~unknown] = np.resize(in_turn, int(np.sum(~unknown)))
    return group_at


def _fill_batches(
    slots: np.ndarray, group_of: np.ndarray, subject_of: np.ndarray, sessions: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The rows of each batch: of so many people of each group, `sessions` rows of that group each.

    Args:
        places: (batches, groups) numbers of people.
        group_of: (n,) the group of each row, from 0.
        person_of: (n,) the person of each row, from 0.
        sessions: K.
        rng: draws the turns.
    """
    people = int(subject_of.max()) + 1
    keys, member_of = np.unique(group_of * people + subject_of, return_inverse=True)
    rows_of = np.split(np.argsort(member_of, kind="stable"), np.cumsum(np.bincount(member_of))[:-1])
    groups = [_RoundRobin(np.flatnonzero(keys // people == group), rng) for group in range(slots.shape[1])]
    members = [_RoundRobin(rows, rng) for rows in rows_of]
    batches = []
    for counts in slots.tolist():
        chosen = [member for group, count in zip(groups, counts, strict=True) for member in group.next_distinct(count)]
        batches.append(np.array([row for member in chosen for row in members[member].next(sessions)]))
    return batches


class _RoundRobin:
    """Who come in turn: nobody comes again before everybody came.

    Args:
        members: whose turns these are.
        rng: draws the order of each round.
    """

    def __init__(self, members: np.ndarray, rng: np.random.Generator) -> None:
        self.members, self.rng = members, rng
        self.queue: list[int] = []

    def next(self, count: int) -> list[int]:
        """The next `count` of them."""
        while len(self.queue) < count:
            self._start_round()
        taken, self.queue = self.queue[:count], self.queue[count:]
        return taken

    def next_distinct(self, count: int) -> list[int]:
        """The next `count` of them, who are all different where there are as many: nobody follows so soon on himself."""
        if count > len(self.members):
            return self.next(count)
        taken: list[int] = []
        while len(taken) < count:
            if not set(self.queue) - set(taken):
                self._start_round()
            taken.append(next(member for member in self.queue if member not in taken))
            self.queue.remove(taken[-1])
        return taken

    def _start_round(self) -> None:
        self.queue += self.rng.permutation(self.members).tolist()
