"""A training from settings to result: training by hand, a trial of a study, a test and a benchmark all call `train`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure

from fr_ps.config import SYNTHETIC, Config, flatten, to_dict
from fr_ps.data.builtin import synthetic_dataset
from fr_ps.data.dataset import Dataset, open_dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.splits import PARTS, Split, make_split, write_split
from fr_ps.errors import InputError
from fr_ps.evaluation.figures import curves_figure
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.report import headline, population, write_report
from fr_ps.evaluation.score import Evaluation, answer, evaluate
from fr_ps.files import write_text
from fr_ps.losses import build_losses
from fr_ps.losses.multitask import ADVERSARIAL
from fr_ps.models import build_network
from fr_ps.models.folder import ModelInfo, load_model, save_model
from fr_ps.models.network import FaceNetwork
from fr_ps.progress import progress
from fr_ps.tracking.contract import Run
from fr_ps.tracking.provenance import environment_text, git_commit
from fr_ps.training.feed import Feed
from fr_ps.training.loop import train_epoch
from fr_ps.training.optim import build_optimizer
from fr_ps.training.schedule import polynomial
from fr_ps.training.selection import Selection

CONFIG_FILE = "config.yaml"
SPLIT_FILE = "split.csv"
Say = Callable[[str], None]


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
    split = make_split(dataset.labels, config.data)
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
    network = build_network(config.model, info.modalities, info.class_counts(), config.loss.reversal).to(device)
    losses = build_losses(config.loss, config.model.channels, len(feed.people), counts).to(device)
    _describe(config, run, dataset, split, info, say)

    history = History(run)
    steps = len(feed.order(0))
    rate = partial(
        polynomial,
        steps=steps * config.train.epochs,
        warmup=round(steps * config.schedule.warmup_epochs),
        lr=config.optim.lr,
        power=config.schedule.power,
    )
    optimizer = build_optimizer(config.optim, [network, losses.identity], losses.weighting)
    selection = Selection(config.train.select, config.train.patience)
    save = partial(save_model, info=info, also=partial(_write_settings, config=config, dataset=dataset, split=split))
    best = Metrics()
    epoch = 0
    for epoch in range(1, config.train.epochs + 1):
        with progress(f"epoch {epoch}/{config.train.epochs}", steps, "batches") as advance:
            values = train_epoch(
                network, losses, optimizer, feed, epoch=epoch - 1, rate=rate, clip=config.optim.clip, advance=advance
            )
        if not np.isfinite(values["train/loss/total"]):
            raise InputError(
                f"train/loss/total is {values['train/loss/total']} in epoch {epoch}; lower optim.lr ({config.optim.lr:g})"
            )
        validation = _score(network, dataset, split.val, info, config).metrics.under("val") if len(split.val) else Metrics()
        history.add(values | validation.defined(), epoch)
        save(run.folder / "checkpoints" / "last", network)
        if not len(split.val) or selection.is_better(validation):
            save(run.folder / "checkpoints" / "best", network)
            best = validation
        say(_epoch_line(epoch, config.train.epochs, values, validation, selection))
        if selection.exhausted:
            say(f"stopped: {config.train.patience} epochs without a better {config.train.select}")
            break

    chosen = selection.best_epoch or epoch
    network, _ = load_model(run.folder / "checkpoints" / "best", device)
    tested = _score(network, dataset, split.test, info, config) if len(split.test) else None
    test = tested.metrics.under("test") if tested else Metrics()
    history.add(test.defined(), chosen)
    metrics = Metrics(best.values | test.values, best.reasons | test.reasons)
    facts = _facts(config, dataset, split, tested, chosen, metrics)
    write_report(
        run.folder / "report", config.name or default_name(config), facts, metrics, tested, history.figures(info.trained)
    )
    _record_end(run, metrics, chosen, tested)
    return Result(metrics, chosen, epoch)


def open_training_data(config: Config, say: Say = print) -> Dataset:
    """The data set that the settings name; the built-in faces are made first where they are not there yet."""
    data = config.data
    root = synthetic_dataset(config.synthetic) if data.root == SYNTHETIC else Path(data.root)
    dataset = open_dataset(root, data.modalities, data.labels, data.classes)
    labels = dataset.labels
    people = len(np.unique(labels.ids))
    say(f"data: {root}: {len(labels)} sessions of {people} people, {labels.form} labels, {dataset.store.size} px")
    if dataset.ignored:
        say(f"ignored: {len(dataset.ignored)} sessions with maps but no row in the table, as {dataset.ignored[0]}")
    return dataset


def pick_device(name: str) -> torch.device:
    """The device that a setting names; `auto` takes a GPU where there is one."""
    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if have[kind]))
    if not have[name]:
        raise InputError(
            f"device is {name!r}, which is not here; expected one of {', '.join(kind for kind in have if have[kind])}"
        )
    return torch.device(name)


def default_name(config: Config) -> str:
    """Data, modality and backbone: what tells runs apart in a table."""
    return "-".join([Path(config.data.root).name, *config.data.modalities, config.model.backbone])


class History:
    """The curves of a training: sent to the run, and kept for the figures."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.curves: dict[str, list[tuple[int, float]]] = {}

    def add(self, values: dict[str, float], epoch: int) -> None:
        """Record the points of one epoch."""
        if not values:
            return
        self.run.metrics(values, epoch)
        for name, value in values.items():
            self.curves.setdefault(name, []).append((epoch, value))

    def figures(self, trained: Sequence[str]) -> dict[str, Figure]:
        """Losses, weights, validation and learning rate over the epochs."""
        tasks = ["identity", *trained]
        adversarial = [ADVERSARIAL + task for task in trained]
        figures = {
            "losses": curves_figure(
                self.curves, "Training losses", [f"train/loss/{task}" for task in ["total", *tasks]], logarithmic=True
            ),
            "adversarial": curves_figure(self.curves, "Adversarial losses", [f"train/loss/{task}" for task in adversarial]),
            "weights": curves_figure(
                self.curves, "Weights of the losses", [f"train/weight/{task}" for task in tasks + adversarial]
            ),
            "learning_rate": curves_figure(self.curves, "Learning rate at the end of each epoch", ["train/lr"]),
        }
        validated = [f"val/{task}/auc" for task in tasks]
        if any(name in self.curves for name in validated):
            figures["validation"] = curves_figure(self.curves, "Validation AUC", validated)
        return figures


