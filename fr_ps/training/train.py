"""A training from settings to result: `train` by hand, in a test or a benchmark; its first half, `fit`, in a trial of a study."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from fr_ps.config import Config
from fr_ps.data.builtin import resolve_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.preparation import find_preparation
from fr_ps.data.splits import make_split
from fr_ps.device import pick_device
from fr_ps.evaluation.evaluate_predictions import validation_metrics
from fr_ps.evaluation.metrics import Metrics, ReportSection
from fr_ps.losses import MultiTaskLoss, build_losses
from fr_ps.models.folder import ModelInfo
from fr_ps.models.inference import predict
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import OnProgress, progress
from fr_ps.report.table import DrawFigure
from fr_ps.tracking.layout import CONFIG_FILE, list_checkpoints
from fr_ps.tracking.provenance import code_versions
from fr_ps.tracking.run import Run
from fr_ps.training.batch_loader import BatchLoader
from fr_ps.training.build_model import Folders, branch_configs, build_model, check_leakage, resolve_branch_folders
from fr_ps.training.checkpoint_manager import CheckpointManager, resume
from fr_ps.training.divergence import divergence_warning
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.ema import ModelEma
from fr_ps.training.ending import log_artifacts
from fr_ps.training.figures import learning_rate_figure
from fr_ps.training.finalize import evaluate_best
from fr_ps.training.guard import NonFiniteGuard
from fr_ps.training.optim import build_optimizer
from fr_ps.training.schedule import learning_rate, reversal_alpha, warmup_note
from fr_ps.training.setup import Echo, TrainingSetup, epoch_line, log_setup, training_figures, write_config
from fr_ps.training.signals import GracefulStop, StopRequested
from fr_ps.training.train_state import TrainState
from fr_ps.training.trainer import train_epoch


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        metrics: `val/...` of the best checkpoint and `test/...`.
        best_epoch: from 1; the last one where nobody was validated on.
        epochs: that were trained.
        warnings: what has to be known before the test's numbers are read.
    """

    metrics: Metrics
    best_epoch: int
    epochs_trained: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FitResult:
    """A training after its last epoch; nobody was tested.

    Attributes:
        plan: what was trained on what.
        learner: with the weights of the last epoch, and the validation metrics of the best one.
        device: that it was trained on.
        chosen: the best epoch, from 1; the last one where nobody was validated on.
        rates: picture of the learning rate.
        warnings: what has to be known before its numbers are read.
    """

    setup: TrainingSetup
    state: TrainState
    device: torch.device
    best_epoch: int
    learning_rate_figure: DrawFigure
    warnings: tuple[str, ...] = ()


EpochCallback = Callable[[int, Metrics], None]
"""Called after each epoch with its number, from 1, and its validation metrics; may end the training by an exception."""


def train(
    config: Config, run: Run, echo: Echo = print, allow_changed: bool = False, changed_settings: Mapping[str, str] | None = None
) -> TrainResult:
    """Train, choose the best epoch on validation, evaluate it once on test, and record everything in `run`.

    Where the run's folder has a checkpoint, the training goes on from it, and ends with the very weights that it would have
    had without the interruption.

    Args:
        config: the settings.
        run: what records them; checkpoints and report are written to its folder.
        say: called with lines for the user.
        allow_changed: whether a training that goes on may do so with other data or another split.
        changed: settings that are otherwise than they were, to `before -> now`.

    Raises:
        InputError: data or settings that cannot be used, a disk that is full, numbers that went bad.
    """
    fitted = fit(config, run, echo, allow_changed=allow_changed, changed_settings=changed_settings)
    plan, learner, chosen = fitted.setup, fitted.state, fitted.best_epoch
    test = evaluate_best(run.folder, plan, fitted.device)
    run.log_metrics(test.metrics.defined(), chosen)
    metrics = learner.best_metrics.merge(test.metrics)
    sections = test.sections | {
        "Training": ReportSection(figures=training_figures(run.metric_history, plan.info.trained, fitted.learning_rate_figure))
    }
    epochs = {metric: selection.best_epoch or learner.epoch for metric, selection in learner.trackers.items()}
    log_artifacts(plan, run, metrics, test.assessment, epochs, sections, fitted.warnings)
    warnings = (*fitted.warnings, *(test.assessment.warnings if test.assessment else ()))
    return TrainResult(metrics, chosen, learner.epoch, warnings)


