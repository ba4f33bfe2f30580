"""What comes after the last epoch: thresholds from validation into the models, and the one test."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fr_ps.evaluation.calibrate_thresholds import calibrate_thresholds
from fr_ps.evaluation.evaluate_predictions import EvaluationResult, LabelledPredictions, evaluate_predictions
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.modality_subsets import predict_with_subsets
from fr_ps.evaluation.pair_figures import pair_figures
from fr_ps.models.folder import load_model
from fr_ps.models.inference import predict
from fr_ps.models.network import FaceNetwork
from fr_ps.models.thresholds import read_thresholds, write_thresholds
from fr_ps.tracking.layout import BEST_CHECKPOINT
from fr_ps.training.setup import TrainingSetup


@dataclass(frozen=True)
class FinalEvaluation:
    """What the test part said.

    Attributes:
        assessment: None where nobody was tested.
        metrics: `val/...` with fewer maps, and `test/...`.
        sections: of the report, beside the assessment's.
    """

    assessment: EvaluationResult | None
    metrics: Metrics
    sections: dict[str, ReportSection] = field(default_factory=dict)


def evaluate_best(run_folder: Path, setup: TrainingSetup, device: torch.device) -> FinalEvaluation:
    """Give every best model its thresholds, and test the one that was chosen.

    Args:
        run_folder: where the checkpoints are.
        plan: of the training.
        device: to compute on.
    """
    metrics = Metrics()
    for folder in sorted(run_folder.glob(f"{BEST_CHECKPOINT}*")) if len(setup.split.val) else ():
        network, _ = load_model(folder, device)
        validated, fewer = _predict(network, setup, setup.split.val)
        write_thresholds(folder, calibrate_thresholds(validated.predictions, validated.labels, setup.info.trained))
        if folder == run_folder / BEST_CHECKPOINT:
            metrics = fewer.with_prefix("val")
    if not len(setup.split.test):
        return FinalEvaluation(None, metrics)
    network, _ = load_model(run_folder / BEST_CHECKPOINT, device)
    scored, fewer = _predict(network, setup, setup.split.test)
    store, labels = setup.dataset.store, setup.dataset.labels
    gallery = None
    if len(enrolled := setup.split.gallery):
        gallery = LabelledPredictions(
            predict(network, store, enrolled, setup.config.train.scoring_batch), labels.subset(enrolled)
        )
    assessment = evaluate_predictions(scored, setup.info.trained, read_thresholds(run_folder / BEST_CHECKPOINT), gallery=gallery)
    shown = np.concatenate([setup.split.test, setup.split.gallery])
    pictures = pair_figures(assessment, store, shown, labels.subset(shown))
    metrics = metrics.merge(assessment.metrics.merge(fewer).with_prefix("test"))
    return FinalEvaluation(assessment, metrics, {"Pairs": ReportSection(figures=pictures)})


def _predict(network: FaceNetwork, setup: TrainingSetup, rows: np.ndarray) -> tuple[LabelledPredictions, Metrics]:
    """About some rows with all maps, and the metrics with fewer."""
    labels = setup.dataset.labels.subset(rows)
    batch = setup.config.train.scoring_batch
    answers, fewer = predict_with_subsets(network, setup.dataset.store, rows, labels, setup.info.trained, batch)
    return LabelledPredictions(answers, labels), fewer
