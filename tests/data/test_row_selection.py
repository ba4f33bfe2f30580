"""Selection of the rows of the labels table."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.config import DataConfig
from fr_ps.data.labels import Labels, read_labels
from fr_ps.data.row_selection import select_rows


def labels_of(counts: list[int], **columns: list[str]) -> Labels:
    ids = np.array([f"p{subject}" for subject, count in enumerate(counts) for _ in range(count)])
    sessions = np.array([f"s{session}" for count in counts for session in range(count)])
    table = {"id": ids, "session": sessions} | {name: np.array(cells) for name, cells in columns.items()}
    return Labels(ids, sessions, np.zeros((len(ids), 5), dtype=np.int8), {}, "raw", table)


def keys(labels: Labels, rows: np.ndarray) -> set[tuple[str, str]]:
    return set(zip(labels.ids[rows].tolist(), labels.sessions[rows].tolist()))


def test_by_default_every_session_is_selected_without_notes():
    chosen = select_rows(labels_of([3, 1]), DataConfig())
    assert chosen.selected.tolist() == [0, 1, 2, 3]
    assert chosen.notes == []


def test_only_and_limits_keep_what_pandas_keeps_of_the_real_table(photoface_labels):
    path = photoface_labels / "metadata.csv"
    chosen = select_rows(read_labels(path), DataConfig(only={"Quality": ["ok", "dark"], "Gender": ["male"]}, limits={"Pose": 2}))
    table = pd.read_csv(path)
    expected = table[table.Quality.isin(["ok", "dark"]) & (table.Gender == "male") & (table.Pose <= 2)]
    assert 0 < len(expected) < len(table)
    assert chosen.selected.tolist() == expected.index.tolist()
    blur = int((table.Quality == "blur").sum())
    assert chosen.notes[0] == f"left out: {blur} sessions: Quality is not ok or dark (data.only)"
    assert sum(int(note.split()[2]) for note in chosen.notes) == len(table) - len(expected)


def test_an_empty_string_in_only_matches_an_empty_cell():
    labels = labels_of([4], Pose=["1", "2", "", "1"])
    assert select_rows(labels, DataConfig(only={"Pose": ["1"]})).selected.tolist() == [0, 3]
    assert select_rows(labels, DataConfig(only={"Pose": ["2", ""]})).selected.tolist() == [1, 2]


def test_a_value_that_never_occurs_is_noted():
    labels = labels_of([4], Gender=["male", "female", "", "male"])
    chosen = select_rows(labels, DataConfig(only={"Gender": ["mael", "female"]}))
    assert chosen.selected.tolist() == [1]
    assert chosen.notes[0] == "data.only: Gender is never 'mael'; its values are (empty), female, male"


def test_a_value_at_the_limit_is_used():
    labels = labels_of([4], quality_residual=["0.1", "0.15", "1e-3", "0.16"])
    assert select_rows(labels, DataConfig(limits={"quality_residual": 0.15})).selected.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limits": {"qality": 1}}, ["data.limits", "'qality'", "quality"]),
        ({"only": {"qality": ["ok"]}}, ["data.only", "'qality'", "quality"]),
        ({"limits": {"quality": 1}}, ["data.limits", "quality", "p0/s1", "'bad'", "2 such rows"]),
        ({"limits": {"id": 1}}, ["p0/s0", "'p0'"]),
        ({"only": {"quality": ["5"]}}, ["no session is left", "data.only", "quality is never 5", "some of 0.5, 1, bad, nan"]),
        ({"only": {"pose": ["1"], "quality": ["bad"]}}, ["no session is left", "quality is not bad"]),
        ({"limits": {"pose": -1}}, ["no session is left", "data.limits", "-1"]),
    ],
)
def test_settings_that_do_not_fit_the_table_are_rejected(settings, words, rejected):
    labels = labels_of([4], quality=["0.5", "bad", "nan", "1"], pose=["1", "2", "3", "4"])
    with rejected(*words):
        select_rows(labels, DataConfig(**settings))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 10), st.integers(0, 3))
def test_a_subject_keeps_at_most_the_given_number_of_sessions(counts, count, seed):
    labels = labels_of(counts)
    chosen = select_rows(labels, DataConfig(subsample_sessions=count, split_seed=seed))
    kept = pd.Series(labels.ids[chosen.selected]).value_counts()
    assert kept.to_dict() == {f"p{subject}": min(number, count) for subject, number in enumerate(counts)}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.floats(0.01, 1), st.integers(0, 3))
def test_a_share_of_all_sessions_is_kept(counts, share, seed):
    chosen = select_rows(labels_of(counts), DataConfig(subsample_share=share, split_seed=seed))
    assert len(chosen.selected) == max(1, round(share * sum(counts)))
    assert len(set(chosen.selected.tolist())) == len(chosen.selected)


@pytest.mark.parametrize("settings", [{"subsample_sessions": 3}, {"subsample_share": 0.4}], ids=str)
def test_the_subsample_depends_on_the_seed_and_not_on_the_order_of_rows(settings):
    labels = labels_of([10] * 10)
    config = DataConfig(**settings)
    first = keys(labels, select_rows(labels, config).selected)
    assert first == keys(labels, select_rows(labels, config).selected)
    assert first != keys(labels, select_rows(labels, replace(config, split_seed=1)).selected)
    shuffled = labels.subset(np.random.default_rng(0).permutation(len(labels)))
    assert keys(shuffled, select_rows(shuffled, config).selected) == first


def test_subsamples_are_drawn_after_the_limits():
    labels = labels_of([6, 6], quality=["1", "1", "9", "9", "9", "9"] * 2)
    chosen = select_rows(labels, DataConfig(limits={"quality": 5}, subsample_sessions=1))
    assert set(labels.columns["quality"][chosen.selected].tolist()) == {"1"}
    assert [note.split()[2] for note in chosen.notes] == ["8", "2"]
