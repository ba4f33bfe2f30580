"""The metrics in MLflow: few, in a fixed order, and with the best checkpoint's under names that sort runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from fr_ps.evaluation.metrics import Metrics
from fr_ps.tracking.lifecycle import start_run
from fr_ps.tracking.run import Run
from fr_ps.tracking.tracked_metrics import HEADLINE, best_metrics, difference_metrics, result_metrics, validation_curves
from fr_ps.training import trainer
from fr_ps.training.train import train
from tests.training.runs import small_config

AUC = "val/identity/auc"


def test_the_headline_comes_first_and_attributes_have_their_auc_only() -> None:
    logged = ["identity/tar_at_far_0.001", "identity/dprime", "gender/ece", "gender/auc", "identity/eer", "quality/edc_pauc"]
    values = {f"test/{name}": 0.5 for name in [*logged, "identity/auc", "identity/fmr_at_val_far_0.1"]}
    found = list(result_metrics(values | {AUC: 0.9}, "test"))
    assert found == [f"test/{name}" for name in ("identity/auc", "identity/eer", "gender/auc", "identity/tar_at_far_0.001")]
    assert len(HEADLINE) <= 10


def test_a_curve_is_a_main_metric_or_one_that_selects() -> None:
    names = [
        AUC,
        "val/pose/balanced_accuracy",
        "val/pose/ece",
        "val/gender/ece",
        "val/identity/rank5",
        "val/only_depth/identity/auc",
    ]
    assert list(validation_curves(dict.fromkeys(names, 0.5), ["val/gender/ece"])) == [AUC, names[1], "val/gender/ece"]


def test_the_metric_that_selects_is_the_first_of_the_best_checkpoint() -> None:
    values = {AUC: 0.9, "val/identity/eer": 0.1, "val/pose/auc": 0.8, "val/gender/auc": 0.7}
    assert list(best_metrics(values, "val/pose/auc")) == [f"best/{name}" for name in ("val/pose/auc", AUC, "val/identity/eer")]


def test_a_comparison_begins_with_the_identity_auc() -> None:
    names = [
        "a/gender/auc",
        "p/gender/auc",
        "difference/gender/auc",
        "a/identity/auc",
        "p/identity/auc",
        "difference/identity/auc",
    ]
    intervals = {"difference/identity/auc": (0.1, 0.9), "difference/gender/auc": (0.2, 0.8)}
    assert difference_metrics(dict.fromkeys(names, 0.5), intervals) == {
        "difference/identity/auc": 0.5,
        "low/identity/auc": 0.1,
        "high/identity/auc": 0.9,
        "p/identity/auc": 0.5,
        "a/identity/auc": 0.5,
        "difference/gender/auc": 0.5,
    }
    assert next(iter(difference_metrics(dict.fromkeys(names, 0.5), {}))) == "difference/identity/auc"


def test_sorting_runs_by_the_best_metric_sorts_their_checkpoints(
    prepared: Path, store: MlflowClient, monkeypatch: pytest.MonkeyPatch, undrawn: Any
) -> None:
    curves = {"early peak": [0.6, 0.95, 0.5], "late peak": [0.5, 0.6, 0.8], "flat": [0.7, 0.7, 0.7]}
    folders: dict[str, Path] = {}
    for name, curve in curves.items():
        values = iter(curve)
        monkeypatch.setattr(trainer, "validation_metrics", lambda *_, values=values: Metrics({"identity/auc": next(values)}))
        with start_run(name, Path("runs")) as run:
            train(small_config(prepared, epochs=3), run, echo=lambda line: None)
        folders[name] = run.folder

    def ordered(metric: str) -> list[str]:
        (experiment,) = store.search_experiments(filter_string="name = 'fr-ps'")
        runs = store.search_runs([experiment.experiment_id], order_by=[f"metrics.`{metric}` DESC"])
        return [str(run.info.run_name) for run in runs]

    def checkpoint_auc(name: str) -> float:
        return float(json.loads((folders[name] / "report" / "metrics.json").read_text())["metrics"][AUC])

    assert ordered(f"best/{AUC}") == sorted(curves, key=checkpoint_auc, reverse=True) == ["early peak", "late peak", "flat"]
    assert ordered(AUC) == ["late peak", "flat", "early peak"]  # by the last epoch, the best checkpoint is the last one
    assert Run(folders["early peak"]).metric_history[f"best/{AUC}"] == {1: 0.6, 2: 0.95}
