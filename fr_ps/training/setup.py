"""What a training tells: to the run, to the user, and in its report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from fr_ps.config import Config, flatten, to_dict, with_absolute_paths
from fr_ps.data.dataset import Dataset
from fr_ps.data.labels import ATTRIBUTES
from fr_ps.data.split_files import PARTS, SPLIT_FILE, Split, write_split
from fr_ps.data.splits import describe_split
from fr_ps.evaluation.evaluate_predictions import EvaluationResult
from fr_ps.evaluation.metrics import Metrics
from fr_ps.evaluation.report import INTERVAL_NOTE, describe_test_set, headline_lines, undefined_summary
from fr_ps.files import write_text
from fr_ps.models.folder import ModelInfo
from fr_ps.models.network import ADVERSARIAL_PREFIX
from fr_ps.redaction import redact_tree
from fr_ps.report.table import DrawFigure
from fr_ps.tracking.layout import CONFIG_FILE
from fr_ps.tracking.provenance import environment_text
from fr_ps.tracking.run import Run
from fr_ps.training.early_stopping import BestTracker
from fr_ps.training.figures import curves_figure

ENVIRONMENT_FILE = "environment.txt"
Echo = Callable[[str], None]


@dataclass(frozen=True)
class TrainingSetup:
    """What is to be trained on what: settled before the first step."""

    config: Config
    dataset: Dataset
    split: Split
    info: ModelInfo


def default_run_name(config: Config) -> str:
    """Data, modalities, fusion and backbone: what tells runs apart in a table."""
    fusion = [config.fusion.name] if len(config.data.modalities) > 1 else []
    return "-".join([Path(config.data.root).name, *config.data.modalities, *fusion, config.model.backbone])


def training_figures(
    curves: Mapping[str, Mapping[int, float]], trained: Sequence[str], learning_rate_figure: DrawFigure
) -> dict[str, DrawFigure]:
    """Losses, weights, validation and learning rate (`rates`) over the epochs."""
    lines = {name: sorted(points.items()) for name, points in curves.items()}
    tasks = ["identity", *trained]
    adversarial = [ADVERSARIAL_PREFIX + task for task in trained]
    found: dict[str, DrawFigure] = {
        "losses": partial(curves_figure, lines, "Training losses", [f"train/loss/{task}" for task in tasks], logarithmic=True),
        "weights": partial(
            curves_figure, lines, "Weights of the losses", [f"train/weight/{task}" for task in tasks + adversarial]
        ),
        "learning_rate": learning_rate_figure,
    }
    judged = [f"train/loss/{task}" for task in adversarial]
    if any(name in lines for name in judged):
        found["adversarial"] = partial(curves_figure, lines, "Adversarial losses", judged)
    validated = [f"val/{task}/auc" for task in tasks]
    if any(name in lines for name in validated):
        found["validation"] = partial(curves_figure, lines, "Validation AUC", validated)
    return found


def log_setup(setup: TrainingSetup, run: Run, echo: Echo) -> None:
    """Tell the run and the user what is about to be trained."""
    config, dataset, split, info = setup.config, setup.dataset, setup.split, setup.info
    for part in PARTS:
        rows = getattr(split, part)
        if len(rows) or part != "gallery":
            echo(f"{part}: {len(rows)} sessions of {len(np.unique(dataset.labels.ids[rows]))} people")
    for note in describe_split(dataset.labels, split):
        echo(note)
    for attribute in ATTRIBUTES:
        if attribute not in info.trained:
            echo(f"{attribute}: not trained, as the training part has fewer than two classes of it")
    run.log_params(flatten(config))
    run.set_tags(
        {
            "fr_ps.kind": "train",
            "fr_ps.protocol": config.data.protocol,
            "fr_ps.modality": "+".join(config.data.modalities),
            "fr_ps.backbone": info.backbones,
            "fr_ps.labels": dataset.labels.encoding,
            "fr_ps.data_digest": dataset.store.digest,
            "mlflow.source.git.commit": info.provenance["git_commit"],
        }
    )
    profile = {"sessions": len(dataset.labels), "people": len(np.unique(dataset.labels.ids))}
    profile |= {f"{part}_sessions": len(getattr(split, part)) for part in PARTS}
    run.log_dataset(dataset.root.resolve().name, str(dataset.root.resolve()), dataset.store.digest, profile, "training")
    write_config_and_split(run.folder, setup)
    write_text(run.folder / ENVIRONMENT_FILE, environment_text())
    for name in (CONFIG_FILE, SPLIT_FILE, ENVIRONMENT_FILE):
        run.log_artifact(run.folder / name)


def write_config_and_split(folder: Path, setup: TrainingSetup) -> None:
    """Write what makes the same training again into `folder`: the settings, and who is in which part."""
    write_config(folder, setup.config)
    write_split(folder / SPLIT_FILE, setup.dataset.labels, setup.split)


def write_config(folder: Path, config: Config) -> None:
    """Write the resolved settings into `folder`."""
    write_text(folder / CONFIG_FILE, yaml.safe_dump(redact_tree(to_dict(with_absolute_paths(config))), sort_keys=False))


def epoch_line(epoch: int, epochs: int, values: dict[str, float], validation: Metrics, tracker: BestTracker) -> str:
    loss = f"loss {values['train/loss/total']:.3f}" if "train/loss/total" in values else "no good step"
    line = f"epoch {epoch}/{epochs}  {loss}  {values['train/images_per_second']:.0f} images/s"
    if bad := values["train/bad_steps"]:
        line += f"  {bad:.0f} bad steps skipped"
    if not validation.values:
        return line
    mark = "  best" if tracker.best_epoch == epoch else ""
    return f"{line}  {tracker.metric} {validation.values[tracker.metric]:.4f}{mark}"


def report_facts(setup: TrainingSetup, metrics: Metrics, assessment: EvaluationResult | None, best_epoch: int) -> dict[str, str]:
    """The first lines of the report of epoch `chosen`: who was tested, what came out, and what could not be told."""
    config, dataset, validated = setup.config, setup.dataset, setup.split.val
    unseen = (
        "people never trained on" if config.data.protocol == "subject_disjoint" else "other sessions of the people trained on"
    )
    maps = ", ".join(config.data.modalities) + (f" ({config.fusion.name})" if len(config.data.modalities) > 1 else "")
    return {
        "tested": f"{describe_test_set(assessment)}: {unseen}" if assessment else "nobody (data.test_people is 0)",
        "headline": "; ".join(headline_lines(metrics, "test" if assessment else "val")) or "nobody was validated or tested on",
        **(undefined_summary(metrics, "test") if assessment else {}),
        "model": f"{setup.info.backbones} on {maps}, {dataset.store.size} px, epoch {best_epoch}",
        "chosen by": f"{config.train.select} on {len(validated)} sessions" if len(validated) else "nothing: the last epoch",
        "data": f"{dataset.root.resolve().name}, digest {dataset.store.digest}, {dataset.labels.encoding} labels",
        "intervals": INTERVAL_NOTE,
    }
