"""Batch samplers: P x K over subjects or classes, and random batches."""

import hashlib
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.data.labels import ATTRIBUTES, MISSING, read_labels
from fr_ps.data.sampling import class_batches, pk_batches, random_batches

tables = st.lists(st.integers(1, 9), min_size=1, max_size=20).map(lambda counts: np.repeat(np.arange(len(counts)) * 7, counts))


@st.composite
def labelled(draw, least: int = MISSING):
    """Identities, and classes (at least two), which may differ between sessions of a subject."""
    identities = draw(tables.filter(lambda table: len(table) > 1))
    classes = draw(st.lists(st.integers(least, 2), min_size=len(identities), max_size=len(identities)).map(np.array))
    first, second = draw(st.permutations(range(len(identities))))[:2]
    classes[[first, second]] = 0, 1
    return identities, classes


def group_by_place(batches: list[np.ndarray], identities: np.ndarray, classes: np.ndarray, sessions: int) -> list[np.ndarray]:
    """The class of each slot of each batch; a slot has `sessions` rows of one subject and one class."""
    found = []
    for batch in batches:
        owners, groups = identities[batch].reshape(-1, sessions), classes[batch].reshape(-1, sessions)
        assert (owners == owners[:, :1]).all()
        assert (groups == groups[:, :1]).all()
        found.append(groups[:, 0])
    return found


