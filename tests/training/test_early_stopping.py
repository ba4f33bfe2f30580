"""Which epoch is the best, and when to stop."""

import pytest

from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import Metrics
from fr_ps.training.early_stopping import BestTracker

AUC, EER = "val/identity/auc", "val/identity/eer"


def follow(metric: str, values: list[float], patience: int = 0) -> tuple[list[bool], list[bool], BestTracker]:
    """Whether each epoch was better, and whether the patience was used up after it."""
    selection = BestTracker(metric, patience)
    better, exhausted = [], []
    for value in values:
        better.append(selection.update(Metrics({metric: value})))
        exhausted.append(selection.should_stop)
    return better, exhausted, selection


@pytest.mark.parametrize("metric", [AUC, "val/gender/balanced_accuracy", "val/identity/tar_at_far_0.01", "val/identity/rank1"])
def test_a_higher_score_is_better(metric: str) -> None:
    better, _, selection = follow(metric, [0.5, 0.4, 0.6, 0.6, 0.7])
    assert better == [True, False, True, False, True]
    assert (selection.best, selection.best_epoch) == (0.7, 5)


def test_a_lower_equal_error_rate_is_better() -> None:
    better, _, selection = follow(EER, [0.5, 0.6, 0.4, 0.4, 0.45])
    assert better == [True, False, True, False, False]
    assert (selection.best, selection.best_epoch) == (0.4, 3)


def test_a_metric_of_zero_is_a_value() -> None:
    assert follow(AUC, [0.0, 0.1])[0] == [True, True]
    assert follow(EER, [0.1, 0.0, 0.05])[0] == [True, True, False]


def test_patience_counts_the_epochs_since_the_best_one() -> None:
    assert follow(AUC, [0.5, 0.4, 0.6, 0.5, 0.5], patience=2)[1] == [False, False, False, False, True]
    assert follow(AUC, [0.5, 0.4], patience=1)[1] == [False, True]


def test_without_patience_it_never_stops() -> None:
    assert not any(follow(AUC, [0.9] + [0.1] * 50)[1])


def test_an_unknown_metric_lists_the_defined_ones() -> None:
    with pytest.raises(InputError) as caught:
        BestTracker("val/identity/acu", 0).update(Metrics({AUC: 0.5, EER: 0.5}))
    assert str(caught.value) == f"train.select is 'val/identity/acu'; expected one of {AUC}, {EER}"


def test_an_undefined_metric_is_an_error_with_its_reason() -> None:
    metrics = Metrics()
    metrics.add("val/pose/auc", None, "the only class is frontal")
    with pytest.raises(InputError, match=r"val/pose/auc.*undefined.*the only class is frontal"):
        BestTracker("val/pose/auc", 0).update(metrics)


def test_a_metric_with_low_support_is_rejected(rejected) -> None:  # type: ignore[no-untyped-def]
    metrics = Metrics()
    metrics.add("val/identity/tar_at_far_0.01", 0.7, "low support: 3.6 expected false matches of 360 impostor pairs")
    with rejected("train.select", "too little support", "3.6 expected"):
        BestTracker("val/identity/tar_at_far_0.01").update(metrics)


def test_a_lower_calibration_error_is_better() -> None:
    selection = BestTracker("val/gender/ece")
    better = []
    for value in (0.1, 0.3, 0.05):
        metrics = Metrics()
        metrics.add("val/gender/ece", value)
        better.append(selection.update(metrics))
    assert better == [True, False, True]