def fit(
    config: Config,
    run: Run,
    echo: Echo = print,
    on_epoch: EpochCallback | None = None,
    allow_changed: bool = False,
    changed_settings: Mapping[str, str] | None = None,
) -> FitResult:
    """Train and choose the best epoch on validation; as `train`, but nobody is tested, and there is no report.

    Args:
        config: the settings.
        run: what records them; checkpoints are written to its folder.
        say: called with lines for the user.
        judge: asked after each epoch whether to go on; also, after a resume, only about epochs that are trained then.
        allow_changed: whether a training that goes on may do so with other data or another split.
        changed: settings that are otherwise than they were, to `before -> now`.

    Raises:
        InputError: data or settings that cannot be used, a disk that is full, numbers that went bad.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    device = pick_device(config.device)
    if not (run.folder / CONFIG_FILE).exists():  # what makes a run that ends before its first step begin again
        write_config(run.folder, config)
    folders = resolve_branch_folders(config)
    plan, feed = build_setup(config, folders, run, device, echo)
    torch.manual_seed(config.train.seed)
    network = build_model(config, plan.info, folders, echo, load_initial_weights=not list_checkpoints(run.folder)).to(device)
    counts = feed.class_counts(plan.info.class_counts())
    losses = build_losses(config.loss, network.channels, feed.sessions_per_subject(), counts, network.adversarial_tasks).to(
        device
    )
    learner = build_train_state(config, network, losses)
    resume(learner, plan, feed, run, echo, allow_changed)
    if changed_settings:  # as tags, for params cannot be changed
        run.set_tags({f"fr_ps.changed.{name}": change for name, change in changed_settings.items()})
    log_setup(plan, run, echo)
    if note := warmup_note(config.schedule, lr=config.optim.lr, epochs=config.train.epochs):
        echo(note)
    rates = _train_epochs(plan, feed, learner, run, echo, on_epoch)
    chosen = learner.trackers[config.train.select].best_epoch or learner.epoch
    warning = divergence_warning(run.metric_history, plan.info.trained)
    if warning:
        run.set_tags({"fr_ps.warning": warning})
    return FitResult(plan, learner, device, chosen, rates, (warning,) if warning else ())


def build_setup(
    config: Config, branch_folders: Folders, run: Run, device: torch.device, echo: Echo
) -> tuple[TrainingSetup, BatchLoader]:
    """What is to be trained on what, and its batches.

    Raises:
        InputError: data, split or branches that cannot be used.
    """
    dataset = open_training_data(config, echo)
    split = make_split(dataset.labels, config.data, dataset.left_out)
    check_leakage(branch_folders, dataset.labels, split, config.data.protocol)
    feed = BatchLoader(dataset, split.train, config.batch, config.augment, config.train.seed, device, config.fusion.dropout)
    classes = dataset.labels.classes
    info = ModelInfo(
        branches=branch_configs(config, branch_folders, classes, dataset.store.size),
        fusion=config.fusion.name,
        size=dataset.store.size,
        classes=classes,
        trained=tuple(feed.class_counts({task: len(groups) for task, groups in classes.items()})),
        provenance={"run": run.id, "data_digest": dataset.store.digest} | _code_versions(),
        preparation=find_preparation(dataset.root, str(dataset.labels.ids[0]), str(dataset.labels.sessions[0])),
    )
    return TrainingSetup(config, dataset, split, info), feed


def _code_versions() -> dict[str, str]:
    """The commit and the versions."""
    return {"git_commit" if name == "commit" else name: value for name, value in code_versions().items()}


def build_train_state(config: Config, network: FaceNetwork, losses: MultiTaskLoss) -> TrainState:
    """A training of `network` before its first step."""
    selections = {config.train.select: BestTracker(config.train.select, config.train.patience)}
    selections |= {
        metric: BestTracker(metric, setting="train.watch") for metric in config.train.watch if metric not in selections
    }
    return TrainState(
        network,
        losses,
        build_optimizer(config.optim, [network, losses.identity], losses.weighting),
        ModelEma(network, config.train.ema),
        NonFiniteGuard([network, losses], config.train.bad_steps),
        selections,
    )


def _train_epochs(
    setup: TrainingSetup, loader: BatchLoader, state: TrainState, run: Run, echo: Echo, on_epoch: EpochCallback | None
) -> DrawFigure:
    """Train what is left, with a checkpoint after every epoch and as often within one as is set; returns the rates' figure."""
    config, train = setup.config, setup.config.train
    batches = len(loader.epoch_batches(state.epoch))
    steps = math.ceil(batches / train.accumulate)
    rate = learning_rate(config.schedule, lr=config.optim.lr, epochs=train.epochs, steps=steps)
    alpha = partial(reversal_alpha, steps=steps * train.epochs, alpha=config.loss.reversal, ramp=config.loss.reversal_ramp)
    selection = state.trackers[train.select]
    with GracefulStop() as stop, CheckpointManager(setup, loader, state, run) as keeper:

        def stepped() -> None:
            keeper.save_if_due()
            stop.check()

        try:
            while state.epoch < train.epochs and not selection.should_stop:
                epoch = state.epoch + 1
                with progress(f"epoch {epoch}/{train.epochs}", batches, "batches") as advance:
                    advance(state.batch)
                    values = train_epoch(
                        state,
                        loader,
                        rate=rate,
                        reversal=alpha,
                        clip=config.optim.clip,
                        accumulate=train.accumulate,
                        stepped=stepped,
                        advance=advance,
                        good=keeper.latest_name,
                    )
                validation = _validate(state.ema.network, setup, stop.check) if len(setup.split.val) else Metrics()
                run.log_metrics(values | validation.defined(), epoch)
                better = state.update_best(validation) if len(setup.split.val) else [train.select]
                state.end_epoch()
                keeper.save_epoch(better)
                echo(epoch_line(epoch, train.epochs, values, validation, selection))
                if on_epoch:
                    on_epoch(epoch, validation)
            keeper.wait()
            stop.check()
        except StopRequested as request:
            keeper.save()
            keeper.wait()
            echo(f"stopped in epoch {state.epoch + 1}; go on with: fr-ps train --resume {run.id}")
            raise request.exit_exception() from None
    if selection.should_stop and state.epoch < train.epochs:
        echo(f"stopped: {train.patience} epochs without a better {train.select}")
    return partial(learning_rate_figure, rate, state.epoch, steps)


def open_training_data(config: Config, echo: Echo = print) -> Dataset:
    """The data set that the settings name; the built-in faces are made first where they are not there yet."""
    data = config.data
    root = resolve_root(data.root, config.synthetic)
    dataset = open_dataset(root, data.modalities, data)
    labels = dataset.labels
    people = len(np.unique(labels.ids))
    echo(f"data: {root}: {len(labels)} sessions of {people} people, {labels.encoding} labels, {dataset.store.size} px")
    for note in dataset.notes:
        echo(note)
    return dataset


def _validate(network: FaceNetwork, setup: TrainingSetup, on_batch: OnProgress) -> Metrics:
    rows = setup.split.val
    answers = predict(network, setup.dataset.store, rows, setup.config.train.scoring_batch, on_batch)
    return validation_metrics(answers, setup.dataset.labels.subset(rows), setup.info.trained).with_prefix("val")
