"""Shards of `predict` merge into the result of a run without shards, to the bit."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fr_ps.serving.predict import PredictionResult, SessionInput, list_prepared_sessions, predict_sessions
from fr_ps.serving.prediction_shards import merge_shards, predict_shard, remove_shards, select_batches, shards_folder
from fr_ps.serving.recognizer import Recognizer
from fr_ps.shards import Shard
from tests.conftest import AssertRejected

from .conftest import CPU, make_model


@pytest.fixture
def broken(prepared: Path, tmp_path: Path) -> Path:
    """A copy with unreadable sessions: one in a batch of three, and all of the last batch."""
    root = tmp_path / "data"
    shutil.copytree(prepared, root)
    folders = sorted(root.glob("data/*/*"))
    for folder in (folders[4], *folders[-3:]):
        (folder / "albedo.npy").write_bytes(b"nothing")
    return root


def run_shards(recognizer: Recognizer, sessions: list[SessionInput], count: int, **settings: Any) -> None:
    for index in range(count, 0, -1):
        predict_shard(recognizer, sessions, Shard(index, count), **settings)


def assert_equal(found: PredictionResult, expected: PredictionResult) -> None:
    assert (found.keys, found.failures) == (expected.keys, expected.failures)
    assert found.predictions.embeddings.tobytes() == expected.predictions.embeddings.tobytes()
    assert found.predictions.probabilities.keys() == expected.predictions.probabilities.keys()
    for task, probabilities in expected.predictions.probabilities.items():
        assert found.predictions.probabilities[task].tobytes() == probabilities.tobytes()


@given(sessions=st.integers(0, 200), batch=st.integers(1, 70), count=st.integers(1, 20))
def test_every_batch_is_in_exactly_one_shard(sessions: int, batch: int, count: int) -> None:
    listed: Any = list(range(sessions))
    whole = [listed[start : start + batch] for start in range(0, sessions, batch)]
    parts = []
    for index in range(1, count + 1):
        selected = select_batches(listed, batch, Shard(index, count))
        parts.append([selected[start : start + batch] for start in range(0, len(selected), batch)])
    assert sorted(one for part in parts for one in part) == whole
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("batch", "count"), [(3, 1), (3, 4), (5, 8)])
def test_shards_merge_into_the_bits_of_one_run(
    recognizer: Recognizer, broken: Path, tmp_path: Path, batch: int, count: int
) -> None:
    sessions = list_prepared_sessions(recognizer, broken)
    settings = {"out": tmp_path / "out.csv", "source": broken, "batch": batch}
    run_shards(recognizer, sessions, count, **settings)
    assert_equal(merge_shards(recognizer, sessions, **settings), predict_sessions(recognizer, sessions, batch))
    remove_shards(tmp_path / "out.csv")
    assert not shards_folder(tmp_path / "out.csv").exists()


def test_an_unreadable_session_changes_only_its_batch(recognizer: Recognizer, broken: Path, prepared: Path) -> None:
    found = predict_sessions(recognizer, list_prepared_sessions(recognizer, broken), 3)
    whole = predict_sessions(recognizer, list_prepared_sessions(recognizer, prepared), 3)
    row_of = {key: row for row, key in enumerate(whole.keys)}
    own = set(whole.keys[3:6])
    rows = [(row, row_of[key]) for row, key in enumerate(found.keys) if key not in own]
    assert len(rows) == 18
    assert np.array_equal(found.predictions.embeddings[[a for a, _ in rows]], whole.predictions.embeddings[[b for _, b in rows]])


def test_when_no_session_can_be_read_the_merge_says_so(
    recognizer: Recognizer, broken: Path, tmp_path: Path, rejected: AssertRejected
) -> None:
    sessions = list_prepared_sessions(recognizer, broken)[-3:]
    settings = {"out": tmp_path / "out.csv", "source": broken, "batch": 2}
    run_shards(recognizer, sessions, 3, **settings)
    with rejected("none of 3 sessions could be read; first error:"):
        merge_shards(recognizer, sessions, **settings)


def test_missing_damaged_and_other_shards_are_rejected(
    recognizer: Recognizer, prepared: Path, tmp_path: Path, rejected: AssertRejected
) -> None:
    sessions = list_prepared_sessions(recognizer, prepared)
    settings: dict[str, Any] = {"out": tmp_path / "out.csv", "source": prepared, "batch": 4}
    with rejected("no shards to merge"):
        merge_shards(recognizer, sessions, **settings)
    for index in (1, 3):
        predict_shard(recognizer, sessions, Shard(index, 4), **settings)
    with rejected("out.csv.shards: shards 2, 4 of 4 missing"):
        merge_shards(recognizer, sessions, **settings)
    other = Recognizer(make_model(tmp_path / "other", prepared, "albedo", "normal", seed=1), CPU)
    for run in (merge_shards, lambda *arguments, **rest: predict_shard(*arguments, Shard(2, 4), **rest)):
        with rejected("1-of-4.safetensors", "other model"):
            run(other, sessions, **settings)
        with rejected("1-of-4.safetensors", "batch 4, but here it is 5"):
            run(recognizer, sessions, **settings | {"batch": 5})
        with rejected("1-of-4.safetensors", "other sessions"):
            run(recognizer, sessions[1:], **settings)
        with rejected("1-of-4.safetensors", f"input {prepared}, but here it is"):
            run(recognizer, sessions, **settings | {"source": tmp_path})
    with rejected("shards of 4, but here they are of 5"):
        predict_shard(recognizer, sessions, Shard(1, 5), **settings)
    file = shards_folder(tmp_path / "out.csv") / "3-of-4.safetensors"
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-8]):
        file.write_bytes(damaged)
        with rejected("3-of-4.safetensors: cannot be read", "run that shard again"):
            merge_shards(recognizer, sessions, **settings)
