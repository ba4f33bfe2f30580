"""P x K batches as a pure function of (seed, epoch)."""

import math

import numpy as np


def pk_batches(identities: np.ndarray, people: int, sessions: int, seed: int, epoch: int) -> list[np.ndarray]:
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
    names, person_of = np.unique(identities, return_inverse=True)
    rows_of = np.split(np.argsort(person_of, kind="stable"), np.cumsum(np.bincount(person_of))[:-1])
    people = min(people, len(names))
    turns: list[list[int]] = [[] for _ in names]
    waiting: list[int] = []
    batches = []
    for _ in range(math.ceil(len(identities) / (people * sessions))):
        chosen: list[int] = []
        while len(chosen) < people:
            if not set(waiting) - set(chosen):
                waiting += rng.permutation(len(names)).tolist()
            chosen.append(next(person for person in waiting if person not in chosen))
            waiting.remove(chosen[-1])
        batches.append(np.concatenate([_next_sessions(turns[person], rows_of[person], sessions, rng) for person in chosen]))
    return batches


def _next_sessions(turn: list[int], rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    while len(turn) < count:
        turn += rng.permutation(rows).tolist()
    taken = np.array(turn[:count])
    del turn[:count]
    return taken
