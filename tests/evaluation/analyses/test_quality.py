"""Error versus discard and correlations with quality measures, against loops over the pairs, repeated pairs and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fr_ps.data.labels import DEFAULT_CLASSES, Labels
from fr_ps.evaluation.analyses import quality
from fr_ps.evaluation.analyses.quality import (
    DISCARD_LIMIT,
    correlation_replicates,
    error_versus_discard,
    oracle_curve,
    partial_auc,
    partial_auc_replicates,
    quality_section,
)
from fr_ps.evaluation.bootstrap import BootstrapWeights, bootstrap_weights
from fr_ps.evaluation.metrics import ReportSection

THRESHOLD = 0.5


@st.composite
def genuine_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, some of them equal to the threshold, and coarse qualities, so that there are many ties."""
    count = draw(st.integers(1, 12))
    columns = [draw(st.lists(st.integers(0, most), min_size=count, max_size=count)) for most in (4, 5, 5)]
    score, first, second = np.array(columns, dtype=float)
    return score / 4, first, second


def by_loops(score: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[tuple[float, float]]:
    pairs = [(min(a, b), s) for s, a, b in zip(score, first, second)]
    curve = []
    for least in sorted({low for low, _ in pairs}):
        kept = [s for low, s in pairs if low >= least]
        curve.append((1 - len(kept) / len(pairs), sum(s < THRESHOLD for s in kept) / len(kept)))
    return curve


def by_small_steps(discard: np.ndarray, fnmr: np.ndarray, limit: float) -> float:
    """The mean of the curve at many shares up to the limit, divided by its first value."""
    places = (np.arange(100_000) + 0.5) / 100_000 * limit
    return float(np.mean([fnmr[discard <= place][-1] for place in places[::50]]) / fnmr[0])


def value(curve: tuple[np.ndarray, np.ndarray], limit: float = DISCARD_LIMIT) -> float:
    return float(partial_auc(*curve, limit))


@given(genuine_pairs())
def test_the_curve_is_that_of_loops_over_the_pairs(pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    discard, fnmr = error_versus_discard(*pairs, THRESHOLD)
    np.testing.assert_allclose(np.stack([discard, fnmr], axis=1), by_loops(*pairs), atol=1e-12)
    assert discard[0] == 0


def test_the_quality_of_a_pair_is_that_of_its_worse_session_and_equal_ones_are_discarded_together() -> None:
    score = np.array([0.9, 0.1, 0.5, 0.4])
    first, second = np.array([3.0, 1.0, 9.0, 2.0]), np.array([7.0, 8.0, 1.0, 2.0])
    discard, fnmr = error_versus_discard(score, first, second, THRESHOLD)
    assert discard.tolist() == [0, 0.5, 0.75]
    assert fnmr.tolist() == [0.5, 0.5, 0]  # 0.5 is accepted


def test_the_area_is_the_mean_of_the_curve_up_to_the_limit_over_its_start() -> None:
    assert value((np.array([0, 0.1, 0.15, 0.5]), np.array([0.4, 0.2, 0.1, 0]))) == pytest.approx(
        (0.1 * 0.4 + 0.05 * 0.2 + 0.05 * 0.1) / (0.2 * 0.4)
    )
    rng = np.random.default_rng(0)
    curve = error_versus_discard(rng.random(60), rng.random(60), rng.random(60), THRESHOLD)
    for limit in (0.07, 0.2, 1.0):
        assert value(curve, limit) == pytest.approx(by_small_steps(*curve, limit), abs=2e-3)


def test_equal_qualities_give_a_flat_curve_and_the_area_1() -> None:
    score = np.array([0.1, 0.6, 0.9])
    curve = error_versus_discard(score, np.ones(3), np.ones(3), THRESHOLD)
    assert [part.tolist() for part in curve] == [[0], [pytest.approx(1 / 3)]]
    assert value(curve) == pytest.approx(1)


@given(genuine_pairs())
def test_nothing_is_better_than_the_oracle(pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    score = pairs[0]
    errors = int((score < THRESHOLD).sum())
    best, found = value(oracle_curve(len(score), errors)), value(error_versus_discard(*pairs, THRESHOLD))
    if errors:
        assert 0 < best <= found + 1e-12
    else:
        assert np.isnan([best, found]).all()


def test_a_quality_that_ranks_errors_first_equals_the_oracle_an_inverted_one_is_above_1_and_a_random_one_is_1() -> None:
    rng = np.random.default_rng(0)
    score = rng.permutation(np.arange(200)) / 200
    errors = int((score < 0.1).sum())
    by_score, best = error_versus_discard(score, score, score, 0.1), oracle_curve(200, errors)
    for found, expected in zip(by_score, best):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert value(by_score) == pytest.approx(errors / 200 / (2 * DISCARD_LIMIT), rel=0.15)
    assert value(error_versus_discard(score, -score, -score, 0.1)) > 1.05
    random = [value(error_versus_discard(score, guess, guess, 0.1)) for guess in rng.random((400, 200))]
    assert np.mean(random) == pytest.approx(1, abs=0.01)


def test_without_pairs_or_errors_the_area_is_undefined() -> None:
    none = np.empty(0)
    assert np.isnan(value(error_versus_discard(none, none, none, THRESHOLD)))
    assert np.isnan(value(error_versus_discard(np.ones(3), np.arange(3), np.arange(3), THRESHOLD)))


@given(genuine_pairs(), st.integers(0, 99))
def test_a_replicate_equals_its_pairs_repeated_as_often_as_their_subjects(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int
) -> None:
    score, first, second = pairs
    people = np.random.default_rng(seed).integers(0, 4, len(score))
    draws = bootstrap_weights(people, replicates=20, seed=seed)
    found = partial_auc_replicates(score, np.minimum(first, second), THRESHOLD, draws)
    for drawn, weights in zip(found, draws.weights):
        times = weights[draws.unit].astype(int)
        again = error_versus_discard(*(np.repeat(column, times) for column in pairs), THRESHOLD)
        assert drawn == pytest.approx(value(again), nan_ok=True)


def test_discarding_neighbouring_qualities_together_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.random(5000)
    score = 0.5 * lengths + rng.random(5000)
    draws = bootstrap_weights(rng.integers(0, 60, 5000), replicates=50)
    merged = partial_auc_replicates(score, lengths, THRESHOLD, draws)
    monkeypatch.setattr(quality, "MAX_STEPS", 5000)
    exact = partial_auc_replicates(score, lengths, THRESHOLD, draws)
    assert 0 < np.abs(merged - exact).max() < 0.02 * exact.std() + 1e-3


def test_the_correlation_of_a_replicate_is_that_of_repeated_sessions_and_undefined_if_constant() -> None:
    rng = np.random.default_rng(0)
    people = np.array([0, 0, *([1] * 50), 2])
    x, y = rng.random(53), rng.random(53)
    x[2:52] = 0.1
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 2, 1], [0, 3, 0]], dtype=np.float32)
    found = correlation_replicates(x, y, BootstrapWeights(people, weights, 3))
    for drawn, times in zip(found[:3], weights[:3, people].astype(int)):
        assert drawn == pytest.approx(np.corrcoef(np.repeat(x, times), np.repeat(y, times))[0, 1])
    assert np.isnan(found[3])


