"""Named metrics: undefined values, prefixes, merges, JSON."""

import numpy as np
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


def test_zero_is_defined_and_none_is_undefined() -> None:
    assert example().defined() == {"auc": 0.0, "tar": 0.5}


def test_a_prefix_applies_to_values_and_reasons() -> None:
    metrics = example().with_prefix("val/identity")
    assert metrics.values == {"val/identity/auc": 0.0, "val/identity/eer": None, "val/identity/tar": 0.5}
    assert metrics.reasons == {"val/identity/eer": "no genuine pair", "val/identity/tar": "low support"}


def test_the_json_is_flat() -> None:
    assert example().as_json() == {
        "metrics": {"auc": 0.0, "eer": None, "tar": 0.5},
        "reasons": {"eer": "no genuine pair", "tar": "low support"},
        "intervals": {},
    }


def test_replicates_give_an_interval_that_a_merge_and_a_prefix_keep() -> None:
    metrics = Metrics()
    metrics.add("auc", 0.9, replicates=np.linspace(0.8, 1, 1001))
    metrics.add("eer", 0.0, replicates=np.zeros(5), subjects=10)
    assert metrics.intervals["auc"] == pytest.approx((0.805, 0.995))
    assert metrics.intervals["eer"] == pytest.approx((0, 1 - 0.05**0.1))
    carried = Metrics({"x": 1.0}).merge(metrics).with_prefix("test")
    assert carried.intervals == {f"test/{name}": found for name, found in metrics.intervals.items()}
    assert carried.as_json()["intervals"]["test/auc"] == list(metrics.intervals["auc"])
    assert set(carried.replicates) == {"test/auc", "test/eer"}


def test_a_merged_metric_has_all_fields_from_the_last() -> None:
    first, second = Metrics(), Metrics()
    first.add("auc", 0.9, "low support", np.linspace(0.8, 1, 11))
    second.add("auc", 0.7)
    joined = first.merge(second)
    assert joined.values == {"auc": 0.7}
    assert not joined.reasons
    assert not joined.intervals
    assert not joined.replicates


def test_select_keeps_only_the_named_metrics() -> None:
    assert example().select({"eer", "other"}) == Metrics({"eer": None}, {"eer": "no genuine pair"})
