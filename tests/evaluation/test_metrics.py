"""Named numbers."""

import pytest

from fr_ps.evaluation.metrics import Metrics


def example() -> Metrics:
    metrics = Metrics()
    metrics.add("auc", 0.0)
    metrics.add("eer", None, "no genuine pair")
    metrics.add("tar", 0.5, "low support")
    return metrics


def test_an_undefined_metric_needs_a_reason() -> None:
    with pytest.raises(AssertionError, match="auc"):
        Metrics().add("auc", None)


def test_a_zero_is_defined_and_none_is_not() -> None:
    assert example().defined() == {"auc": 0.0, "tar": 0.5}


def test_a_prefix_stands_before_values_and_reasons() -> None:
    metrics = example().under("val/identity")
    assert metrics.values == {"val/identity/auc": 0.0, "val/identity/eer": None, "val/identity/tar": 0.5}
    assert metrics.reasons == {"val/identity/eer": "no genuine pair", "val/identity/tar": "low support"}


def test_the_json_is_flat() -> None:
    assert example().as_json() == {
        "metrics": {"auc": 0.0, "eer": None, "tar": 0.5},
        "reasons": {"eer": "no genuine pair", "tar": "low support"},
        "intervals": {},
    }
