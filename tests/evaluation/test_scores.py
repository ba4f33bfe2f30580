"""The table of scores, against cosines in float64 and a list of all pairs."""

import itertools

import numpy as np
import pandas as pd
import pytest

from fr_ps.data.labels import DEFAULT_CLASSES, Labels
from fr_ps.evaluation.analyses.gallery_search import search_gallery
from fr_ps.evaluation.bootstrap import bootstrap_weights
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, make_pairs
from fr_ps.evaluation.pairwise.pair_list import PairList
from fr_ps.evaluation.pairwise.similarity import Measure
from fr_ps.evaluation.report import score_table
from fr_ps.models.inference import Predictions

COLUMNS = ["id_a", "session_a", "id_b", "session_b", "score", "genuine"]


def example(ids: list[str], listed: PairList | None = None, measure: Measure = "cosine") -> EvaluationResult:
    """Random embeddings of sessions of the given people, as far as a table of scores needs it."""
    names, count = np.array(ids), len(ids)
    embeddings = (5 * np.random.default_rng(0).normal(size=(count, 24)) + 1).astype(np.float32)
    labels = Labels(names, np.array([f"s{i}" for i in range(count)]), np.zeros((count, 5), np.int8), DEFAULT_CLASSES, "raw", {})
    draws = bootstrap_weights(names, replicates=2)
    comparisons = make_pairs(embeddings, names, listed, measure, draws).score()
    found = search_gallery(embeddings, names, None)
    return EvaluationResult(LabelledPredictions(Predictions(embeddings, {}), labels), comparisons, listed, found, draws, {}, ())


def rows_of(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Of the session names, which are the places."""
    return [(int(a[1:]), int(b[1:])) for a, b in zip(table.session_a, table.session_b)]


def check(table: pd.DataFrame, assessment: EvaluationResult) -> None:
    """The cells of every row against float64."""
    assert list(table.columns) == COLUMNS
    assert table.score.dtype == np.float64
    assert table.genuine.dtype == bool
    embeddings, ids = assessment.tested.predictions.embeddings.astype(float), assessment.tested.labels.ids
    for row, (one, other) in zip(table.itertuples(), rows_of(table)):
        a, b = embeddings[one], embeddings[other]
        if assessment.pair_scores.scale.measure == "cosine":
            assert row.score == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)
        else:
            assert row.score == pytest.approx(-np.linalg.norm(a - b), rel=1e-4)
        assert (row.id_a, row.id_b) == (ids[one], ids[other])
        assert row.genuine == (ids[one] == ids[other])


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_every_pair_is_there_once_with_its_score(measure: Measure) -> None:
    assessment = example(list("abcabcabbd"), measure=measure)
    table, note = score_table(assessment)
    assert note == ""
    assert sorted(rows_of(table)) == list(itertools.combinations(range(10), 2))
    check(table, assessment)


def test_the_limit_itself_still_has_every_pair() -> None:
    assessment = example(list("abcabcabbd"))
    assert len(score_table(assessment, max_pairs=45)[0]) == 45
    assert score_table(assessment, max_pairs=45)[1] == ""
    assert score_table(assessment, max_pairs=44)[1] != ""


def test_beyond_the_limit_all_genuine_pairs_and_a_sample_of_impostors_are_there_once() -> None:
    ids = list("aabbccdd" * 4)
    assessment = example(ids)
    genuine = {pair for pair in itertools.combinations(range(32), 2) if ids[pair[0]] == ids[pair[1]]}
    for most in (len(genuine) + 1, 200, 400, 495):
        table, note = score_table(assessment, max_pairs=most)
        pairs = rows_of(table)
        assert len(pairs) == len(set(pairs)) == most
        assert all(one < other for one, other in pairs)
        assert {pair for pair, own in zip(pairs, table.genuine) if own} == genuine
        assert note.startswith("scores.parquet holds all 112 genuine pairs")
        assert f"{most - 112} of 384 impostor pairs" in note
        check(table, assessment)


def test_genuine_pairs_alone_may_be_more_than_the_limit() -> None:
    table, note = score_table(example(list("aaaaabbb")), max_pairs=5)
    assert len(table) == 13
    assert table.genuine.all()
    assert " 0 of 15 impostor pairs" in note


def test_the_sample_is_a_function_of_the_seed() -> None:
    assessment = example(list("abcdef" * 4))
    one, again, other = (score_table(assessment, max_pairs=100, seed=seed)[0] for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)


def test_every_impostor_pair_is_as_likely_as_any_other() -> None:
    """20 of 49 impostor pairs in each of 150 samples; the subjects have 1 to 5 sessions."""
    ids = list("aaaaabbbbccd")
    assessment = example(ids)
    impostors = [pair for pair in itertools.combinations(range(12), 2) if ids[pair[0]] != ids[pair[1]]]
    seen = dict.fromkeys(impostors, 0)
    for seed in range(150):
        table, _ = score_table(assessment, max_pairs=17 + 20, seed=seed)
        for pair, own in zip(rows_of(table), table.genuine):
            if not own:
                seen[pair] += 1
    share = 20 / len(impostors)
    away = (np.array(list(seen.values())) - 150 * share) / np.sqrt(150 * share * (1 - share))
    assert np.abs(away).max() < 4
    assert away.std() == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("most", [2, 1000])
def test_of_a_list_its_pairs_are_there_in_its_order_whatever_the_limit(most: int) -> None:
    listed = PairList(np.array([5, 0, 3, 1]), np.array([2, 4, 0, 6]), None)
    assessment = example(list("aabbaba"), listed)
    table, note = score_table(assessment, max_pairs=most)
    assert rows_of(table) == [(5, 2), (0, 4), (3, 0), (1, 6)]
    assert note == ""
    assert table.genuine.tolist() == [True, True, False, True]
    check(table, assessment)


def test_one_session_has_a_table_without_rows() -> None:
    table, note = score_table(example(["a"]))
    assert list(table.columns) == COLUMNS
    assert len(table) == 0
    assert note == ""
