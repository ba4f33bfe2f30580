"""What a training leaves when it is over: its report, its models with their cards, and what of these is handed to the run."""

from collections.abc import Mapping, Sequence

from fr_ps.evaluation.assess import Assessment
from fr_ps.evaluation.numbers.findings import Findings
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.report import headline, write_report
from fr_ps.markdown import markdown_lines
from fr_ps.tracking.layout import BEST, CHECKPOINTS
from fr_ps.tracking.run import Run
from fr_ps.training.keeper import best_folder
from fr_ps.training.model_card import write_model_card
from fr_ps.training.record import Plan, default_name, facts_of


def record_end(
    plan: Plan,
    run: Run,
    metrics: Metrics,
    tested: Assessment | None,
    epochs: Mapping[str, int],
    sections: Mapping[str, Findings],
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
    select = plan.config.train.select
    facts = facts_of(plan, metrics, tested, epochs[select])
    write_report(run.folder / "report", plan.config.name or default_name(plan.config), facts, metrics, tested, sections, warnings)
    warnings = [*warnings, *(tested.warnings if tested else ())]
    lines = [*headline(metrics, "test" if tested else "val"), *warnings]
    if tested:
        lines = [facts["tested"], *lines]
    run.tags({"fr_ps.best_epoch": str(epochs[select]), "mlflow.note.content": markdown_lines(lines)})
    run.artifact(run.folder / "report", "report")
    models = {metric: run.folder / (BEST if metric == select else best_folder(metric)) for metric in epochs}
    for metric, epoch in epochs.items():
        mine = (metrics, facts, warnings) if metric == select else (_at(run, epoch), {"intervals": "none"}, ())
        write_model_card(models[metric], plan, metric, epoch, *mine)
    for file in sorted((run.folder / CHECKPOINTS).glob("[!.]*/model.safetensors")):
        run.artifact(file.parent, f"{CHECKPOINTS}/{file.parent.name}")
    for metric, epoch in epochs.items():
        run.model(models[metric], epoch)


def _at(run: Run, epoch: int) -> Metrics:
    """The validation's points of an epoch."""
    metrics = Metrics()
    for name, points in run.curves.items():
        if name.startswith("val/") and epoch in points:
            metrics.add(name, points[epoch])
    return metrics