@given(tables, st.integers(1, 8), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_a_batch_has_k_rows_of_each_of_p_subjects(identities, subjects, sessions, seed, epoch):
    batches = pk_batches(identities, subjects, sessions, seed, epoch)
    present = min(subjects, len(set(identities.tolist())))
    assert len(batches) == math.ceil(len(identities) / (present * sessions))
    for batch in batches:
        owners = identities[batch].reshape(present, sessions)
        assert (owners == owners[:, :1]).all()
        assert len(set(owners[:, 0].tolist())) == present


@given(tables, st.integers(1, 8), st.integers(1, 5))
def test_subjects_and_their_sessions_are_sampled_round_robin(identities, subjects, sessions):
    drawn = np.concatenate(pk_batches(identities, subjects, sessions, 0, 0))
    turns = np.unique(identities[drawn], return_counts=True)[1] / sessions
    shown = set(identities[drawn].tolist())
    assert turns.max() - (turns.min() if len(shown) == len(set(identities.tolist())) else 0) <= 1
    for subject in shown:
        rows = np.flatnonzero(identities == subject)
        seen = np.array([np.sum(drawn == row) for row in rows])
        assert seen.max() - seen.min() <= 1


@pytest.mark.parametrize("draw", [pk_batches, lambda ids, *rest: class_batches(ids, ids % 3 - 1, *rest)], ids=["pk", "class"])
def test_a_batch_is_a_function_of_seed_and_epoch(draw):
    identities = np.repeat(np.arange(10), 6)
    first, again, later, other = (draw(identities, 4, 3, seed, epoch) for seed, epoch in ((1, 2), (1, 2), (1, 3), (2, 2)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


def test_batches_of_a_seed_never_change():
    """Resuming and repeating a training with a later version requires it."""
    random, digest = np.random.default_rng(0), hashlib.sha256()
    for seed in range(50):
        identities = random.integers(0, random.integers(1, 30), random.integers(1, 200))
        for batch in pk_batches(identities, int(random.integers(1, 9)), int(random.integers(1, 6)), seed, seed % 7):
            digest.update(batch.astype("<i8").tobytes())
    assert digest.hexdigest() == "e8549fe512f104d252ed9adf2cca888ce898147cfb95b004e6ef60e14562a420"


def test_a_subject_with_enough_sessions_has_no_duplicate_in_a_first_batch():
    (batch, *_) = pk_batches(np.repeat(np.arange(5), 4), 5, 4, 0, 0)
    assert len(set(batch.tolist())) == 20


def test_all_subjects_of_the_real_long_tail_are_sampled_equally(photoface_labels):
    ids = read_labels(photoface_labels / "train_set.csv").ids
    batches = pk_batches(ids, 8, 4, 0, 0)
    assert len(batches) == math.ceil(1876 / 32)
    turns = np.unique(ids[np.concatenate(batches)], return_counts=True)[1] / 4
    assert set(turns.tolist()) <= {1, 2}


@given(labelled(), st.integers(1, 8), st.integers(1, 5), st.integers(0, 9))
def test_class_counts_differ_by_at_most_one_slot_in_a_batch_and_in_an_epoch(table, subjects, sessions, seed):
    identities, classes = table
    batches = class_batches(identities, classes, subjects, sessions, seed, 0)
    present = min(subjects, len(set(identities.tolist())))
    assert [len(batch) for batch in batches] == [present * sessions] * math.ceil(len(identities) / (present * sessions))
    by_batch = group_by_place(batches, identities, classes, sessions)
    for places in (*by_batch, np.concatenate(by_batch)):
        counts = [np.sum(places == name) for name in set(classes.tolist()) - {MISSING}]
        assert max(counts) - min(counts) <= 1


@given(labelled(), st.integers(1, 8), st.integers(1, 5))
def test_unlabelled_rows_get_their_share_of_the_slots(table, subjects, sessions):
    identities, classes = table
    batches = class_batches(identities, classes, subjects, sessions, 0, 0)
    share = np.mean(classes == MISSING)
    seen = np.cumsum(np.concatenate(group_by_place(batches, identities, classes, sessions)).reshape(len(batches), -1) == MISSING)
    places = np.arange(1, len(seen) + 1)
    # The classes of a batch are adjacent, so that the shares are exact only at its end.
    ends = slice(len(seen) // len(batches) - 1, None, len(seen) // len(batches))
    assert np.abs(seen - share * places)[ends].max() <= 1


def test_a_few_unlabelled_rows_are_sampled_in_some_epochs():
    """Their share of an epoch is less than one slot."""
    identities = np.repeat(np.arange(20), 10)
    classes = np.resize([0, 1], 200)
    classes[7] = MISSING
    epochs = [np.concatenate(class_batches(identities, classes, 4, 4, 0, epoch)) for epoch in range(100)]
    assert 5 <= sum(7 in epoch for epoch in epochs) <= 60  # a row of 200, in 52 places of 4 rows: in a quarter of the epochs


@given(labelled(), st.integers(1, 8), st.integers(1, 5))
def test_subjects_of_a_class_and_their_sessions_are_sampled_round_robin(table, subjects, sessions):
    identities, classes = table
    drawn = np.concatenate(class_batches(identities, classes, subjects, sessions, 0, 0))
    for name in set(classes[drawn].tolist()):
        of_class = drawn[classes[drawn] == name]
        members = set(identities[classes == name].tolist())
        turns = [np.sum(identities[of_class] == subject) / sessions for subject in members]
        assert max(turns) - min(turns) <= 1
        for subject in set(identities[of_class].tolist()):
            seen = [np.sum(drawn == row) for row in np.flatnonzero((identities == subject) & (classes == name))]
            assert max(seen) - min(seen) <= 1


@given(labelled(), st.integers(1, 8), st.integers(1, 5))
def test_no_subject_is_repeated_in_a_class_with_enough_subjects(table, subjects, sessions):
    identities, classes = table
    for batch in class_batches(identities, classes, subjects, sessions, 0, 0):
        places = batch[::sessions]
        for name in set(classes[places].tolist()):
            owners = identities[places[classes[places] == name]]
            if len(owners) <= len(set(identities[classes == name].tolist())):
                assert len(set(owners.tolist())) == len(owners)


def test_a_single_subject_of_a_class_fills_its_slots_with_different_sessions():
    identities = np.repeat(np.arange(9), 8)
    classes = (identities == 4).astype(int)
    for batch in class_batches(identities, classes, 4, 4, 0, 0):
        assert sorted(batch[classes[batch] == 1].tolist()) == list(range(32, 40))


def test_rare_classes_of_the_real_table_get_half_of_it_in_a_few_milliseconds(photoface_labels):
    labels = read_labels(photoface_labels / "train_set.csv")
    pose = labels.codes[:, ATTRIBUTES.index("pose")]
    assert np.mean(pose == 1) < 0.03
    started = time.perf_counter()
    batches = class_batches(labels.ids, pose, 8, 4, 0, 0)
    assert time.perf_counter() - started < 0.5  # 5 ms on a quiet machine
    assert {int(np.sum(pose[batch] == 1)) for batch in batches} == {16}


@given(st.integers(2, 200), st.integers(2, 40), st.integers(0, 9), st.integers(0, 9))
def test_random_batches_contain_every_row_once_and_the_last_is_completed(rows, size, seed, epoch):
    batches = random_batches(rows, size, seed, epoch)
    assert len(batches) == math.ceil(rows / min(size, rows))
    assert {len(batch) for batch in batches} == {len(set(batch.tolist())) for batch in batches} == {min(size, rows)}
    drawn = np.concatenate(batches)
    assert sorted(drawn[:rows].tolist()) == list(range(rows))
    np.testing.assert_array_equal(batches, random_batches(rows, size, seed, epoch))


@given(tables, st.integers(1, 8), st.integers(1, 5), st.integers(1, 40))
def test_a_given_number_of_batches_keeps_the_turns_of_subjects_and_sessions(identities, subjects, sessions, steps):
    batches = pk_batches(identities, subjects, sessions, 0, 0, steps)
    assert len(batches) == steps
    for longer, shorter in zip(batches, pk_batches(identities, subjects, sessions, 0, 0)):
        np.testing.assert_array_equal(longer, shorter)
    drawn = np.concatenate(batches)
    turns = [np.sum(identities[drawn] == subject) / sessions for subject in set(identities.tolist())]
    assert max(turns) - min(turns) <= 1
    for subject in set(identities[drawn].tolist()):
        seen = [np.sum(drawn == row) for row in np.flatnonzero(identities == subject)]
        assert max(seen) - min(seen) <= 1


@given(labelled(least=0), st.integers(1, 8), st.integers(1, 5), st.integers(1, 40))
def test_a_given_number_of_class_balanced_batches_stays_balanced(table, subjects, sessions, steps):
    identities, classes = table
    batches = class_batches(identities, classes, subjects, sessions, 0, 0, steps)
    assert len(batches) == steps
    counts = [
        np.sum(np.concatenate(group_by_place(batches, identities, classes, sessions)) == name) for name in set(classes.tolist())
    ]
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 40))
def test_a_given_number_of_random_batches_makes_several_passes(rows, size, steps):
    batches = random_batches(rows, size, 0, 0, steps)
    one_pass = random_batches(rows, size, 0, 0)
    assert len(batches) == steps
    assert {len(set(batch.tolist())) for batch in batches} == {min(size, rows)}
    for longer, shorter in zip(batches, one_pass):
        np.testing.assert_array_equal(longer, shorter)
    for start in range(0, steps - len(one_pass) + 1, len(one_pass)):
        assert set(np.concatenate(batches[start : start + len(one_pass)]).tolist()) == set(range(rows))


def test_random_batches_differ_by_seed_and_epoch():
    first, later, other = (np.concatenate(random_batches(50, 8, seed, epoch)) for seed, epoch in ((1, 2), (1, 3), (2, 2)))
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


def test_the_time_of_a_batch_does_not_grow_with_the_number_of_subjects():
    seconds = {}
    for subjects in (2_000, 40_000):
        identities = np.repeat(np.arange(subjects), 4)
        begun = time.process_time()
        batches = pk_batches(identities, 8, 4, seed=0, epoch=0, num_batches=2_000)
        seconds[subjects] = time.process_time() - begun
        assert len({identities[row] for batch in batches[: subjects // 8] for row in batch}) == min(subjects, 16_000)
    assert seconds[40_000] < 10 * seconds[2_000]  # the other way of drawing takes 100 times as long
