"""Training rows: whole subjects, sampled by the seed."""

import numpy as np
import pytest

from fr_ps.evaluation.baselines import training_rows
from fr_ps.evaluation.baselines.training_rows import sample_subjects
from tests.evaluation.baselines.smooth_maps import labels_of


def test_whole_subjects_are_sampled_by_the_seed_for_any_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = labels_of([f"p{person:02d}" for person in rng.permutation(np.repeat(np.arange(30), rng.integers(1, 9, size=30)))])
    rows = np.flatnonzero(labels.ids != "p03")
    whole = sample_subjects(labels, rows, seed=0)
    np.testing.assert_array_equal(np.sort(whole), rows)
    monkeypatch.setattr(training_rows, "MAX_SESSIONS", 40)
    drawn = [sample_subjects(labels, rng.permutation(rows), seed) for seed in (0, 0, 1)]
    for found in drawn:
        assert 32 < len(found) <= 40
        np.testing.assert_array_equal(np.sort(found), rows[np.isin(labels.ids[rows], labels.ids[found])])
        keys = list(zip(labels.ids[found], labels.sessions[found]))
        assert keys == sorted(keys)
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert set(labels.ids[drawn[0]]) != set(labels.ids[drawn[2]])
