"""Scoring a model folder on a prepared data set, with its report."""

from pathlib import Path

import numpy as np
import torch

from fr_ps.data.dataset import open_dataset
from fr_ps.data.split_files import SPLIT_FILE, read_part
from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.report import headline, population, write_report
from fr_ps.evaluation.subsets import evaluate_subsets
from fr_ps.models.folder import load_model
from fr_ps.progress import progress
from fr_ps.tracking.run import Run


def evaluate_folder(
    model: Path, data: Path, out: Path, run: Run, *, part: str | None, device: torch.device, batch: int
) -> Metrics:
    """Score the model in the folder `model` on the data set at `data`; write the report to `out` and record it in `run`.

    Args:
        model: a model folder.
        data: a prepared data set.
        out: folder for metrics.json, scores.parquet, report.html and figures.
        run: what records the evaluation.
        part: of the split that the model was trained with; None for every row.
        device: to compute on.
        batch: sessions a batch.

    Returns:
        The metrics, named `test/...`, or `val/...`, `train/...` or `gallery/...` where that part was asked for.

    Raises:
        InputError: the model, the data or the part cannot be used.
    """
    network, info = load_model(model, device)
    dataset = open_dataset(data, info.modalities, classes=info.classes)
    if dataset.store.size != info.size:
        raise InputError(
            f"{data}: maps are {dataset.store.size} px, but the model reads {info.size}; prepare with --size {info.size}"
        )
    rows = np.arange(len(dataset.labels)) if part is None else read_part(model / SPLIT_FILE, part, dataset.labels)
    with progress("score", len(rows), "sessions") as advance:
        labels = dataset.labels.take(rows)
        evaluation, fewer = evaluate_subsets(network, dataset.store, rows, labels, info.trained, batch, advance)
    prefix = part or "test"
    metrics = evaluation.metrics.joined(fewer).under(prefix)
    facts = {
        "tested": population(evaluation)
        + (f": the {part} part of the model's own split" if part else ": every row of the table"),
        "headline": "; ".join(headline(metrics, prefix)),
        "model": f"{model}, {info.backbones} on {', '.join(info.modalities)}, run {info.provenance.get('run', '?')}",
        "data": f"{data}, digest {dataset.store.digest}, {dataset.labels.form} labels",
    }
    write_report(out, f"Evaluation of {model}", facts, metrics, evaluation)
    run.params({"model": str(model), "data": str(data), "part": part or "all"})
    run.tags(
        {
            "fr_ps.kind": "evaluate",
            "fr_ps.data_digest": dataset.store.digest,
            "mlflow.note.content": "  \n".join(headline(metrics, prefix)),
        }
    )
    run.dataset(data.resolve().name, str(data.resolve()), dataset.store.digest, {"sessions": len(rows)}, "testing")
    run.metrics(metrics.defined(), 0)
    run.artifact(out, "report")
    return metrics