def example(people: int = 60, sessions: int = 4, seed: int = 0) -> tuple[np.ndarray, Labels, np.ndarray, np.ndarray, np.ndarray]:
    """Lengths that fall with the residual, and scores of genuine pairs that fall with the lengths."""
    rng = np.random.default_rng(seed)
    count = people * sessions
    ids = np.repeat([f"p{i:03d}" for i in range(people)], sessions)
    residual = rng.random(count)
    lengths = 30 - 10 * residual + rng.normal(size=count)
    first, second = (rows for rows in np.triu_indices(count, 1))
    same = ids[first] == ids[second]
    first, second = first[same], second[same]
    score = 0.05 * (np.minimum(lengths[first], lengths[second]) - 20) + 0.3 + 0.15 * rng.normal(size=len(first))
    columns = {
        "id": ids,
        "quality_residual": np.array([f"{number:.5f}" for number in residual]),
        "quality_shadowed": np.array(["", "n/a", *(f"{number:.5f}" for number in rng.random(count - 2))]),
        "quality_saturated": np.array(["0.00000"] * count),
        "quality_imbalance": np.array(["1.0", *([""] * (count - 1))]),
    }
    labels = Labels(ids, np.arange(count).astype(str), np.zeros((count, 5), np.int8), DEFAULT_CLASSES, "raw", columns)
    return lengths, labels, first, second, score


def section_of(
    lengths: np.ndarray, labels: Labels, first: np.ndarray, second: np.ndarray, score: np.ndarray, **more: float
) -> ReportSection:
    return quality_section(
        lengths,
        labels,
        first,
        second,
        score,
        more.get("threshold", THRESHOLD),
        "test",
        bootstrap_weights(labels.ids, replicates=200),
    )


