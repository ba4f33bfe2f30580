"""Calibration against a loop over bins, scikit-learn's calibration curve, and models with a known error."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from fr_ps.evaluation.analyses.reliability import expected_calibration_error, reliability_diagram, reliability_figure
from fr_ps.evaluation.bootstrap import bootstrap_weights, unweighted


def by_loop(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> float:
    error = 0.0
    for step in range(10):
        low, high = np.linspace(0, 1, 11)[step : step + 2]
        inside = ((confidence > low) | (step == 0)) & (confidence <= high)
        share = weights[inside].sum()
        if share:
            error += share * abs(np.average(confidence[inside] - correct[inside], weights=weights[inside]))
    return error / weights.sum() if weights.sum() else np.nan


def sample(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = np.where(rng.random(count) < 0.3, rng.integers(11, size=count) / 10, rng.random(count))  # some at bin edges
    return confidence, rng.random(count) < confidence**2


@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), people=st.integers(1, 10))
def test_the_error_of_each_replicate_is_that_of_a_loop_over_bins(seed: int, count: int, people: int) -> None:
    confidence, correct = sample(seed, count)
    draws = bootstrap_weights(np.random.default_rng(seed).integers(people, size=count), 10, seed)
    found = expected_calibration_error(confidence, correct, draws)
    expected = [by_loop(confidence, correct, weights) for weights in draws.weights[:, draws.unit]]
    assert found == pytest.approx(np.array(expected), nan_ok=True)
    assert reliability_diagram(confidence, correct).error == pytest.approx(by_loop(confidence, correct, np.ones(count)))


def test_a_replicate_without_any_of_the_sessions_is_nan() -> None:
    draws = bootstrap_weights(np.array(["a", "b"]), 50).select(np.array([0]))
    found = expected_calibration_error(np.array([0.8]), np.array([True]), draws)
    assert (np.isnan(found) == (draws.weights[:, draws.unit[0]] == 0)).all()
    assert np.isnan(found).any()
    assert found[~np.isnan(found)] == pytest.approx(0.2)


def test_the_curve_equals_scikit_learn() -> None:
    confidence, correct = sample(0, 500)
    found = reliability_diagram(confidence, correct)
    frequency, mean = calibration_curve(correct, confidence, n_bins=10, strategy="uniform")
    assert found.frequency == pytest.approx(frequency)
    assert found.confidence == pytest.approx(mean)
    assert found.counts.sum() == 500


def test_a_bin_includes_its_upper_edge_and_the_first_bin_zero() -> None:
    found = reliability_diagram(np.array([0.0, 0.1, 0.1000001, 0.2, 1.0]), np.array([False, True, True, True, True]))
    assert found.counts.tolist() == [2, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found.frequency[:2].tolist() == [0.5, 1.0]
    assert np.isnan(found.frequency[2:9]).all()
    assert np.isnan(found.confidence[2:9]).all()


def test_confident_correct_predictions_have_error_0_and_confident_wrong_ones_1() -> None:
    correct = np.array([True, False, True])
    assert reliability_diagram(correct.astype(float), correct).error == 0
    assert reliability_diagram(1 - correct.astype(float), correct).error == 1


def test_the_error_of_a_constant_prediction_is_its_distance_from_the_observed_share() -> None:
    assert reliability_diagram(np.full(10, 0.75), np.arange(10) < 3).error == pytest.approx(0.45)


def test_a_calibrated_model_is_near_0_only_with_many_sessions() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(100_000)
    correct = rng.random(100_000) < confidence
    assert reliability_diagram(confidence, correct).error < 0.01
    assert np.mean([reliability_diagram(confidence[k : k + 50], correct[k : k + 50]).error for k in range(0, 5000, 50)]) > 0.05


def test_the_order_of_the_sessions_does_not_matter() -> None:
    confidence, correct = sample(2, 200)
    order = np.random.default_rng(3).permutation(200)
    shuffled = expected_calibration_error(confidence[order], correct[order], unweighted(200))
    assert shuffled == pytest.approx(expected_calibration_error(confidence, correct, unweighted(200)))


def test_the_figure_shows_the_occupied_bins_the_counts_and_the_error() -> None:
    found = reliability_diagram(np.array([0.05, 0.65, 0.7, 0.95]), np.array([False, True, False, True]))
    figure = reliability_figure(found, "Reliability of gender", "predicted probability of male", "observed frequency of male")
    above, below = figure.axes
    assert above.get_title("left") == f"Reliability of gender (ECE {found.error:.3f})"
    observed = above.lines[1].get_xydata()
    np.testing.assert_allclose(observed, [[0.05, 0], [0.675, 0.5], [0.95, 1]])
    assert [bar.get_height() for bar in below.patches] == [1, 0, 0, 0, 0, 0, 2, 0, 0, 1]
    assert [text.get_text() for text in below.texts] == ["1", "0", "0", "0", "0", "0", "2", "0", "0", "1"]
    assert (above.get_ylabel(), below.get_xlabel()) == ("observed frequency of male", "predicted probability of male")
    figure.savefig(png := io.BytesIO(), format="png")
    assert png.getvalue().startswith(b"\x89PNG")
