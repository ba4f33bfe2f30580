"""What comes after the last epoch: thresholds from validation into the models, and the one test."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fr_ps.evaluation.assess import Assessment, Scored, assess
from fr_ps.evaluation.choose import choose_thresholds
from fr_ps.evaluation.numbers.findings import Findings
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.pairwise.operating import read_thresholds, write_thresholds
from fr_ps.evaluation.pictures import pair_figures
from fr_ps.evaluation.score import answer
from fr_ps.evaluation.subsets import answers_and_subsets
from fr_ps.models.folder import load_model
from fr_ps.models.network import FaceNetwork
from fr_ps.tracking.layout import BEST
from fr_ps.training.record import Plan


@dataclass(frozen=True)
class Test:
    """What the test part said.

    Attributes:
        assessment: None where nobody was tested.
        metrics: `val/...` with fewer maps, and `test/...`.
        sections: of the report, beside the assessment's.
    """

    assessment: Assessment | None
    metrics: Metrics
    sections: dict[str, Findings] = field(default_factory=dict)


def finish(run_folder: Path, plan: Plan, device: torch.device) -> Test:
    """Give every best model its thresholds, and test the one that was chosen.

    Args:
        run_folder: where the checkpoints are.
        plan: of the training.
        device: to compute on.
    """
    metrics = Metrics()
    for folder in sorted(run_folder.glob(f"{BEST}*")) if len(plan.split.val) else ():
        network, _ = load_model(folder, device)
        validated, fewer = _answers(network, plan, plan.split.val)
        write_thresholds(folder, choose_thresholds(validated.answers, validated.labels, plan.info.trained))
        if folder == run_folder / BEST:
            metrics = fewer.under("val")
    if not len(plan.split.test):
        return Test(None, metrics)
    network, _ = load_model(run_folder / BEST, device)
    scored, fewer = _answers(network, plan, plan.split.test)
    store, labels = plan.dataset.store, plan.dataset.labels
    gallery = None
    if len(enrolled := plan.split.gallery):
        gallery = Scored(answer(network, store, enrolled, plan.config.train.scoring_batch), labels.take(enrolled))
    assessment = assess(scored, plan.info.trained, read_thresholds(run_folder / BEST), gallery=gallery)
    shown = np.concatenate([plan.split.test, plan.split.gallery])
    pictures = pair_figures(assessment, store, shown, labels.take(shown))
    metrics = metrics.joined(assessment.metrics.joined(fewer).under("test"))
    return Test(assessment, metrics, {"Pairs": Findings(figures=pictures)})


def _answers(network: FaceNetwork, plan: Plan, rows: np.ndarray) -> tuple[Scored, Metrics]:
    """About some rows with all maps, and the metrics with fewer."""
    labels = plan.dataset.labels.take(rows)
    batch = plan.config.train.scoring_batch
    answers, fewer = answers_and_subsets(network, plan.dataset.store, rows, labels, plan.info.trained, batch)
    return Scored(answers, labels), fewer
