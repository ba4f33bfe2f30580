"""P x K batches."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fr_ps.data.labels import read_labels
from fr_ps.data.sampling import pk_batches

tables = st.lists(st.integers(1, 9), min_size=1, max_size=20).map(lambda counts: np.repeat(np.arange(len(counts)) * 7, counts))


@settings(deadline=None)
@given(tables, st.integers(1, 8), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_a_batch_has_k_rows_of_each_of_p_people(identities, people, sessions, seed, epoch):
    batches = pk_batches(identities, people, sessions, seed, epoch)
    present = min(people, len(set(identities.tolist())))
    assert len(batches) == math.ceil(len(identities) / (present * sessions))
    for batch in batches:
        owners = identities[batch].reshape(present, sessions)
        assert (owners == owners[:, :1]).all()
        assert len(set(owners[:, 0].tolist())) == present


@settings(deadline=None)
@given(tables, st.integers(1, 8), st.integers(1, 5))
def test_people_and_their_sessions_take_turns(identities, people, sessions):
    drawn = np.concatenate(pk_batches(identities, people, sessions, 0, 0))
    turns = np.unique(identities[drawn], return_counts=True)[1] / sessions
    shown = set(identities[drawn].tolist())
    assert turns.max() - (turns.min() if len(shown) == len(set(identities.tolist())) else 0) <= 1
    for person in shown:
        rows = np.flatnonzero(identities == person)
        seen = np.array([np.sum(drawn == row) for row in rows])
        assert seen.max() - seen.min() <= 1


def test_a_batch_is_a_function_of_seed_and_epoch():
    identities = np.repeat(np.arange(10), 6)
    first, again, later, other = (pk_batches(identities, 4, 3, seed, epoch) for seed, epoch in ((1, 2), (1, 2), (1, 3), (2, 2)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


def test_a_person_with_enough_sessions_has_none_twice_in_a_first_batch():
    (batch, *_) = pk_batches(np.repeat(np.arange(5), 4), 5, 4, 0, 0)
    assert len(set(batch.tolist())) == 20


def test_the_real_long_tail_is_sampled_with_everybody_equal(photoface_labels):
    ids = read_labels(photoface_labels / "train_set.csv").ids
    batches = pk_batches(ids, 8, 4, 0, 0)
    assert len(batches) == math.ceil(1876 / 32)
    turns = np.unique(ids[np.concatenate(batches)], return_counts=True)[1] / 4
    assert set(turns.tolist()) <= {1, 2}
