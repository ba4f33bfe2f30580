"""What a training leaves when it is over: its report, its models with their cards, and what of these is handed to the run."""

from collections.abc import Mapping, Sequence

from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.report import headline_lines, write_report
from fr_ps.markdown import markdown_lines
from fr_ps.tracking.layout import BEST_CHECKPOINT, CHECKPOINTS_FOLDER
from fr_ps.tracking.run import Run
from fr_ps.training.checkpoint_manager import best_folder
from fr_ps.training.model_card import write_model_card
from fr_ps.training.setup import TrainingSetup, default_run_name, report_facts


def log_artifacts(
    setup: TrainingSetup,
    run: Run,
    metrics: Metrics,
    assessment: EvaluationResult | None,
    best_epochs: Mapping[str, int],
    sections: Mapping[str, ReportSection],
    warnings: Sequence[str] = (),
) -> None:
    """Write the report and the models' cards, and hand these and the checkpoints to the run.

    Args:
        plan: of the training.
        run: what records it.
        metrics: `val/...` of the model that decides, and `test/...`.
        tested: what the test said; None: nobody was tested.
        epochs: metric to the epoch that is the best by it, the metric that decides first.
        sections: of the report, beside the test's.
        warnings: of the training, beside the test's.
    """
    select = setup.config.train.select
    facts = report_facts(setup, metrics, assessment, best_epochs[select])
    write_report(
        run.folder / "report", setup.config.name or default_run_name(setup.config), facts, metrics, assessment, sections, warnings
    )
    warnings = [*warnings, *(assessment.warnings if assessment else ())]
    lines = [*headline_lines(metrics, "test" if assessment else "val"), *warnings]
    if assessment:
        lines = [facts["tested"], *lines]
    run.set_tags({"fr_ps.best_epoch": str(best_epochs[select]), "mlflow.note.content": markdown_lines(lines)})
    run.log_artifact(run.folder / "report", "report")
    models = {metric: run.folder / (BEST_CHECKPOINT if metric == select else best_folder(metric)) for metric in best_epochs}
    for metric, epoch in best_epochs.items():
        mine = (metrics, facts, warnings) if metric == select else (_metrics_at_epoch(run, epoch), {"intervals": "none"}, ())
        write_model_card(models[metric], setup, metric, epoch, *mine)
    for file in sorted((run.folder / CHECKPOINTS_FOLDER).glob("[!.]*/model.safetensors")):
        run.log_artifact(file.parent, f"{CHECKPOINTS_FOLDER}/{file.parent.name}")
    for metric, epoch in best_epochs.items():
        run.log_model(models[metric], epoch)


def _metrics_at_epoch(run: Run, epoch: int) -> Metrics:
    """The validation's points of an epoch."""
    metrics = Metrics()
    for name, points in run.metric_history.items():
        if name.startswith("val/") and epoch in points:
            metrics.add(name, points[epoch])
    return metrics
