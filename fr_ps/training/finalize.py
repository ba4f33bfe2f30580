"""After the last epoch: thresholds from validation, evaluation on test, report, model cards, and logging them to the run."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fr_ps.distributed import from_main_process
from fr_ps.evaluation.calibrate_thresholds import calibrate_thresholds
from fr_ps.evaluation.evaluate_model import RowPredictions, evaluate_rows, predict_rows
from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.evaluation.modality_subsets import predict_with_subsets
from fr_ps.evaluation.report import INTERVAL_NOTE, describe_test_set, headline_lines, undefined_summary, write_report
from fr_ps.evaluation.report_lead import describe_lead, report_lead
from fr_ps.losses.multitask import ADVERSARIAL_PREFIX
from fr_ps.markdown import markdown_lines
from fr_ps.models.folder import load_model
from fr_ps.models.inference import BATCH_SIZE, Predictions
from fr_ps.models.thresholds import read_thresholds, write_thresholds
from fr_ps.report.figures import COLOURS, legend_beside, new_figure, use_plain_tick_labels
from fr_ps.report.table import DrawFigure
from fr_ps.tracking.run import Run
from fr_ps.tracking.run_folder import BEST_CHECKPOINT, CHECKPOINTS_FOLDER
from fr_ps.tracking.tracked_metrics import best_metrics, result_metrics
from fr_ps.training.checkpoint_manager import best_folder
from fr_ps.training.model_card import write_model_card
from fr_ps.training.schedule import build_schedule
from fr_ps.training.setup import TrainingSetup, default_run_name
from fr_ps.training.train_state import TrainState

Curves = Mapping[str, Mapping[int, float]]
"""Metric name to epoch to value."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        metrics: `val/...` of the best checkpoint, and `test/...`.
        best_epoch: from 1; without validation the last one.
        epochs_trained: number of trained epochs, also those before a resume.
        warnings: a diverged training, and limits of the test metrics; for the user.
    """

    metrics: Metrics
    best_epoch: int
    epochs_trained: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class BestPredictions:
    """Predictions of the best models.

    Attributes:
        validation: model folder to the predictions of the validation part, and the metrics of each subset of the maps.
        test: of the selected model; None without a test part.
    """

    validation: dict[Path, tuple[Predictions, Metrics]]
    test: RowPredictions | None


@dataclass(frozen=True)
class FinalEvaluation:
    """The evaluation of the best model.

    Attributes:
        test_result: of the test part; None without one.
        metrics: `val/...` of each subset of the maps, and `test/...`.
    """

    test_result: EvaluationResult | None
    metrics: Metrics


def finalize(
    setup: TrainingSetup, state: TrainState, run: Run, *, steps_per_epoch: int, warnings: tuple[str, ...]
) -> TrainResult:
    """Evaluate the best model, write report and model cards, and log them and the checkpoints to `run`.

    Args:
        setup: of the training.
        state: after the last epoch.
        run: of the training, with its checkpoints.
        steps_per_epoch: optimizer steps per epoch.
        warnings: of the training.
    """
    best_epoch = state.best_epoch
    final = evaluate_best(run.folder, setup, next(state.network.parameters()).device)
    run.log_final_metrics(best_metrics(state.best_metrics.defined(), setup.config.train.select), best_epoch)
    # At step 0, for which MLflow draws bars instead of curves of one point.
    run.log_final_metrics(result_metrics(final.metrics.defined(), "test"), 0)
    metrics = state.best_metrics.merge(final.metrics)
    figures = training_figures(run.metric_history, setup.info.trained, best_epoch)
    config = setup.config
    lr_at = build_schedule(config.schedule, lr=config.optim.lr, epochs=config.train.epochs, steps_per_epoch=steps_per_epoch)
    logged_rates = run.metric_history.get("train/lr", {})
    figures["learning_rate"] = partial(learning_rate_figure, lr_at, logged_rates, state.epoch, steps_per_epoch)
    sections = {"Training": ReportSection(figures=figures)}
    best_epochs = {metric: tracker.best_epoch or state.epoch for metric, tracker in state.trackers.items()}
    log_artifacts(setup, run, metrics, final.test_result, best_epochs, sections, warnings)
    test_warnings = final.test_result.warnings if final.test_result else ()
    return TrainResult(metrics, best_epoch, state.epoch, (*warnings, *test_warnings))


def predict_best(run_folder: Path, setup: TrainingSetup, device: torch.device) -> BestPredictions:
    """Predict validation with every best model, and the test part with the selected one.

    The processes of a training share the batches: all call it, and none waits for the analyses of the main one.

    Args:
        run_folder: folder with the checkpoints.
        setup: setup of the training.
        device: device of the networks.
    """
    split, store, trained = setup.split, setup.dataset.store, setup.info.trained
    validated: dict[Path, tuple[Predictions, Metrics]] = {}
    for folder in from_main_process(lambda: sorted(run_folder.glob(f"{BEST_CHECKPOINT}*"))) if len(split.val) else ():
        network, _ = load_model(folder, device)
        labels = setup.dataset.labels.subset(split.val)
        validated[folder] = predict_with_subsets(network, store, split.val, labels, trained, BATCH_SIZE)
    if not len(split.test):
        return BestPredictions(validated, None)
    network, _ = load_model(run_folder / BEST_CHECKPOINT, device)
    return BestPredictions(validated, predict_rows(network, trained, setup.dataset, split.test, split.gallery, BATCH_SIZE))


def evaluate_best(run_folder: Path, setup: TrainingSetup, device: torch.device) -> FinalEvaluation:
    """Write the thresholds of every best model, and evaluate the selected one on the test part.

    Args:
        run_folder: folder with the checkpoints.
        setup: setup of the training.
        device: device of the networks.
    """
    predicted, trained, best = predict_best(run_folder, setup, device), setup.info.trained, run_folder / BEST_CHECKPOINT
    metrics = Metrics()
    for folder, (predictions, subsets) in predicted.validation.items():
        write_thresholds(folder, calibrate_thresholds(predictions, setup.dataset.labels.subset(setup.split.val), trained))
        if folder == best:
            metrics = subsets.with_prefix("val")
    if not predicted.test:
        return FinalEvaluation(None, metrics)
    result = evaluate_rows(predicted.test, trained, setup.dataset, read_thresholds(best), model=best, device=device)
    return FinalEvaluation(result, metrics.merge(result.metrics.with_prefix("test")))


def log_artifacts(
    setup: TrainingSetup,
    run: Run,
    metrics: Metrics,
    test_result: EvaluationResult | None,
    best_epochs: Mapping[str, int],
    sections: Mapping[str, ReportSection],
    warnings: Sequence[str] = (),
) -> None:
    """Write the report and the model cards, and log them and the checkpoints to the run.

    Args:
        setup: of the training.
        run: of the training.
        metrics: `val/...` of the selected model, and `test/...`.
        test_result: of the test part; None without one.
        best_epochs: metric to its best epoch; `train.select` first.
        warnings: of the training, beside those of `test_result`.
    """
    select = setup.config.train.select
    facts = report_facts(setup, metrics, test_result, best_epochs[select])
    title = setup.config.name or default_run_name(setup.config)
    lead = report_lead(
        f"{facts['model']}; data {setup.dataset.root.resolve().name}", metrics, "test" if test_result else "val", test_result
    )
    write_report(run.folder / "report", title, facts, metrics, test_result, sections, warnings, lead)
    warnings = [*warnings, *(test_result.warnings if test_result else ())]
    summary = describe_lead(lead, warnings)
    run.set_tags({"fr_ps.best_epoch": str(best_epochs[select]), "mlflow.note.content": markdown_lines(summary)})
    run.log_artifact(run.folder / "report", "report")
    models = {metric: run.folder / (BEST_CHECKPOINT if metric == select else best_folder(metric)) for metric in best_epochs}
    for metric, epoch in best_epochs.items():
        if metric == select:
            write_model_card(models[metric], setup, metric, epoch, metrics, facts, warnings, summary)
        else:
            watched = _metrics_at_epoch(run, epoch)
            summary_of_watched = describe_lead(report_lead("", watched, "val", None), ())
            write_model_card(models[metric], setup, metric, epoch, watched, {"intervals": "none"}, (), summary_of_watched)
    for file in sorted((run.folder / CHECKPOINTS_FOLDER).glob("[!.]*/model.safetensors")):
        run.log_artifact(file.parent, f"{CHECKPOINTS_FOLDER}/{file.parent.name}")
    for metric, epoch in best_epochs.items():
        run.log_model(models[metric], epoch, title if metric == select else f"{title} best {metric}")


def _metrics_at_epoch(run: Run, epoch: int) -> Metrics:
    """The validation metrics of an epoch."""
    metrics = Metrics()
    for name, points in run.metric_history.items():
        if name.startswith("val/") and epoch in points:
            metrics.add(name, points[epoch])
    return metrics


def report_facts(setup: TrainingSetup, metrics: Metrics, test_result: EvaluationResult | None, best_epoch: int) -> dict[str, str]:
    """The first lines of the report: the test part, the headline metrics, the model, its selection, and the data."""
    config, dataset, val_rows = setup.config, setup.dataset, setup.split.val
    maps = ", ".join(config.data.modalities) + (f" ({config.fusion_label})" if config.fusion_label else "")
    return {
        "tested": f"{describe_test_set(test_result)}: {config.data.unseen}" if test_result else "no test (data.test_people is 0)",
        "headline": "; ".join(headline_lines(metrics, "test" if test_result else "val")) or "no validation and no test",
        **(undefined_summary(metrics, "test") if test_result else {}),
        "model": f"{setup.info.backbones} on {maps}, {dataset.store.map_size} px, epoch {best_epoch}",
        "chosen by": f"{config.train.select} on {len(val_rows)} sessions" if len(val_rows) else "nothing: the last epoch",
        "data": f"{dataset.root.resolve().name}, digest {dataset.store.digest}, {dataset.labels.encoding} labels",
        "intervals": INTERVAL_NOTE,
    }


def training_figures(metric_history: Curves, trained: Sequence[str], best_epoch: int = 0) -> dict[str, DrawFigure]:
    """Losses, task weights and validation metrics over the epochs."""
    tasks = ["identity", *trained]
    adversarial = [ADVERSARIAL_PREFIX + task for task in trained]
    losses = [f"train/loss/{task}" for task in tasks]
    weights = [f"train/weight/{task}" for task in tasks]
    curves = partial(curves_figure, metric_history, best_epoch=best_epoch)
    figures: dict[str, DrawFigure] = {
        "losses": partial(curves, "Training losses", losses, logarithmic=True),
        "weights": partial(curves, "Task weights", weights),
    }
    optional = {
        "adversarial": ("Adversarial losses", [f"train/loss/{task}" for task in adversarial]),
        "adversarial_weights": ("Weights of the adversarial losses", [f"train/weight/{task}" for task in adversarial]),
        "validation": ("Validation AUC", [f"val/{task}/auc" for task in tasks]),
    }
    for key, (title, names) in optional.items():
        if any(name in metric_history for name in names):
            figures[key] = partial(curves, title, names)
    return figures


def curves_figure(curves: Curves, title: str, names: Sequence[str], logarithmic: bool = False, best_epoch: int = 0) -> Figure:
    """The curves `names` over the epochs, one line each; a curve without points is left out.

    A name has the same colour in all figures whose names are in the same order.

    Args:
        curves: by name.
        title: figure title.
        names: names of the curves.
        logarithmic: logarithmic vertical axis.
        best_epoch: epoch that a dashed line marks; 0: none.
    """
    figure, axes = new_figure(title, "epoch", "", legend=True)
    for number, name in enumerate(names):
        if curves.get(name):
            epochs, values = zip(*sorted(curves[name].items()))
            style = "-" if number < len(COLOURS) else "--"
            axes.plot(epochs, values, style, marker=".", color=COLOURS[number % len(COLOURS)], label=name.split("/", 1)[1])
    if logarithmic:
        axes.set_yscale("log")
        use_plain_tick_labels(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.lines:
        if best_epoch:
            axes.axvline(best_epoch, color="black", linewidth=1, linestyle="--", label=f"best epoch: {best_epoch}")
        legend_beside(axes)
    return figure


def learning_rate_figure(
    lr_at: Callable[[int], float], logged_rates: Mapping[int, float], epochs: int, steps_per_epoch: int
) -> Figure:
    """The learning rate of each step over the epochs, by `lr_at`, the schedule of the current settings.

    Before a resume that changed the settings, other rates were used. An epoch whose logged rate differs from `lr_at` has one
    point, the logged rate. The epoch in which the resume happened is drawn by `lr_at` as a whole.

    Args:
        lr_at: from `build_schedule`.
        logged_rates: epoch to the rate of its last step.
        epochs: number of trained epochs.
        steps_per_epoch: optimizer steps per epoch; the last step of epoch e is drawn at e, like the points of the other curves.
    """
    figure, axes = new_figure("Learning rate", "epoch", "")
    points: list[tuple[float, float]] = []
    for epoch in range(1, epochs + 1):
        last_rate = lr_at(epoch * steps_per_epoch - 1)
        logged = logged_rates.get(epoch, last_rate)
        if math.isclose(logged, last_rate, rel_tol=1e-6):
            steps = range((epoch - 1) * steps_per_epoch, epoch * steps_per_epoch)
            points += [((step + 1) / steps_per_epoch, lr_at(step)) for step in steps]
        else:
            points.append((epoch, logged))
    axes.plot(*zip(*points))
    axes.set_xlim(0, epochs)
    axes.set_ylim(bottom=0)
    return figure