def test_the_metrics_are_those_of_the_functions_and_within_their_intervals() -> None:
    lengths, labels, first, second, score = example()
    section = section_of(lengths, labels, first, second, score)
    values, intervals = section.metrics.values, section.metrics.intervals
    curve = error_versus_discard(score, lengths[first], lengths[second], THRESHOLD)
    assert values["quality/edc_pauc"] == value(curve)
    residual = labels.columns["quality_residual"].astype(float)
    assert values["quality/spearman_residual"] == pytest.approx(spearmanr(lengths, residual).statistic)
    shadowed = labels.columns["quality_shadowed"][2:].astype(float)
    assert values["quality/spearman_shadowed"] == pytest.approx(spearmanr(lengths[2:], shadowed).statistic)
    for name in ("quality/edc_pauc", "quality/spearman_residual", "quality/spearman_shadowed"):
        low, high = intervals[name]
        assert low < values[name] < high
    assert values["quality/edc_pauc"] < intervals["quality/edc_pauc"][1] < 1
    assert values["quality/spearman_residual"] < -0.8
    low, high = intervals["quality/spearman_shadowed"]
    assert low < 0 < high


def test_constant_measures_are_undefined_and_missing_ones_are_absent() -> None:
    metrics = section_of(*example()).metrics
    assert metrics.values["quality/spearman_saturated"] is None
    assert metrics.reasons["quality/spearman_saturated"] == "quality_saturated is 0 in all sessions"
    assert metrics.values["quality/spearman_imbalance"] is None
    assert "fewer than two" in metrics.reasons["quality/spearman_imbalance"]
    assert "quality/spearman_integrability" not in metrics.values


def test_the_table_has_the_fnmr_at_each_share_discarded_and_the_figures_the_curves() -> None:
    lengths, labels, first, second, score = example()
    section = section_of(lengths, labels, first, second, score)
    (table,) = section.tables
    cells = {row[0]: row[1:] for row in table.rows}
    assert cells["threshold"] == [THRESHOLD, None, None, "test"]
    discard, fnmr = error_versus_discard(score, lengths[first], lengths[second], THRESHOLD)
    assert cells["starting FNMR"][0] == pytest.approx(np.mean(score < THRESHOLD))
    for share in (0.05, 0.1, 0.2):
        assert cells[f"FNMR, {share:.0%} discarded"][0] == fnmr[discard <= share][-1]
    errors = int((score < THRESHOLD).sum())
    assert cells["starting FNMR"][3] == f"{errors} of {len(score)} genuine pairs"
    assert cells["pAUC of an oracle"][0] == value(oracle_curve(len(score), errors))
    assert cells["Spearman, magnitude and shadowed"][3] == f"{len(lengths) - 2} sessions"
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert set(section.figures) == {"error_versus_discard", "quality_measures"}
    assert len(section.figures["quality_measures"]().axes) == 2


def test_more_than_2000_sessions_are_plotted_as_2000_points() -> None:
    figure = section_of(*example(people=700)).figures["quality_measures"]()
    assert len(figure.axes[0].lines[0].get_xdata()) == quality.MAX_POINTS  # type: ignore[arg-type]


def test_without_genuine_pairs_errors_or_differences_in_length_there_is_a_reason_and_no_curve() -> None:
    lengths, labels, first, second, score = example()
    none = np.empty(0, dtype=int)
    for section, reason in (
        (section_of(lengths, labels, none, none, np.empty(0)), "no genuine pair"),
        (section_of(lengths, labels, first, second, score, threshold=-9), f"no false non-match among {len(score)}"),
        (section_of(np.ones(len(lengths)) + 1e-7 * lengths, labels, first, second, score), "same magnitude"),
    ):
        assert section.metrics.values["quality/edc_pauc"] is None
        assert reason in section.metrics.reasons["quality/edc_pauc"]
        assert "error_versus_discard" not in section.figures
        assert len(section.tables) == 1
    assert section.metrics.values["quality/spearman_residual"] is None


def test_fewer_than_30_errors_are_low_support_and_there_is_no_interval_without_replicates() -> None:
    lengths, labels, first, second, score = example(people=6)
    threshold = float(np.sort(score)[5])
    section = quality_section(lengths, labels, first, second, score, threshold, "test", None)
    assert section.metrics.reasons["quality/edc_pauc"] == f"low support: 5 false non-matches among {len(score)} genuine pairs"
    assert not section.metrics.intervals
    bare = Labels(labels.ids, labels.sessions, labels.codes, labels.classes, labels.encoding, {"id": labels.ids})
    section = quality_section(lengths, bare, first, second, score, threshold, "test", None)
    assert set(section.metrics.values) == {"quality/edc_pauc"}
    assert "the labels table has none" in section.tables[0].note
    assert "quality_measures" not in section.figures