def _score(network: FaceNetwork, dataset: Dataset, rows: np.ndarray, info: ModelInfo, config: Config) -> Evaluation:
    answers = answer(network, dataset.store, rows, config.train.scoring_batch)
    return evaluate(answers, dataset.labels.take(rows), info.trained)


def _describe(config: Config, run: Run, dataset: Dataset, split: Split, info: ModelInfo, say: Say) -> None:
    """Tell the run and the user what is about to be trained."""
    for part in PARTS:
        rows = getattr(split, part)
        say(f"{part}: {len(rows)} sessions of {len(np.unique(dataset.labels.ids[rows]))} people")
    for attribute in ATTRIBUTES:
        if attribute not in info.trained:
            say(f"{attribute}: not trained, as the training part has fewer than two classes of it")
    run.params(flatten(config))
    run.tags(
        {
            "fr_ps.kind": "train",
            "fr_ps.protocol": config.data.protocol,
            "fr_ps.modality": "+".join(config.data.modalities),
            "fr_ps.backbone": config.model.backbone,
            "fr_ps.labels": dataset.labels.form,
            "fr_ps.data_digest": dataset.store.digest,
            "mlflow.source.git.commit": info.provenance["git_commit"],
        }
    )
    for part, context in zip(PARTS, ("training", "validation", "testing")):
        rows = getattr(split, part)
        if len(rows):
            profile = {"sessions": len(rows), "people": len(np.unique(dataset.labels.ids[rows]))}
            run.dataset(dataset.root.resolve().name, str(dataset.root.resolve()), dataset.store.digest, profile, context)
    _write_settings(run.folder, config, dataset, split)
    write_text(run.folder / "environment.txt", environment_text())
    for name in (CONFIG_FILE, SPLIT_FILE, "environment.txt"):
        run.artifact(run.folder / name)


def _write_settings(folder: Path, config: Config, dataset: Dataset, split: Split) -> None:
    """What makes the same training again: settings, and who is in which part."""
    absolute = config.data.root if config.data.root == SYNTHETIC else str(Path(config.data.root).resolve())
    resolved = replace(config, data=replace(config.data, root=absolute))
    write_text(folder / CONFIG_FILE, yaml.safe_dump(to_dict(resolved), sort_keys=False))
    write_split(folder / SPLIT_FILE, dataset.labels, split)


def _epoch_line(epoch: int, epochs: int, values: dict[str, float], validation: Metrics, selection: Selection) -> str:
    line = f"epoch {epoch}/{epochs}  loss {values['train/loss/total']:.3f}  {values['train/images_per_second']:.0f} images/s"
    if not validation.values:
        return line
    mark = "  best" if selection.best_epoch == epoch else ""
    return f"{line}  {selection.metric} {validation.values[selection.metric]:.4f}{mark}"


def _facts(
    config: Config, dataset: Dataset, split: Split, tested: Evaluation | None, chosen: int, metrics: Metrics
) -> dict[str, str]:
    unseen = (
        "people never trained on" if config.data.protocol == "subject_disjoint" else "other sessions of the people trained on"
    )
    facts = {
        "tested": f"{population(tested)}: {unseen}" if tested else "nobody (data.test_people is 0)",
        "headline": "; ".join(headline(metrics, "test" if tested else "val")) or "nobody was validated or tested on",
        "model": f"{config.model.backbone} on {', '.join(config.data.modalities)}, {dataset.store.size} px, epoch {chosen}",
        "chosen by": f"{config.train.select} on {len(split.val)} sessions" if len(split.val) else "nothing: the last epoch",
        "data": f"{dataset.root.resolve().name}, digest {dataset.store.digest}, {dataset.labels.form} labels",
    }
    undefined = [name for name, value in metrics.values.items() if value is None and name.startswith("test/")]
    if undefined:
        facts["undefined on test"] = f"{', '.join(undefined)} (reasons below)"
    return facts


def _record_end(run: Run, metrics: Metrics, chosen: int, tested: Evaluation | None) -> None:
    lines = headline(metrics, "test" if tested else "val")
    run.tags({"fr_ps.best_epoch": str(chosen), "mlflow.note.content": "  \n".join(lines)})
    run.artifact(run.folder / "report", "report")
    for name in ("best", "last"):
        run.artifact(run.folder / "checkpoints" / name, f"checkpoints/{name}")
