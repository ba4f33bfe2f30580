"""A training from settings to result: training by hand, a trial of a study, a test and a benchmark all call `train`."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from fr_ps.config import Config
from fr_ps.data.builtin import data_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.splits import make_split
from fr_ps.device import pick_device
from fr_ps.errors import InputError
from fr_ps.evaluation.figures import rate_figure
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.score import Evaluation, answer, evaluate
from fr_ps.evaluation.subsets import subset_metrics
from fr_ps.losses import build_losses
from fr_ps.models.folder import ModelInfo, copy_model, load_model, save_model
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import progress
from fr_ps.tracking.contract import Run
from fr_ps.tracking.provenance import git_commit
from fr_ps.training.assemble import architectures, assemble, find_branches, require_unseen
from fr_ps.training.ema import WeightAverage
from fr_ps.training.feed import Feed
from fr_ps.training.loop import train_epoch
from fr_ps.training.optim import build_optimizer
from fr_ps.training.record import History, Plan, Say, describe, epoch_line, record_end, write_settings
from fr_ps.training.schedule import learning_rate, reversal
from fr_ps.training.selection import Selection


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
    dataset = open_training_data(config, say)
    split = make_split(dataset.labels, config.data, dataset.left_out)
    torch.manual_seed(config.train.seed)
    folders = find_branches(config)
    require_unseen(folders, dataset.labels, split, config.data.protocol)
    feed = Feed(dataset, split.train, config.batch, config.augment, config.train.seed, device, config.fusion.dropout)
    counts = feed.class_counts({task: len(groups) for task, groups in dataset.labels.classes.items()})
    info = ModelInfo(
        branches=architectures(config, folders, dataset.labels.classes, dataset.store.size),
        fusion=config.fusion.name,
        size=dataset.store.size,
        classes=dataset.labels.classes,
        trained=tuple(counts),
        provenance={"run": run.id, "data_digest": dataset.store.digest, "git_commit": git_commit()},
    )
    network = assemble(config, info, folders, say).to(device)
    losses = build_losses(config.loss, network.channels, feed.person_counts(), counts, network.judged).to(device)
    plan = Plan(config, dataset, split, info)
    describe(plan, run, say)

    history = History(run)
    batches = len(feed.order(0))
    steps = math.ceil(batches / config.train.accumulate)
    rate = learning_rate(config.schedule, lr=config.optim.lr, epochs=config.train.epochs, steps=steps)
    alpha = partial(reversal, steps=steps * config.train.epochs, alpha=config.loss.reversal, ramp=config.loss.reversal_ramp)
    optimizer = build_optimizer(config.optim, [network, losses.identity], losses.weighting)
    average = WeightAverage(network, config.train.ema)
    selection = Selection(config.train.select, config.train.patience)
    save = partial(save_model, info=info, also=partial(write_settings, plan=plan))
    last, best = (run.folder / "checkpoints" / name for name in ("last", "best"))
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
        if not np.isfinite(values["train/loss/total"]):
            raise InputError(
                f"train/loss/total is {values['train/loss/total']} in epoch {epoch}; lower optim.lr ({config.optim.lr:g})"
            )
        validation = _score(average.network, plan, split.val).metrics.under("val") if len(split.val) else Metrics()
        history.add(values | validation.defined(), epoch)
        save(last, average.network)
        if not len(split.val) or selection.is_better(validation):
            copy_model(last, best)
            best_validation = validation
        say(epoch_line(epoch, config.train.epochs, values, validation, selection))
        if selection.exhausted:
            say(f"stopped: {config.train.patience} epochs without a better {config.train.select}")
            break

    chosen = selection.best_epoch or epoch
    network, _ = load_model(best, device)
    tested = _score(network, plan, split.test) if len(split.test) else None
    test = tested.metrics.under("test") if tested else Metrics()
    for part, rows in (("val", split.val), ("test", split.test)):
        test = test.joined(_with_fewer_maps(network, plan, rows).under(part))
    history.add(test.defined(), chosen)
    metrics = best_validation.joined(test)
    record_end(plan, run, metrics, tested, chosen, history.figures(info.trained, rate_figure(rate, epoch, steps)))
    return Result(metrics, chosen, epoch)


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


def _score(network: FaceNetwork, plan: Plan, rows: np.ndarray) -> Evaluation:
    answers = answer(network, plan.dataset.store, rows, plan.config.train.scoring_batch)
    return evaluate(answers, plan.dataset.labels.take(rows), plan.info.trained)


def _with_fewer_maps(network: FaceNetwork, plan: Plan, rows: np.ndarray) -> Metrics:
    if not len(rows):
        return Metrics()
    labels = plan.dataset.labels.take(rows)
    return subset_metrics(network, plan.dataset.store, rows, labels, plan.info.trained, plan.config.train.scoring_batch)
