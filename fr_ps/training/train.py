"""A training from settings to result: `train` by hand, in a test or a benchmark; its first half, `fit`, in a trial of a study."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure

from fr_ps.config import Config
from fr_ps.data.builtin import data_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.maps_of import prepared_with
from fr_ps.data.splits import make_split
from fr_ps.device import pick_device
from fr_ps.evaluation.numbers.findings import Findings
from fr_ps.evaluation.numbers.metrics import Metrics
from fr_ps.evaluation.score import answer, evaluate
from fr_ps.losses import MultiTaskLoss, build_losses
from fr_ps.models.folder import ModelInfo
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import Advance, progress
from fr_ps.tracking.layout import CONFIG_FILE, checkpoints
from fr_ps.tracking.provenance import versions
from fr_ps.tracking.run import Run
from fr_ps.training.assemble import Folders, architectures, assemble, find_branches, require_unseen
from fr_ps.training.divergence import divergence_warning
from fr_ps.training.ema import WeightAverage
from fr_ps.training.ending import record_end
from fr_ps.training.feed import Feed
from fr_ps.training.figures import rate_figure
from fr_ps.training.finish import finish
from fr_ps.training.guard import Guard
from fr_ps.training.keeper import Keeper, go_on
from fr_ps.training.learner import Learner
from fr_ps.training.loop import train_epoch
from fr_ps.training.optim import build_optimizer
from fr_ps.training.record import Plan, Say, describe, epoch_line, figures, write_config
from fr_ps.training.schedule import learning_rate, reversal, warmup_note
from fr_ps.training.selection import Selection
from fr_ps.training.stopping import GracefulStop, StopRequested


@dataclass(frozen=True)
class Result:
    """What a training came to.

    Attributes:
        metrics: `val/...` of the best checkpoint and `test/...`.
        best_epoch: from 1; the last one where nobody was validated on.
        epochs: that were trained.
        warnings: what has to be known before the test's numbers are read.
    """

    metrics: Metrics
    best_epoch: int
    epochs: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """A training after its last epoch; nobody was tested.

    Attributes:
        plan: what was trained on what.
        learner: with the weights of the last epoch, and the validation metrics of the best one.
        device: that it was trained on.
        chosen: the best epoch, from 1; the last one where nobody was validated on.
        rates: picture of the learning rate.
        warnings: what has to be known before its numbers are read.
    """

    plan: Plan
    learner: Learner
    device: torch.device
    chosen: int
    rates: Figure
    warnings: tuple[str, ...] = ()


Judge = Callable[[int, Metrics], None]
"""Called after each epoch with its number, from 1, and its validation metrics; may end the training by an exception."""


def train(
    config: Config, run: Run, say: Say = print, allow_changed: bool = False, changed: Mapping[str, str] | None = None
) -> Result:
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
    fitted = fit(config, run, say, allow_changed=allow_changed, changed=changed)
    plan, learner, chosen = fitted.plan, fitted.learner, fitted.chosen
    test = finish(run.folder, plan, fitted.device)
    run.metrics(test.metrics.defined(), chosen)
    metrics = learner.validation.joined(test.metrics)
    sections = test.sections | {"Training": Findings(figures=figures(run.curves, plan.info.trained, fitted.rates))}
    epochs = {metric: selection.best_epoch or learner.epoch for metric, selection in learner.selections.items()}
    record_end(plan, run, metrics, test.assessment, epochs, sections, fitted.warnings)
    warnings = (*fitted.warnings, *(test.assessment.warnings if test.assessment else ()))
    return Result(metrics, chosen, learner.epoch, warnings)


def fit(
    config: Config,
    run: Run,
    say: Say = print,
    judge: Judge | None = None,
    allow_changed: bool = False,
    changed: Mapping[str, str] | None = None,
) -> Fitted:
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
    folders = find_branches(config)
    plan, feed = make_plan(config, folders, run, device, say)
    torch.manual_seed(config.train.seed)
    network = assemble(config, plan.info, folders, say, fresh=not checkpoints(run.folder)).to(device)
    counts = feed.class_counts(plan.info.class_counts())
    losses = build_losses(config.loss, network.channels, feed.person_counts(), counts, network.judged).to(device)
    learner = new_learner(config, network, losses)
    go_on(learner, plan, feed, run, say, allow_changed)
    if changed:  # as tags, for params cannot be changed
        run.tags({f"fr_ps.changed.{name}": change for name, change in changed.items()})
    describe(plan, run, say)
    if note := warmup_note(config.schedule, lr=config.optim.lr, epochs=config.train.epochs):
        say(note)
    rates = _epochs(plan, feed, learner, run, say, judge)
    chosen = learner.selections[config.train.select].best_epoch or learner.epoch
    warning = divergence_warning(run.curves, plan.info.trained)
    if warning:
        run.tags({"fr_ps.warning": warning})
    return Fitted(plan, learner, device, chosen, rates, (warning,) if warning else ())


def make_plan(config: Config, folders: Folders, run: Run, device: torch.device, say: Say) -> tuple[Plan, Feed]:
    """What is to be trained on what, and its batches.

    Raises:
        InputError: data, split or branches that cannot be used.
    """
    dataset = open_training_data(config, say)
    split = make_split(dataset.labels, config.data, dataset.left_out)
    require_unseen(folders, dataset.labels, split, config.data.protocol)
    feed = Feed(dataset, split.train, config.batch, config.augment, config.train.seed, device, config.fusion.dropout)
    classes = dataset.labels.classes
    info = ModelInfo(
        branches=architectures(config, folders, classes, dataset.store.size),
        fusion=config.fusion.name,
        size=dataset.store.size,
        classes=classes,
        trained=tuple(feed.class_counts({task: len(groups) for task, groups in classes.items()})),
        provenance={"run": run.id, "data_digest": dataset.store.digest} | _code(),
        preparation=prepared_with(dataset.root, str(dataset.labels.ids[0]), str(dataset.labels.sessions[0])),
    )
    return Plan(config, dataset, split, info), feed


def _code() -> dict[str, str]:
    """The commit and the versions."""
    return {"git_commit" if name == "commit" else name: value for name, value in versions().items()}


def new_learner(config: Config, network: FaceNetwork, losses: MultiTaskLoss) -> Learner:
    """A training of `network` before its first step."""
    selections = {config.train.select: Selection(config.train.select, config.train.patience)}
    selections |= {metric: Selection(metric, setting="train.watch") for metric in config.train.watch if metric not in selections}
    return Learner(
        network,
        losses,
        build_optimizer(config.optim, [network, losses.identity], losses.weighting),
        WeightAverage(network, config.train.ema),
        Guard([network, losses], config.train.bad_steps),
        selections,
    )


def _epochs(plan: Plan, feed: Feed, learner: Learner, run: Run, say: Say, judge: Judge | None) -> Figure:
    """Train what is left, with a checkpoint after every epoch and as often within one as is set; returns the rates' figure."""
    config, train = plan.config, plan.config.train
    batches = len(feed.order(learner.epoch))
    steps = math.ceil(batches / train.accumulate)
    rate = learning_rate(config.schedule, lr=config.optim.lr, epochs=train.epochs, steps=steps)
    alpha = partial(reversal, steps=steps * train.epochs, alpha=config.loss.reversal, ramp=config.loss.reversal_ramp)
    selection = learner.selections[train.select]
    with GracefulStop() as stop, Keeper(plan, feed, learner, run) as keeper:

        def stepped() -> None:
            keeper.stepped()
            stop.poll()

        try:
            while learner.epoch < train.epochs and not selection.exhausted:
                epoch = learner.epoch + 1
                with progress(f"epoch {epoch}/{train.epochs}", batches, "batches") as advance:
                    advance(learner.batch)
                    values = train_epoch(
                        learner,
                        feed,
                        rate=rate,
                        reversal=alpha,
                        clip=config.optim.clip,
                        accumulate=train.accumulate,
                        stepped=stepped,
                        advance=advance,
                        good=keeper.newest,
                    )
                validation = _validate(learner.average.network, plan, stop.poll) if len(plan.split.val) else Metrics()
                run.metrics(values | validation.defined(), epoch)
                better = learner.judge(validation) if len(plan.split.val) else [train.select]
                learner.next_epoch()
                keeper.epoch_ended(better)
                say(epoch_line(epoch, train.epochs, values, validation, selection))
                if judge:
                    judge(epoch, validation)
            keeper.finish()
            stop.poll()
        except StopRequested as request:
            keeper.write()
            keeper.finish()
            say(f"stopped in epoch {learner.epoch + 1}; go on with: fr-ps train --resume {run.id}")
            raise request.leave() from None
    if selection.exhausted and learner.epoch < train.epochs:
        say(f"stopped: {train.patience} epochs without a better {train.select}")
    return rate_figure(rate, learner.epoch, steps)


def open_training_data(config: Config, say: Say = print) -> Dataset:
    """The data set that the settings name; the built-in faces are made first where they are not there yet."""
    data = config.data
    root = data_root(data.root, config.synthetic)
    dataset = open_dataset(root, data.modalities, data.labels, data.classes, data)
    labels = dataset.labels
    people = len(np.unique(labels.ids))
    say(f"data: {root}: {len(labels)} sessions of {people} people, {labels.form} labels, {dataset.store.size} px")
    for note in dataset.notes:
        say(note)
    return dataset


def _validate(network: FaceNetwork, plan: Plan, poll: Advance) -> Metrics:
    rows = plan.split.val
    answers = answer(network, plan.dataset.store, rows, plan.config.train.scoring_batch, poll)
    return evaluate(answers, plan.dataset.labels.take(rows), plan.info.trained).under("val")
