"""A training from settings to result: training by hand, a trial of a study, a test and a benchmark all call `train`."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from fr_ps.config import Config
from fr_ps.data.builtin import data_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.splits import make_split
from fr_ps.device import pick_device
from fr_ps.errors import InputError
from fr_ps.evaluation.figures import rate_figure
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.score import Evaluation, answer, evaluate
from fr_ps.evaluation.subsets import evaluate_subsets
from fr_ps.losses import MultiTaskLoss, build_losses
from fr_ps.models.folder import ModelInfo, copy_model, load_model, save_model
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import progress
from fr_ps.tracking.contract import Run
from fr_ps.tracking.provenance import git_commit
from fr_ps.training.assemble import Folders, architectures, assemble, find_branches, require_unseen
from fr_ps.training.ema import WeightAverage
from fr_ps.training.feed import Feed
from fr_ps.training.loop import train_epoch
from fr_ps.training.optim import build_optimizer
from fr_ps.training.record import History, Plan, Say, describe, epoch_line, record_end, write_settings
from fr_ps.training.schedule import learning_rate, reversal
from fr_ps.training.selection import Selection

LAST, BEST = Path("checkpoints") / "last", Path("checkpoints") / "best"


@dataclass(frozen=True)
class Result:
    """What a training came to.

    Attributes:
        metrics: `val/...` of the best checkpoint and `test/...`.
        best_epoch: from 1; the last one where nobody was validated on.
        epochs: that were trained.
    """

    metrics: Metrics
    best_epoch: int
    epochs: int


def train(config: Config, run: Run, say: Say = print) -> Result:
    """Train, choose the best epoch on validation, evaluate it once on test, and record everything in `run`.

    Args:
        config: the settings.
        run: what records them; checkpoints and report are written to its folder.
        say: called with lines for the user.

    Raises:
        InputError: data or settings that cannot be used.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    device = pick_device(config.device)
    folders = find_branches(config)
    plan, feed = _plan(config, folders, run, device, say)
    torch.manual_seed(config.train.seed)
    network = assemble(config, plan.info, folders, say).to(device)
    counts = feed.class_counts(plan.info.class_counts())
    losses = build_losses(config.loss, network.channels, feed.person_counts(), counts, network.judged).to(device)
    describe(plan, run, say)
    history = History(run)
    fitted = _fit(plan, feed, network, losses, history, say)

    network, _ = load_model(run.folder / BEST, device)
    final, tested = Metrics(), None
    if len(plan.split.val) and len(network.modalities) > 1:
        _, fewer = _score(network, plan, plan.split.val)
        final = fewer.under("val")
    if len(plan.split.test):
        tested, fewer = _score(network, plan, plan.split.test)
        final = final.joined(tested.metrics.joined(fewer).under("test"))
    history.add(final.defined(), fitted.chosen)
    metrics = fitted.validation.joined(final)
    record_end(plan, run, metrics, tested, fitted.chosen, history.figures(plan.info.trained, fitted.rates))
    return Result(metrics, fitted.chosen, fitted.epochs)


@dataclass(frozen=True)
class _Fitted:
    """What the epochs came to.

    Attributes:
        validation: `val/...` of the chosen epoch.
        chosen: the epoch, from 1.
        epochs: that were trained.
        rates: the learning rate of their steps.
    """

    validation: Metrics
    chosen: int
    epochs: int
    rates: Figure


def _plan(config: Config, folders: Folders, run: Run, device: torch.device, say: Say) -> tuple[Plan, Feed]:
    """What is to be trained on what, and its batches."""
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
        provenance={"run": run.id, "data_digest": dataset.store.digest, "git_commit": git_commit()},
    )
    return Plan(config, dataset, split, info), feed


def _fit(plan: Plan, feed: Feed, network: FaceNetwork, losses: MultiTaskLoss, history: History, say: Say) -> _Fitted:
    """Train, keeping the last checkpoint and the best."""
    config, split = plan.config, plan.split
    batches = len(feed.order(0))
    steps = math.ceil(batches / config.train.accumulate)
    rate = learning_rate(config.schedule, lr=config.optim.lr, epochs=config.train.epochs, steps=steps)
    alpha = partial(reversal, steps=steps * config.train.epochs, alpha=config.loss.reversal, ramp=config.loss.reversal_ramp)
    optimizer = build_optimizer(config.optim, [network, losses.identity], losses.weighting)
    average = WeightAverage(network, config.train.ema)
    selection = Selection(config.train.select, config.train.patience)
    last, best = history.run.folder / LAST, history.run.folder / BEST
    best_validation = Metrics()
    epoch = 0
    for epoch in range(1, config.train.epochs + 1):
        with progress(f"epoch {epoch}/{config.train.epochs}", batches, "batches") as advance:
            values = train_epoch(
                network,
                losses,
                optimizer,
                feed,
                epoch=epoch - 1,
                rate=rate,
                reversal=alpha,
                clip=config.optim.clip,
                accumulate=config.train.accumulate,
                stepped=average.update,
                advance=advance,
            )
        total = values["train/loss/total"]
        if not np.isfinite(total):
            raise InputError(f"train/loss/total is {total} in epoch {epoch}; lower optim.lr ({config.optim.lr:g})")
        validation = _validate(average.network, plan) if len(split.val) else Metrics()
        history.add(values | validation.defined(), epoch)
        save_model(last, average.network, plan.info, also=partial(write_settings, plan=plan))
        if not len(split.val) or selection.is_better(validation):
            copy_model(last, best)
            best_validation = validation
        say(epoch_line(epoch, config.train.epochs, values, validation, selection))
        if selection.exhausted:
            say(f"stopped: {config.train.patience} epochs without a better {config.train.select}")
            break
    return _Fitted(best_validation, selection.best_epoch or epoch, epoch, rate_figure(rate, epoch, steps))


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


def _validate(network: FaceNetwork, plan: Plan) -> Metrics:
    rows = plan.split.val
    answers = answer(network, plan.dataset.store, rows, plan.config.train.scoring_batch)
    return evaluate(answers, plan.dataset.labels.take(rows), plan.info.trained).metrics.under("val")


def _score(network: FaceNetwork, plan: Plan, rows: np.ndarray) -> tuple[Evaluation, Metrics]:
    """The evaluation of `rows` with all maps, and the metrics with fewer."""
    labels = plan.dataset.labels.take(rows)
    return evaluate_subsets(network, plan.dataset.store, rows, labels, plan.info.trained, plan.config.train.scoring_batch)
