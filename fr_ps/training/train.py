"""A training from settings to result: training by hand, a trial of a study, a test and a benchmark all call `train`."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fr_ps.config import Config
from fr_ps.data.builtin import data_root
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.splits import make_split
from fr_ps.device import pick_device
from fr_ps.errors import InputError
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.score import Evaluation, answer, evaluate
from fr_ps.losses import build_losses
from fr_ps.models import build_network
from fr_ps.models.folder import ModelInfo, copy_model, load_model, save_model
from fr_ps.models.network import FaceNetwork, require_size
from fr_ps.models.weights import load_weights
from fr_ps.progress import progress
from fr_ps.tracking.contract import Run
from fr_ps.tracking.provenance import git_commit
from fr_ps.training.feed import Feed
from fr_ps.training.loop import train_epoch
from fr_ps.training.optim import build_optimizer
from fr_ps.training.record import History, Plan, Say, describe, epoch_line, record_end, write_settings
from fr_ps.training.schedule import polynomial, reversal
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
    feed = Feed(dataset, split.train, config.batch, config.augment, config.train.seed, device)
    counts = feed.class_counts({task: len(groups) for task, groups in dataset.labels.classes.items()})
    info = ModelInfo(
        model=config.model,
        modalities=config.data.modalities,
        size=dataset.store.size,
        classes=dataset.labels.classes,
        trained=tuple(counts),
        provenance={"run": run.id, "data_digest": dataset.store.digest, "git_commit": git_commit()},
    )
    network = build_network(config.model, info.modalities, info.class_counts()).to(device)
    require_size(network, info.size)
    if config.model.weights:
        say(load_weights(network, Path(config.model.weights)))
    losses = build_losses(config.loss, config.model.channels, feed.person_counts(), counts).to(device)
    plan = Plan(config, dataset, split, info)
    describe(plan, run, say)

    history = History(run)
    steps = len(feed.order(0))
    rate = partial(
        polynomial,
        steps=steps * config.train.epochs,
        warmup=round(steps * config.schedule.warmup_epochs),
        lr=config.optim.lr,
        power=config.schedule.power,
    )
    alpha = partial(reversal, steps=steps * config.train.epochs, alpha=config.loss.reversal, ramp=config.loss.reversal_ramp)
    optimizer = build_optimizer(config.optim, [network, losses.identity], losses.weighting)
    selection = Selection(config.train.select, config.train.patience)
    save = partial(save_model, info=info, also=partial(write_settings, plan=plan))
    last, best = (run.folder / "checkpoints" / name for name in ("last", "best"))
    best_validation = Metrics()
    epoch = 0
    for epoch in range(1, config.train.epochs + 1):
        with progress(f"epoch {epoch}/{config.train.epochs}", steps, "batches") as advance:
            values = train_epoch(
                network,
                losses,
                optimizer,
                feed,
                epoch=epoch - 1,
                rate=rate,
                reversal=alpha,
                clip=config.optim.clip,
                advance=advance,
            )
        if not np.isfinite(values["train/loss/total"]):
            raise InputError(
                f"train/loss/total is {values['train/loss/total']} in epoch {epoch}; lower optim.lr ({config.optim.lr:g})"
            )
        validation = _score(network, plan, split.val).metrics.under("val") if len(split.val) else Metrics()
        history.add(values | validation.defined(), epoch)
        save(last, network)
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
    history.add(test.defined(), chosen)
    metrics = Metrics(best_validation.values | test.values, best_validation.reasons | test.reasons)
    record_end(plan, run, metrics, tested, chosen, history.figures(info.trained))
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
